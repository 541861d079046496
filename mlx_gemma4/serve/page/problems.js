// What went wrong, and what to do about it, in plain words.

const DEVICES = { microphone: "Microphone", camera: "Camera", screen: "Screen" };

// What getUserMedia or getDisplayMedia has raised; isChosen: for a device that the settings name.
export function deviceProblem(kind, error, isChosen) {
  const button = DEVICES[kind];
  const again = `press ${button} again`;
  const onMac = "On a Mac, allow it in System Settings, Privacy & Security";
  switch (error.name) {
    case "NotAllowedError":
    case "SecurityError":
      if (kind === "screen") return `No screen is shared. To share one, ${again}, and choose a window or a screen.`;
      return /system/i.test(error.message)
        ? `The system does not let this browser use the ${kind}. ${onMac}, ${button}; then start the browser again.`
        : `The browser may not use the ${kind}. Allow it with the icon beside the address, then ${again}.`;
    case "OverconstrainedError":
      if (isChosen) return `The ${kind} of the settings is not connected. Choose another one there, then ${again}.`;
      return `No ${kind} was found. Connect one, then ${again}.`;
    case "NotFoundError":
      return `No ${kind} was found. Connect one, then ${again}.`;
    case "NotReadableError":
    case "AbortError":
      return `The ${kind} does not answer. If another program uses it, close that program; then ${again}.`;
    case "InvalidStateError":
      return `This browser does not start its sound. Connect a loudspeaker or headphones, then ${again}.`;
    default:
      return `The ${kind} could not be used (${error.name}). Choose another one in the settings, or ${again}.`;
  }
}

// Browsers hide microphone and camera from pages that did not come over https or from this machine.
export function insecureProblem(kind) {
  const port = location.port || "80";
  const local = `http://localhost:${port}`;
  return (
    `Browsers give the ${kind} only to https pages and to pages of their own machine.\n` +
    `On the server’s machine, open \`${local}\`.\n` +
    `On another computer, run \`ssh -N -L ${port}:localhost:${port} ${location.hostname}\` and open \`${local}\`.\n` +
    `For a phone, put a proxy with https in front of the server.`
  );
}

export function missingProblem(kind) {
  return kind === "screen"
    ? "This browser cannot share the screen; browsers on phones do not. Use the camera instead."
    : `This browser has no access to a ${kind}. Use a current Safari, Chrome or Firefox.`;
}

export const ENDED = {
  microphone: "The microphone has gone. Connect it, then press Microphone again.",
  camera: "The camera has gone. Connect it, then press Camera again.",
  screen: "The screen is no longer shared.",
};

export const MUTED = "The microphone sends only silence. It may be muted, or not be the one you speak into.";
export const GONE =
  "The server does not answer. If it was stopped, start `mlx_gemma4 serve` again: this page looks for it.";
export const WRONG_KEY = "This is not the key of the server.";
export const NO_SOUND = "This checkpoint takes no sound. Questions can be typed.";
export const NO_PICTURES = "This checkpoint takes no pictures.";
export const SLOW = "The server is behind: sound waits to be sent. The words come later than they could.";

const IN_USE = "All sessions of the server are in use, by other pages or apps.";
// Where nothing waits for a session, and where the microphone is on.
export const BUSY = [`${IN_USE} Try again later.`, `${IN_USE} This page tries again in a few seconds.`];
