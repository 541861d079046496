// One message above the conversation, and what a screen reader says.

export class Notice {
  constructor(element) {
    this.box = element("notice");
    this.text = element("notice-text");
    this.button = element("notice-button");
    this.live = element("live");
    this.act = this.shown = null;
    this.button.addEventListener("click", () => this.act?.());
    element("notice-close").addEventListener("click", () => this.hide());
  }

  // A message, in which `commands` stand between backticks; perhaps with a button: {label, act}.
  show(text, button = null) {
    this.shown = text;
    this.text.replaceChildren(...text.split("`").map((part, index) => (index % 2 === 1 ? code(part) : part)));
    this.button.hidden = button === null;
    this.button.textContent = button?.label ?? "";
    this.act = button?.act ?? null;
    this.box.hidden = false;
  }

  hide() {
    this.box.hidden = true;
    this.shown = null;
    this.act = null;
  }

  // Hides the message if it is one of these.
  hideIf(...texts) {
    if (texts.includes(this.shown)) this.hide();
  }

  say(text) {
    this.live.textContent = text;
  }
}

function code(text) {
  return Object.assign(document.createElement("code"), { textContent: text });
}
