// Puts the page together: buttons, microphone, pictures, the session, and what was said.

import { Delays } from "./delays.js";
import { Live } from "./live.js";
import { Microphone } from "./microphone.js";
import { Notice } from "./notice.js";
import { Picture } from "./picture.js";
import * as problems from "./problems.js";
import { Settings } from "./settings.js";
import { TurnList } from "./turns.js";

const QUIETEST = -60; // dBFS at the left end of the meter
const STATES = {
  looking: "Looking for the server",
  ready: "Ready",
  connecting: "Connecting",
  open: "Connected",
  busy: "The server is busy",
  gone: "No server",
  refused: "Refused",
  "no-key": "A key is needed",
  "wrong-key": "A key is needed",
};

const element = (id) => document.getElementById(id);
const [log, question, keyForm] = ["log", "question", "key-form"].map(element);
const notice = new Notice(element);
const delays = new Delays(element);
const list = new TurnList(element("turns"), log);
const settings = new Settings(element, settingsChanged);
const starting = new Set(); // kinds of devices that the browser asks about
let facing = "environment";
let wakeLock = null; // keeps the screen of a phone on while it listens

const picture = new Picture(element("video"), { onEnd: (kind) => gone(kind) });
const microphone = new Microphone({
  onBlock: (samples, rate) => live.hear(samples, rate),
  onLevel: showLevel,
  onEnd: () => {
    endHearing();
    gone("microphone");
  },
  onMuted: () => notice.show(problems.MUTED),
});
const live = new Live({
  settings,
  frame: () => picture.frame(),
  onState: showState,
  onProblem: (message) => notice.show(message),
  onSlow: (isSlow) => (isSlow ? notice.show(problems.SLOW) : notice.hideIf(problems.SLOW)),
  onTurn: showTurn,
  onRemove: (turn) => {
    list.remove(turn);
    showButtons();
  },
  onDelay: (kind, delay) => delays.add(kind, delay),
});

// ---------------------------------------------------------------- the devices

async function toggleMicrophone() {
  if (microphone.isOn) {
    microphone.stop();
    endHearing();
  } else if (!live.takes("audio")) {
    notice.show(problems.NO_SOUND);
  } else if (await begin("microphone", () => microphone.start(settings.get("microphones")))) {
    live.isHeard = true;
    live.open();
    await keepAwake();
  }
  showButtons();
}

function endHearing() {
  live.endSound();
  wakeLock?.release();
  wakeLock = null;
}

async function keepAwake() {
  wakeLock = (await navigator.wakeLock?.request("screen").catch(() => null)) ?? null; // refused on an empty battery
}

async function toggle(kind) {
  if (picture.kind === kind) picture.stop();
  else if (!live.takes("image")) notice.show(problems.NO_PICTURES);
  else await begin(kind, kind === "camera" ? startCamera : () => picture.startScreen());
  showButtons();
}

function startCamera() {
  return picture.startCamera({ deviceId: settings.get("cameras"), facing });
}

// Whether a device could be started; otherwise the page says why not.
async function begin(kind, start) {
  const devices = navigator.mediaDevices;
  const ask = kind === "screen" ? devices?.getDisplayMedia : devices?.getUserMedia;
  if (starting.has(kind)) return false; // the browser is asking already
  if (!window.isSecureContext || !ask) {
    notice.show(window.isSecureContext ? problems.missingProblem(kind) : problems.insecureProblem(kind));
    return false;
  }
  starting.add(kind);
  try {
    await start();
    notice.hide();
    await settings.listDevices();
    return true;
  } catch (error) {
    // without the server, the code that reads the microphone is missing; find() says that it is gone
    const isGone = error.name === "AbortError" && !(await live.find());
    const isChosen = kind !== "screen" && settings.get(`${kind}s`) !== "";
    if (!isGone) notice.show(problems.deviceProblem(kind, error, isChosen));
    return false;
  } finally {
    starting.delete(kind);
  }
}

function gone(kind) {
  showButtons();
  notice.show(problems.ENDED[kind]);
}

async function settingsChanged(name) {
  if (name === "microphones" && microphone.isOn) {
    microphone.stop();
    if (!(await begin("microphone", () => microphone.start(settings.get("microphones"))))) endHearing();
  } else if (name === "cameras" && picture.kind === "camera") {
    await begin("camera", startCamera);
  } else {
    live.update();
  }
  showButtons();
}

// ---------------------------------------------------------------- what is shown

