// The list of turns on the page. Text is set as text: what the model writes is never read as HTML.

import { formatted } from "./formatted.js";

const ENDS = { stopped: "interrupted", cut: "cut short" };
const NEAR = 80; // pixels from the end at which the list follows what is added

export class TurnList {
  constructor(list, scroller) {
    Object.assign(this, { list, scroller });
    this.nodes = new Map();
  }

  show(turn) {
    const { scrollTop, scrollHeight, clientHeight } = this.scroller;
    const follows = scrollHeight - scrollTop - clientHeight < NEAR;
    const node = this.nodes.get(turn) ?? this.add(turn);
    node.item.dataset.state = turn.state;
    if (turn.role === "user") node.text.textContent = turn.text;
    else node.text.replaceChildren(...formatted(turn.text));
    node.draft.textContent = turn.draft;
    node.problem.textContent = turn.problem ?? "";
    node.foot.textContent = footOf(turn);
    node.picture.hidden = turn.thumbnail === null;
    if (turn.thumbnail !== null && node.picture.src !== turn.thumbnail) node.picture.src = turn.thumbnail;
    if (follows) this.scroller.scrollTop = this.scroller.scrollHeight;
  }

  remove(turn) {
    this.nodes.get(turn)?.item.remove();
    this.nodes.delete(turn);
  }

  add(turn) {
    const make = (tag, name) => Object.assign(document.createElement(tag), { className: name });
    const item = make("li", `turn ${turn.role}`);
    const who = make("span", "who");
    who.textContent = turn.role === "user" ? "You" : "Gemma";
    const picture = make("img", "sent");
    picture.alt = "The picture that was sent with this question";
    const words = make("p", "words");
    const node = { item, picture, text: make("span", "text"), draft: make("span", "draft") };
    node.problem = make("p", "problem");
    node.foot = make("p", "foot");
    words.append(node.text, node.draft);
    item.append(who, picture, words, node.problem, node.foot);
    this.list.append(item);
    this.nodes.set(turn, node);
    return node;
  }
}

function footOf({ role, delay, state }) {
  const parts = [];
  if (delay !== null)
    parts.push(role === "user" ? `all words after ${seconds(delay)}` : `began after ${seconds(delay)}`);
  if (state in ENDS) parts.push(ENDS[state]);
  return parts.join(" · ");
}

export function seconds(value) {
  return `${Math.max(0, value).toFixed(2)} s`;
}
