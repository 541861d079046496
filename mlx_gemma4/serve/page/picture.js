// The camera or the screen, as JPEG pictures.

// the longest side in pixels: what the model reads of a camera's picture, and of a screen with its small text
const CAMERA = { longest: 1280, detail: "auto" };
const SCREEN = { longest: 1920, detail: "high" };
const QUALITY = 0.9;
const THUMBNAIL = 240;

export class Picture {
  // onEnd(): the device has gone, or sharing was ended in the browser
  constructor(video, { onEnd }) {
    Object.assign(this, { video, onEnd });
    this.stream = null;
    this.kind = null; // "camera" or "screen"
  }

  // Raises what getUserMedia raises. ``facing``: "user" or "environment".
  async startCamera({ deviceId, facing }) {
    const wished = { width: { ideal: 1280 }, height: { ideal: 720 }, frameRate: { ideal: 15 } };
    if (deviceId) wished.deviceId = { exact: deviceId };
    else wished.facingMode = facing;
    await this.show(await navigator.mediaDevices.getUserMedia({ video: wished }), "camera");
  }

  // Raises what getDisplayMedia raises.
  async startScreen() {
    await this.show(await navigator.mediaDevices.getDisplayMedia({ video: { frameRate: { ideal: 5 } } }), "screen");
  }

  stop() {
    if (this.stream !== null) for (const track of this.stream.getTracks()) track.stop();
    this.stream = this.kind = null;
    this.video.srcObject = null;
  }

  async show(stream, kind) {
    this.stop();
    this.stream = stream;
    this.kind = kind;
    stream.getVideoTracks()[0].addEventListener("ended", () => {
      if (this.stream === stream) {
        this.stop();
        this.onEnd(kind);
      }
    });
    this.video.srcObject = stream;
    await this.video.play().catch(() => {}); // another stream has taken its place
  }

  // What is seen now: {url, detail, thumbnail}; null while there is nothing.
  frame() {
    if (this.stream === null || this.video.videoWidth === 0) return null;
    const { longest, detail } = this.kind === "screen" ? SCREEN : CAMERA;
    return { url: this.jpeg(longest), detail, thumbnail: this.jpeg(THUMBNAIL) };
  }

  jpeg(longest) {
    const { videoWidth: width, videoHeight: height } = this.video;
    const scale = Math.min(1, longest / Math.max(width, height));
    const canvas = document.createElement("canvas");
    canvas.width = Math.max(1, Math.round(width * scale));
    canvas.height = Math.max(1, Math.round(height * scale));
    canvas.getContext("2d").drawImage(this.video, 0, 0, canvas.width, canvas.height);
    return canvas.toDataURL("image/jpeg", QUALITY);
  }
}