function showState(state, message) {
  element("state").dataset.state = state;
  element("state-text").textContent = STATES[state];
  if (live.model !== null) {
    element("model").textContent = live.model.id;
    document.title = `${live.model.id} · mlx_gemma4`;
  }
  const again = { label: "Try now", act: () => live.open() };
  if (state === "gone") notice.show(problems.GONE, again);
  else if (state === "busy") notice.show(problems.BUSY[live.isHeard ? 1 : 0], again);
  else if (state === "refused") notice.show(message, again);
  else if (state === "ready" || state === "open") notice.hideIf(problems.GONE, ...problems.BUSY);
  const needsKey = state === "no-key" || state === "wrong-key";
  if (needsKey && keyForm.hidden) setTimeout(() => element("key").focus());
  keyForm.hidden = !needsKey;
  element("key-problem").textContent = state === "wrong-key" ? problems.WRONG_KEY : "";
  showButtons();
}

function showTurn(turn) {
  list.show(turn);
  if (turn.state === "done" && turn.said !== turn.text) {
    turn.said = turn.text;
    notice.say(`${turn.role === "user" ? "You" : "Gemma"}: ${turn.text}`);
  }
  showButtons();
}

function showButtons() {
  element("microphone").setAttribute("aria-pressed", microphone.isOn);
  element("camera").setAttribute("aria-pressed", picture.kind === "camera");
  element("screen").setAttribute("aria-pressed", picture.kind === "screen");
  document.body.classList.toggle("hears", microphone.isOn);
  element("meter").hidden = !microphone.isOn;
  element("stage").hidden = picture.kind === null;
  element("stage").dataset.kind = picture.kind ?? "";
  const isPhone = matchMedia("(pointer: coarse)").matches;
  element("flip").hidden = picture.kind !== "camera" || settings.get("cameras") !== "" || !isPhone;
  element("stop").hidden = !live.isAnswering;
  const isEmpty = live.conversation.turns.length === 0;
  element("empty").hidden = !isEmpty;
  element("save").disabled = element("clear").disabled = isEmpty;
  if (element("state").dataset.state === "open") {
    element("state-text").textContent = microphone.isOn ? "Listening" : STATES.open;
  }
}

function showLevel(level) {
  const shown = Math.max(QUIETEST, Math.min(0, level));
  element("level").style.setProperty("--level", 1 - shown / QUIETEST);
  element("meter").setAttribute("aria-valuenow", Math.round(shown));
}

// ---------------------------------------------------------------- what is typed

async function send(event) {
  event.preventDefault();
  const text = question.value.trim();
  if (text === "" || question.readOnly) return;
  question.readOnly = true; // what could not be sent stays there
  const isSent = await live.ask(text);
  question.readOnly = false;
  if (isSent) question.value = "";
  fitQuestion();
}

function fitQuestion() {
  question.style.height = "auto";
  question.style.height = `${question.scrollHeight + 2}px`;
}

function save() {
  const lines = live.conversation.turns.map(({ role, text }) => `${role === "user" ? "You" : "Gemma"}: ${text}\n`);
  const url = URL.createObjectURL(new Blob(lines, { type: "text/plain" }));
  Object.assign(document.createElement("a"), { href: url, download: "conversation.txt" }).click();
  URL.revokeObjectURL(url);
}

// ---------------------------------------------------------------- begin

const on = (id, kind, act) => element(id).addEventListener(kind, act);
on("microphone", "click", toggleMicrophone);
on("camera", "click", () => toggle("camera"));
on("screen", "click", () => toggle("screen"));
on("flip", "click", async () => {
  facing = facing === "user" ? "environment" : "user";
  await begin("camera", startCamera);
  showButtons();
});
on("stop", "click", () => live.stop());
on("save", "click", save);
on("clear", "click", () => live.clear());
on("composer", "submit", send);
on("question", "input", fitQuestion);
on("question", "keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) send(event);
});
keyForm.addEventListener("submit", (event) => {
  event.preventDefault();
  settings.key = element("key").value;
  live.look();
});
document.addEventListener("keydown", ({ key }) => {
  if (key === "Escape" && live.isAnswering) live.stop();
});
document.addEventListener("visibilitychange", () => {
  if (document.visibilityState !== "visible" || !microphone.isOn) return;
  microphone.resume();
  keepAwake(); // it ended when the page was hidden
});
navigator.mediaDevices?.addEventListener("devicechange", () => settings.listDevices());
element("server").textContent = location.host;
settings.listDevices();
live.find();
