// Bold, code and lists of an answer, as nodes: its text is never read as HTML, and other marks stay as they are.

const PART = /```[^\n`]*\n([^]*?)(?:\n?```\n?|$)|`([^`\n]+)`|\*\*(?=\S)([^*\n]*[^*\s])\*\*/g;
const BULLET = /^([ \t]*)[*-] +/gm;

export function formatted(text) {
  const nodes = [];
  let end = 0;
  for (const match of text.matchAll(PART)) {
    const [whole, block, code, bold] = match;
    nodes.push(plain(text.slice(end, match.index)));
    if (block !== undefined) nodes.push(make("pre", block));
    else nodes.push(code !== undefined ? make("code", code) : make("b", bold));
    end = match.index + whole.length;
  }
  nodes.push(plain(text.slice(end)));
  return nodes;
}

function plain(text) {
  return document.createTextNode(text.replace(BULLET, "$1• "));
}

function make(tag, text) {
  return Object.assign(document.createElement(tag), { textContent: text });
}
