// The session with the model: what goes in, what comes back, and what happens when the server goes away.

import { Clock } from "./clock.js";
import { Connection, findServer } from "./connection.js";
import { Conversation } from "./conversation.js";

const HYPOTHESES = "item.input_audio_transcription.hypotheses";
const COMPLETED = "conversation.item.input_audio_transcription.completed";
const SETTINGS = "settings"; // the id of our session.update, which errors name
const RATE = 16000; // of the sound until there is some
const SILENCE_SECONDS = 1; // behind a microphone that is switched off, so that its turn ends
const AGAIN = 2000; // milliseconds until a server that is gone or busy is asked again
const MOST_WAITING = 1_000_000; // bytes of sound: seconds of it
const HARMLESS = ["response_cancel_not_active", "input_audio_buffer_commit_empty"];

// States: looking, ready (no session is open: it takes a place on the server), connecting, open, busy, gone, no-key,
// wrong-key, refused.
export class Live {
  // settings, frame(): the picture now or null, onState(state, message), onProblem(message), onSlow(is sound waiting),
  // onTurn(turn), onRemove(turn), onDelay(kind, seconds)
  constructor({ settings, frame, onState, onProblem, onSlow, onTurn, onRemove, onDelay }) {
    Object.assign(this, { settings, frame, onState, onProblem, onSlow });
    this.connection = new Connection({ onEvent: (event) => this.take(event), onClose: () => this.closed() });
    this.conversation = new Conversation({
      timeOf: (place) => this.clock.timeOf(place),
      onChange: onTurn,
      onRemove,
      onDelay,
    });
    this.clock = new Clock();
    this.model = null; // what /v1/models says of it
    this.rate = RATE;
    this.isHeard = false; // whether the microphone is on, so the session is opened again when it ends
    this.isSlow = false;
    this.refusal = null; // the error before the server has closed the session
    this.asksNext = false; // a typed question waits for the end of the answer that it interrupts
    this.opening = null;
    this.timer = null;
  }

  takes(kind) {
    return this.model?.input_modalities?.includes(kind) ?? true;
  }

  get isAnswering() {
    return this.conversation.answer !== null;
  }

  // Whether the server is there.
  async find() {
    const key = this.settings.key;
    const found = await findServer(key);
    if (key !== this.settings.key) return this.find(); // another one was entered meanwhile
    if (found.problem) {
      this.fail(found.problem, found.message);
      return false;
    }
    this.model = found.model;
    if (!this.connection.isReady) this.onState("ready");
    return true;
  }

  // Whether a session is open.
  open() {
    clearTimeout(this.timer);
    this.opening ??= this.tryToOpen().finally(() => (this.opening = null));
    return this.opening;
  }

  async tryToOpen() {
    if (this.connection.isReady) return true;
    if (!(await this.find())) return false;
    this.onState("connecting");
    this.clock = new Clock();
    this.refusal = null;
    return this.connection.open(this.model.id, this.settings.key);
  }

  // A block of the microphone.
  hear(samples, rate) {
    if (!this.connection.isReady) return;
    if (rate !== this.rate) {
      this.rate = rate;
      this.update();
    }
    const isSlow = this.connection.waiting > MOST_WAITING;
    if (isSlow !== this.isSlow) this.onSlow((this.isSlow = isSlow));
    this.append(samples);
  }

  // The microphone was switched off.
  endSound() {
    this.isHeard = false;
    if (this.connection.isReady) this.append(new Int16Array(Math.round(SILENCE_SECONDS * this.rate)));
  }

  append(samples) {
    this.connection.send({ type: "input_audio_buffer.append", audio: base64(samples) });
    this.clock.add((1000 * samples.length) / this.rate, performance.now());
  }

  // Whether a typed question could be sent.
  async ask(text) {
    const asked = performance.now();
    if (!(await this.open())) return false;
    const frame = this.takes("image") ? this.frame() : null;
    const words = { type: "input_text", text };
    this.create("user", frame === null ? [words] : [imageOf(frame), words]);
    this.conversation.ask(text, frame?.thumbnail ?? null, asked);
    if (this.isAnswering) {
      this.asksNext = true;
      this.stop();
    } else {
      this.connection.send({ type: "response.create" });
    }
    return true;
  }

