// The settings of this browser. They are kept for the next visit; the key is kept for this tab alone.

const KEPT = "mlx_gemma4.settings";
const KEY = "mlx_gemma4.key";
const FIELDS = ["answers", "language", "instructions", "microphones", "cameras"];

export class Settings {
  // onChange(name): the user has changed a field
  constructor(element, onChange) {
    this.fields = Object.fromEntries(FIELDS.map((name) => [name, element(name)]));
    const kept = read();
    for (const [name, field] of Object.entries(this.fields)) {
      if (name in kept && field.tagName !== "SELECT") set(field, kept[name]);
      field.addEventListener("change", () => {
        this.keep();
        onChange(name);
      });
    }
  }

  get(name) {
    const field = this.fields[name];
    return field.type === "checkbox" ? field.checked : field.value.trim();
  }

  clear(name) {
    set(this.fields[name], "");
    this.keep();
  }

  keep() {
    const values = Object.fromEntries(FIELDS.map((name) => [name, this.get(name)]));
    allowed(() => localStorage.setItem(KEPT, JSON.stringify(values)));
  }

  get key() {
    this.ownKey ??= allowed(() => sessionStorage.getItem(KEY)) ?? "";
    return this.ownKey;
  }

  set key(key) {
    this.ownKey = key;
    allowed(() => sessionStorage.setItem(KEY, key));
  }

  // Lists microphones and cameras. Browsers tell their names once they were allowed.
  async listDevices() {
    const kept = read();
    const found = (await navigator.mediaDevices?.enumerateDevices()) ?? [];
    for (const [name, kind] of [
      ["microphones", "audioinput"],
      ["cameras", "videoinput"],
    ]) {
      const select = this.fields[name];
      const chosen = select.value || kept[name] || "";
      const devices = found.filter((device) => device.kind === kind && device.label !== "" && device.deviceId !== "");
      select.length = 1;
      for (const { label, deviceId } of devices) select.add(new Option(label, deviceId));
      select.value = devices.some(({ deviceId }) => deviceId === chosen) ? chosen : "";
    }
  }
}

function set(field, value) {
  if (field.type === "checkbox") field.checked = value === true;
  else field.value = typeof value === "string" ? value : "";
}

function read() {
  return allowed(() => JSON.parse(localStorage.getItem(KEPT))) ?? {};
}

// What a function returns; null in a browser that keeps nothing, or where another page of this address has written.
function allowed(use) {
  try {
    return use();
  } catch {
    return null;
  }
}
