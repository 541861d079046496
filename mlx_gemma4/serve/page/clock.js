// When a place in the sound that was sent was recorded. The server names places in milliseconds of that sound.

const KEPT = 3000; // blocks: two minutes of them

export class Clock {
  constructor() {
    this.sent = 0; // milliseconds of sound
    this.blocks = []; // {end: milliseconds of sound, time}
  }

  // A block of so many milliseconds was complete at a time.
  add(length, time) {
    this.sent += length;
    this.blocks.push({ end: this.sent, time });
    if (this.blocks.length > KEPT) this.blocks.shift();
  }

  timeOf(place) {
    const block = this.blocks.find(({ end }) => end >= place);
    return block === undefined ? null : block.time - (block.end - place);
  }
}
