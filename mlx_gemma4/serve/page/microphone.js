// The microphone, as blocks of 16-bit samples.

const WISHED_RATE = 16000;
const HIGHEST_RATE = 48000;
const MUTED_SECONDS = 3;
const STARTS_IN = 3000; // milliseconds

export class Microphone {
  // onBlock(samples: Int16Array, rate), onLevel(dBFS), onEnd(): the device has gone, onMuted(): only zeros so far
  constructor({ onBlock, onLevel, onEnd, onMuted }) {
    Object.assign(this, { onBlock, onLevel, onEnd, onMuted });
    this.stream = null;
    this.context = null;
  }

  get isOn() {
    return this.stream !== null;
  }

  // Raises what getUserMedia raises.
  async start(deviceId) {
    // the model hears what was said, as it does from the command line: no echo to cancel, and no noise gate
    const sound = { channelCount: 1, echoCancellation: false, noiseSuppression: false, autoGainControl: false };
    if (deviceId) sound.deviceId = { exact: deviceId };
    const stream = await navigator.mediaDevices.getUserMedia({ audio: sound });
    try {
      await this.connect(stream);
    } catch (error) {
      stop(stream);
      throw error;
    }
    this.stream = stream;
    stream.getAudioTracks()[0].addEventListener("ended", () => {
      if (this.stream === stream) {
        this.stop();
        this.onEnd();
      }
    });
  }

  stop() {
    if (this.stream === null) return;
    stop(this.stream);
    this.context.close();
    this.stream = this.context = null;
    this.onLevel(-Infinity);
  }

  // Phones stop the sound while another app is in front.
  resume() {
    this.context?.resume();
  }

  async connect(stream) {
    const [context, source] = connected(stream);
    const step = Math.ceil(context.sampleRate / HIGHEST_RATE);
    await context.audioWorklet.addModule(new URL("capture.js", import.meta.url));
    await started(context);
    const options = { numberOfInputs: 1, numberOfOutputs: 0, channelCount: 1, channelCountMode: "explicit" };
    const node = new AudioWorkletNode(context, "capture", { ...options, processorOptions: { step } });
    const rate = context.sampleRate / step;
    let silent = 0; // seconds of nothing but zeros; NaN once there was a sound
    node.port.onmessage = ({ data }) => {
      const level = decibels(data);
      silent = level === -Infinity ? silent + data.length / rate : NaN;
      if (silent >= MUTED_SECONDS) {
        silent = NaN;
        this.onMuted();
      }
      this.onBlock(data, rate);
      this.onLevel(level);
    };
    source.connect(node);
    this.context = context;
  }
}

// The browser resamples to 16 kHz. Where it cannot, the server does.
function connected(stream) {
  const context = new AudioContext({ sampleRate: WISHED_RATE });
  try {
    return [context, context.createMediaStreamSource(stream)];
  } catch {
    context.close();
    const own = new AudioContext();
    return [own, own.createMediaStreamSource(stream)];
  }
}

// Without any output of sound, some browsers never start.
async function started(context) {
  const late = new Promise((resolve) => setTimeout(resolve, STARTS_IN));
  await Promise.race([context.resume(), late]);
  if (context.state === "running") return;
  context.close();
  throw new DOMException("The sound does not start", "InvalidStateError");
}

function decibels(samples) {
  let sum = 0;
  for (const sample of samples) sum += sample * sample;
  return 20 * Math.log10(Math.sqrt(sum / samples.length) / 32768);
}

function stop(stream) {
  for (const track of stream.getTracks()) track.stop();
}
