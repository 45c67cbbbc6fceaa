// What the page holds, and how packed numbers are read. Positions, layers and heads count from 0 here, and layers from 1
// where they are shown.

const DATA = JSON.parse(document.getElementById("data").textContent);
const MEAN = -1; // in the place of a head: the mean over all

async function unpack(text) {
  const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

function whole(values, digits = 1) {
  // a number with its sign, and a real minus
  if (values === null || values === undefined) return "–";
  const text = values.toFixed(digits);
  return Number(text) === 0 ? (0).toFixed(digits) : (values > 0 ? "+" : "") + text.replace("-", "−");
}

class Pane {
  constructor(data, number) {
    Object.assign(this, data);
    this.number = number;
    this.rows = new Map(data.attention.rows);
    this.read = new Map(); // rows that have been unpacked
    this.role = new Array(this.n);
    for (const [role, first, last] of this.roles) this.role.fill(role, first, last + 1);
    this.video = [];
    for (let at = 0; at < this.n; at++) if (this.role[at] === "video") this.video.push(at);
    this.cellOf = new Map(this.video.map((at, i) => [at, i])); // position → frame by frame, row by row
    this.text = new Map(this.texts);
  }

  get perFrame() {
    return this.grid[1] * this.grid[2];
  }

  place(at) {
    // [frame, row, column] of a video token
    const i = this.cellOf.get(at);
    if (i === undefined) return null;
    return [Math.floor(i / this.perFrame), Math.floor((i % this.perFrame) / this.grid[2]), i % this.grid[2]];
  }

  named(at) {
    const place = this.place(at);
    if (place) return `frame ${place[0]}, row ${place[1]}, column ${place[2]}`;
    return `“${(this.text.get(at) ?? "").trim() || "␣"}” (${at === this.last ? "last" : this.role[at]})`;
  }

  time(frame) {
    const at = this.seconds[frame];
    return at === null || at === undefined ? `frame ${frame}` : `frame ${frame}, ${at.toFixed(2)} s`;
  }

  async row(at) {
    // {scale, steps, n}: a token's attention in every layer and head; null where there was no room for it
    if (!this.rows.has(at)) return null;
    if (!this.read.has(at)) {
      const bytes = await unpack(this.rows.get(at));
      const many = this.attention.layers * this.attention.heads;
      const scale = new Float32Array(bytes.slice(0, 4 * many).buffer);
      this.read.set(at, { scale, steps: bytes.subarray(4 * many), n: at + 1 });
    }
    return this.read.get(at);
  }

  weights(row, layer, head) {
    // attention to every key, of one head or the mean over all
    const heads = this.attention.heads;
    const out = new Float32Array(row.n);
    const from = head === MEAN ? 0 : head;
    const to = head === MEAN ? heads : head + 1;
    for (let h = from; h < to; h++) {
      const at = layer * heads + h;
      const unit = row.scale[at] / 255 / (to - from);
      for (let key = 0; key < row.n; key++) out[key] += row.steps[at * row.n + key] * unit;
    }
    return out;
  }

  toVideo(row) {
    // share of every layer's and head's attention that goes to the video
    if (row.toVideo) return row.toVideo;
    const many = this.attention.layers * this.attention.heads;
    const out = new Float32Array(many);
    for (let at = 0; at < many; at++) {
      let sum = 0;
      for (const key of this.video) {
        if (key >= row.n) break;
        sum += row.steps[at * row.n + key];
      }
      out[at] = (sum * row.scale[at]) / 255;
    }
    row.toVideo = out;
    return out;
  }

  async readWords() {
    if (!this.words || this.words.index) return;
    const bytes = await unpack(this.words.word);
    this.words.index = new Uint32Array(bytes.buffer, 0, bytes.length / 4);
    this.words.shares = await unpack(this.words.share);
  }

  wordsOf(layer, at) {
    // [[word, probability], …] of a token after a layer, the likeliest first
    const { texts, top, index, shares } = this.words;
    const from = (layer * this.n + at) * top;
    return Array.from({ length: top }, (_, i) => [texts[index[from + i]], shares[from + i] / 255]);
  }

  effects(layer) {
    // Map position → effect of patching it, in one layer (0-based); null where that layer was not patched
    if (!this.patches) return null;
    const i = this.patches.layers.indexOf(layer);
    if (i < 0) return null;
    const found = new Map();
    this.patches.units.forEach((runs, unit) => {
      for (const [first, last] of runs) for (let at = first; at <= last; at++) found.set(at, this.patches.effects[i][unit]);
    });
    return found;
  }
}

function largest(values, n) {
  // where the n largest are, the largest first; one pass, for there may be ten thousand
  const found = [];
  values.forEach((value, at) => {
    if (found.length === n && value <= values[found[n - 1]]) return;
    let i = found.length;
    while (i > 0 && values[found[i - 1]] < value) i--;
    found.splice(i, 0, at);
    if (found.length > n) found.pop();
  });
  return found;
}

function inRuns(runs, at) {
  return runs.some(([first, last]) => first <= at && at <= last);
}
