// A Realtime session over a WebSocket. Knows addresses and keys, and nothing of what is said.

const KEY_PROTOCOL = "openai-insecure-api-key.";
const PATIENCE = 8000; // milliseconds until a server that says nothing is gone

// Asks the server what it is. Returns {model} or {problem, message}.
export async function findServer(key) {
  const headers = key ? { Authorization: `Bearer ${key}` } : {};
  let response;
  try {
    response = await fetch("v1/models", { headers, cache: "no-store", signal: AbortSignal.timeout(PATIENCE) });
  } catch {
    return { problem: "gone" };
  }
  if (response.status === 401) return { problem: key ? "wrong-key" : "no-key" };
  const body = await response.json().catch(() => null);
  if (!response.ok || !body?.data?.length) {
    return {
      problem: "refused",
      message: body?.error?.message ?? `The server answers with status ${response.status}.`,
    };
  }
  return { model: body.data[0] };
}

export class Connection {
  // onEvent(event), onClose(): the session has ended, and not by close()
  constructor({ onEvent, onClose }) {
    Object.assign(this, { onEvent, onClose });
    this.socket = null;
    this.isReady = false;
  }

  // Whether the session was created. Events can be sent from then on.
  open(model, key) {
    const url = new URL("v1/realtime", location.href);
    url.protocol = url.protocol.replace("http", "ws");
    url.search = new URLSearchParams({ model });
    url.hash = "";
    const socket = new WebSocket(url, ["realtime", ...(key ? [KEY_PROTOCOL + encoded(key)] : [])]);
    this.socket = socket;
    return new Promise((resolve) => {
      const tooLate = setTimeout(() => socket.close(), PATIENCE);
      socket.onmessage = ({ data }) => {
        if (this.socket !== socket) return;
        const event = JSON.parse(data);
        if (event.type === "session.created") {
          clearTimeout(tooLate);
          this.isReady = true;
          resolve(true);
        }
        this.onEvent(event);
      };
      socket.onclose = () => {
        clearTimeout(tooLate);
        resolve(false);
        if (this.socket !== socket) return;
        this.forget();
        this.onClose();
      };
    });
  }

  send(event) {
    this.socket.send(JSON.stringify(event));
  }

  // Bytes that wait to be sent.
  get waiting() {
    return this.socket?.bufferedAmount ?? 0;
  }

  close() {
    const { socket } = this;
    this.forget();
    socket?.close(1000);
  }

  forget() {
    this.socket = null;
    this.isReady = false;
  }
}

// A subprotocol has no spaces and few signs, so a key is percent-encoded where it has others.
function encoded(key) {
  return encodeURIComponent(key).replace(/[()]/g, (sign) => `%${sign.charCodeAt(0).toString(16)}`);
}
