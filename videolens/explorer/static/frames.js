// The clip: one frame large and all of them small, with the tokens' patches over them.

const pictures = new Map(); // pane → loaded images

function loadPictures(pane) {
  const all = pane.frames.map((source) => {
    const image = new Image();
    image.src = source;
    return image;
  });
  pictures.set(pane, all);
  return Promise.all(all.map((image) => image.decode().catch(() => null)));
}

function sized(canvas, ratio) {
  // a canvas of the page, as wide as its place and `ratio` times as high
  const width = Math.max(1, canvas.clientWidth);
  canvas.style.height = `${width * ratio}px`;
  return [sizedAs(canvas, width, ratio), width, width * ratio];
}

function sizedAs(canvas, width, ratio) {
  // empty, with pixels of the screen
  const dense = window.devicePixelRatio || 1;
  canvas.width = Math.round(width * dense);
  canvas.height = Math.round(width * ratio * dense);
  const context = canvas.getContext("2d");
  context.scale(dense, dense);
  return context;
}

const inStyle = new Map(); // names of the style → what they are now
function plainColour(name) {
  // as the style has it: "#rrggbb", or "r, g, b"
  if (!inStyle.has(name)) inStyle.set(name, getComputedStyle(document.documentElement).getPropertyValue(name).trim());
  return inStyle.get(name);
}

function drawFrame(context, pane, frame, box, paint, colours, detailed) {
  // a frame and its patches: `paint` says of every patch how light it is (1: as it is), what frames it, what is written
  const [x, y, width, height] = box;
  const image = pictures.get(pane)[frame];
  context.imageSmoothingEnabled = !image || image.naturalWidth > 128;
  if (image && image.naturalWidth) context.drawImage(image, x, y, width, height);
  const [, rows, columns] = pane.grid;
  // whole pixels: the edges of two dark patches would show as a line
  const across = Array.from({ length: columns + 1 }, (_, i) => Math.round(x + (i * width) / columns));
  const down = Array.from({ length: rows + 1 }, (_, i) => Math.round(y + (i * height) / rows));
  for (let i = 0; i < pane.perFrame; i++) {
    const at = pane.video[frame * pane.perFrame + i];
    const column = i % columns, row = Math.floor(i / columns);
    const left = across[column], top = down[row], w = across[column + 1] - left, h = down[row + 1] - top;
    const { dark = 0, tint = null, key = false, query = false, word = "" } = paint(at);
    if (dark > 0) {
      context.fillStyle = `rgba(${colours.dim}, ${dark})`;
      context.fillRect(left, top, w, h);
    }
    if (tint) {
      context.fillStyle = tint;
      context.fillRect(left, top, w, h);
    }
    const line = detailed ? 2 : 1;
    context.lineWidth = line;
    if (query) { context.strokeStyle = colours.query; context.strokeRect(left + line, top + line, w - 2 * line, h - 2 * line); }
    if (key) { context.strokeStyle = colours.key; context.strokeRect(left + 3 * line, top + 3 * line, w - 6 * line, h - 6 * line); }
    if (word && detailed) writeWord(context, word, left, top, w, h);
  }
}

function drawChosen(context, pane, frame, box) {
  // a line around the chosen patch, if it is in this frame
  const place = pane.place(state.token);
  if (!place || place[0] !== frame) return;
  const [x, y, width, height] = box;
  const w = width / pane.grid[2], h = height / pane.grid[1];
  const left = x + place[2] * w, top = y + place[1] * h;
  context.lineWidth = 3;
  context.strokeStyle = "#ffffff";
  context.strokeRect(left, top, w, h);
  context.lineWidth = 1;
  context.strokeStyle = "#000000";
  context.strokeRect(left - 1, top - 1, w + 2, h + 2);
}

