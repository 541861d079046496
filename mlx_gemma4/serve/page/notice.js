// One message above the conversation, and what a screen reader says.

export class Notice {
  constructor(element) {
    this.box = element("notice");
    this.text = element("notice-text");
    this.button = element("notice-button");
    this.live = element("live");
    this.act = null;
    this.button.addEventListener("click", () => this.act?.());
    element("notice-close").addEventListener("click", () => this.hide());
  }

  // A message, perhaps with a button: {label, act}.
  show(text, button = null) {
    this.text.textContent = text;
    this.button.hidden = button === null;
    this.button.textContent = button?.label ?? "";
    this.act = button?.act ?? null;
    this.box.hidden = false;
  }

  hide() {
    this.box.hidden = true;
    this.text.textContent = "";
    this.act = null;
  }

  // Hides the message if it is one of these.
  hideIf(...texts) {
    if (texts.includes(this.text.textContent)) this.hide();
  }

  say(text) {
    this.live.textContent = text;
  }
}
