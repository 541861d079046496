// Runs in the browser's audio thread: cuts the microphone's sound into blocks of 40 ms of 16-bit samples.
// The model's frames have 40 ms too, so each block is computed when it arrives.

const BLOCK_SECONDS = 0.04;

class Capture extends AudioWorkletProcessor {
  // step: samples of the microphone in one sample of the block
  constructor({ processorOptions: { step } }) {
    super();
    this.step = step;
    this.block = new Int16Array(Math.round((sampleRate / step) * BLOCK_SECONDS));
    this.length = 0;
    this.sum = 0;
    this.count = 0;
  }

  process([input]) {
    const samples = input[0];
    if (samples === undefined) return true; // the microphone has not begun
    for (const sample of samples) {
      this.sum += sample;
      this.count += 1;
      if (this.count === this.step) this.push(this.sum / this.step);
    }
    return true;
  }

  push(sample) {
    this.sum = this.count = 0;
    this.block[this.length] = Math.round(32767 * Math.max(-1, Math.min(1, sample)));
    this.length += 1;
    if (this.length === this.block.length) {
      this.port.postMessage(this.block.slice());
      this.length = 0;
    }
  }
}

registerProcessor("capture", Capture);
