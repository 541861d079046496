// The delays that the page measures, and their medians.

import { seconds } from "./turns.js";

export class Delays {
  constructor(element) {
    this.places = { words: element("words-delay"), answer: element("answer-delay") };
    this.medians = { words: element("words-median"), answer: element("answer-median") };
    this.found = { words: [], answer: [] };
  }

  add(kind, delay) {
    const found = this.found[kind];
    found.push(delay);
    this.places[kind].textContent = seconds(delay);
    this.places[kind].parentElement.hidden = false;
    if (found.length > 1) this.medians[kind].textContent = `median of ${found.length}: ${seconds(median(found))}`;
  }
}

function median(values) {
  const sorted = values.toSorted((a, b) => a - b);
  const half = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
}