function writeWord(context, word, left, top, w, h) {
  const size = Math.max(7, Math.min(h / 3, (1.7 * w) / Math.max(3, word.length)));
  context.font = `${size}px system-ui, sans-serif`;
  context.textAlign = "center";
  context.textBaseline = "middle";
  context.fillStyle = "rgba(0, 0, 0, .55)";
  context.fillRect(left + 1, top + h / 2 - size * 0.7, w - 2, size * 1.4);
  context.fillStyle = "#ffffff";
  context.fillText(word, left + w / 2, top + h / 2, w - 3);
}

function layout(pane, width) {
  // how the small frames stand: [columns, width, height] of each
  const frames = pane.grid[0];
  const columns = Math.max(1, Math.min(frames, frames <= 16 ? 8 : Math.ceil(width / 66)));
  const w = (width - 4 * (columns - 1)) / columns;
  return [columns, w, w * ratioOf(pane)];
}

function ratioOf(pane) {
  const image = pictures.get(pane)[0];
  return image && image.naturalWidth ? image.naturalHeight / image.naturalWidth : pane.grid[1] / Math.max(1, pane.grid[2]);
}

function drawClip(pane, at, paint, key) {
  // both canvases of a pane; `key` names what is painted: as long as it stays, the small frames are not painted again
  if (!pane.grid[0]) {
    at.frame.hidden = at.strip.hidden = true;
    return;
  }
  const colours = { dim: plainColour("--dim"), key: plainColour("--key"), query: plainColour("--query") };
  const frame = Math.min(state.frame, pane.grid[0] - 1);
  const [large, width, height] = sized(at.frame, ratioOf(pane));
  drawFrame(large, pane, frame, [0, 0, width, height], paint, colours, true);
  drawChosen(large, pane, frame, [0, 0, width, height]);
  at.frame.setAttribute("aria-label", `${pane.time(frame)} of ${pane.grid[0]}, ${pane.grid[1]} × ${pane.grid[2]} patches`);
  const wide = Math.max(1, at.strip.clientWidth);
  const [columns, w, h] = layout(pane, wide);
  const ratio = (Math.ceil(pane.grid[0] / columns) * (h + 4) - 4) / wide;
  const boxOf = (i) => [(i % columns) * (w + 4), Math.floor(i / columns) * (h + 4), w, h];
  const painted = `${key} ${wide} ${window.devicePixelRatio}`;
  if (at.painted !== painted) {
    at.small = at.small ?? document.createElement("canvas");
    const context = sizedAs(at.small, wide, ratio);
    for (let i = 0; i < pane.grid[0]; i++) drawFrame(context, pane, i, boxOf(i), paint, colours, false);
    at.painted = painted;
  }
  const [small] = sized(at.strip, ratio);
  small.drawImage(at.small, 0, 0, wide, wide * ratio);
  for (let i = 0; i < pane.grid[0]; i++) drawChosen(small, pane, i, boxOf(i));
  const [x, y] = boxOf(frame);
  small.lineWidth = 2;
  small.strokeStyle = plainColour("--ink");
  small.strokeRect(x + 1, y + 1, w - 2, h - 2);
}

function patchAt(pane, canvas, event, small) {
  // [frame, position] under the pointer
  const box = canvas.getBoundingClientRect();
  let x = event.clientX - box.left, y = event.clientY - box.top;
  let frame = Math.min(state.frame, pane.grid[0] - 1), w = box.width, h = box.height;
  if (small) {
    const [columns, width, height] = layout(pane, box.width);
    const column = Math.floor(x / (width + 4)), line = Math.floor(y / (height + 4));
    frame = line * columns + column;
    if (frame < 0 || frame >= pane.grid[0] || column >= columns) return null;
    x -= column * (width + 4);
    y -= line * (height + 4);
    w = width;
    h = height;
  }
  const [, rows, columns] = pane.grid;
  const row = Math.min(rows - 1, Math.max(0, Math.floor((y / h) * rows)));
  const column = Math.min(columns - 1, Math.max(0, Math.floor((x / w) * columns)));
  return [frame, pane.video[frame * pane.perFrame + row * columns + column]];
}