  // Interrupt the answer.
  stop() {
    if (this.connection.isReady) this.connection.send({ type: "response.cancel" });
  }

  // Forget what was said.
  clear() {
    this.connection.close();
    this.conversation.clear();
    if (this.isHeard) this.open();
    else if (this.model !== null) this.onState("ready");
  }

  update() {
    if (!this.connection.isReady) return;
    const language = this.settings.get("language");
    const input = {
      format: { type: "audio/pcm", rate: this.rate },
      transcription: language === "" ? {} : { language },
      turn_detection: {
        type: "server_vad",
        create_response: this.settings.get("answers"),
        interrupt_response: true,
      },
    };
    const session = {
      type: "realtime",
      output_modalities: ["text"],
      instructions: this.settings.get("instructions"),
      include: [HYPOTHESES],
      audio: { input },
    };
    this.connection.send({ type: "session.update", event_id: SETTINGS, session });
  }

  take(event) {
    if (event.type === "error") return this.takeError(event.error);
    this.conversation.take(event, performance.now());
    if (event.type === "session.created") {
      this.update();
      this.restore();
      this.onState("open");
    } else if (event.type === "input_audio_buffer.speech_started") {
      this.showPicture(event.item_id);
    } else if (event.type === COMPLETED && !this.settings.get("answers")) {
      // it is written down, and need not fill the model's context
      this.connection.send({ type: "conversation.item.delete", item_id: event.item_id });
    } else if (event.type === "response.done" && this.asksNext) {
      this.asksNext = false;
      this.connection.send({ type: "response.create" });
    }
  }

  // The picture stands before the words that are spoken about it.
  showPicture(item) {
    const frame = this.settings.get("answers") && this.takes("image") ? this.frame() : null;
    if (frame === null) return;
    this.create("user", [imageOf(frame)]);
    this.conversation.change(this.conversation.spoken(item), { thumbnail: frame.thumbnail });
  }

  // Tell a new session what was said in the one before.
  restore() {
    for (const { role, text, state } of this.conversation.turns) {
      if (state === "failed" || text === "") continue;
      if (role === "user") this.create("user", [{ type: "input_text", text }]);
      else this.create("assistant", [{ type: "output_text", text }]);
    }
  }

  create(role, content) {
    this.connection.send({ type: "conversation.item.create", item: { type: "message", role, content } });
  }

  takeError(error) {
    if (!this.connection.isReady) {
      this.refusal = error; // the server closes the session next
      return;
    }
    if (HARMLESS.includes(error.code)) return;
    this.onProblem(error.message);
    if (error.event_id === SETTINGS && this.settings.get("language") !== "") {
      this.settings.clear("language"); // what was refused changes nothing, and the rest is needed
      this.update();
    }
  }

  async closed() {
    this.conversation.end();
    this.asksNext = false;
    if (this.refusal !== null) {
      const isBusy = this.refusal.code === "server_overloaded";
      this.fail(isBusy ? "busy" : "refused", this.refusal.message);
    } else if ((await this.find()) && this.isHeard) {
      this.later();
    }
  }

  fail(problem, message) {
    this.onState(problem, message);
    if (problem === "gone" || (problem === "busy" && this.isHeard)) this.later();
  }

  // Look for the server, and open a session if somebody speaks.
  look() {
    return this.isHeard ? this.open() : this.find();
  }

  later() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.look(), AGAIN);
  }
}

function imageOf({ url, detail }) {
  return { type: "input_image", image_url: url, detail };
}

function base64(samples) {
  const bytes = new Uint8Array(samples.buffer, samples.byteOffset, samples.byteLength);
  let text = "";
  for (let start = 0; start < bytes.length; start += 8192) {
    text += String.fromCharCode(...bytes.subarray(start, start + 8192));
  }
  return btoa(text);
}
