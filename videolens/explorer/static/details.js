// In words and numbers: the cell that is looked at, and the token that is chosen.

function part(kind, text, name = "") {
  const made = document.createElement(kind);
  if (text !== undefined) made.textContent = text;
  if (name) made.className = name;
  return made;
}

function cellTitle(pane, { route, layer }) {
  const cut = pane.map.cut[layer].map((each) => each + 1);
  const layers = cut.length === 1 ? `layer ${cut[0]}` : `layers ${cut[0]}–${cut[cut.length - 1]}`;
  return `${(pane.map.routes[route] ?? "").replace("->", "↛")}, ${layers}`;
}

function drawCell(pane, box) {
  const shown = shownCell();
  const { routes, before, after, change: changes, mean } = pane.map;
  box.replaceChildren();
  if (shown.route >= routes.length || shown.layer >= pane.map.layers.length) {
    box.append(part("p", "This side has no such cell.", "quiet"));
    return;
  }
  box.append(part("h3", `${cellTitle(pane, shown)} cut: ${whole(changes[shown.route][shown.layer])} %`));
  const curve = mean?.curves[routes[shown.route]];
  const said = curve
    ? `this question; over ${mean.n} questions ${whole(curve.mean[shown.layer])} [${whole(curve.low[shown.layer])}, ${whole(curve.high[shown.layer])}] ${mean.unit} (mean, 95 % interval)`
    : "this question alone, so there is no interval";
  box.append(part("p", said, "quiet mean"));
  const table = part("table", undefined, "answers");
  const head = table.createTHead().insertRow();
  head.append(cell("th", "answer"), cell("th", "as it is"), cell("th", "with the route cut"));
  const body = table.createTBody();
  pane.answers.forEach((answer, i) => {
    const line = body.insertRow();
    if (i === pane.followed) line.className = "followed";
    line.append(part("td", answer.text + (answer.right ? " ✓" : "")));
    line.append(share(before[i]), share(after[shown.route][shown.layer][i]));
  });
  box.append(table);
}

function share(value) {
  const box = part("td");
  const bar = part("span", undefined, "share"), inner = part("i");
  inner.style.width = `${100 * value}%`;
  bar.append(inner);
  box.append(bar, value.toFixed(3));
  return box;
}

async function drawToken(pane, box) {
  // what the chosen token looks at and reads as
  const at = state.token;
  box.replaceChildren();
  if (at >= pane.n) {
    box.append(part("p", "This side has no such token.", "quiet"));
    return;
  }
  box.append(part("h3", pane.named(at)));
  const row = await pane.row(at);
  if (!row) {
    box.append(part("p", "Its attention is not on this page: there was no room. Name it in rows= when the page is made.", "quiet"));
  } else {
    const weights = pane.weights(row, state.layer, state.head);
    const most = largest(weights, 5);
    const of = state.head === MEAN ? "the mean over heads" : `head ${state.head}`;
    box.append(part("p", `In layer ${state.layer + 1}, ${of} looks most at ` +
      most.map((key) => `${pane.named(key)} ${weights[key].toFixed(3)}`).join("; ") + ".", "looks"));
    box.append(drawHeads(pane, row));
    box.append(part("p", "Share of its attention that goes to the video: a line for every head, a column for every layer; click one.", "quiet"));
  }
  if (pane.words) box.append(drawLens(pane, at));
  const effects = pane.effects(state.layer);
  if (effects?.has(at)) box.append(part("p", `${pane.patches.what} here in layer ${state.layer + 1}: effect ${whole(effects.get(at), 2)}`, "effect"));
}

function drawHeads(pane, row) {
  const { layers, heads } = pane.attention;
  const size = Math.max(4, Math.min(16, Math.floor(420 / layers)));
  const canvas = part("canvas", undefined, "heads");
  canvas.width = layers * size;
  canvas.height = heads * size;
  canvas.style.width = `${canvas.width}px`;
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", "share of attention to the video, by layer and head");
  const context = canvas.getContext("2d");
  const shares = pane.toVideo(row);
  for (let layer = 0; layer < layers; layer++) {
    for (let head = 0; head < heads; head++) {
      context.fillStyle = `rgba(${plainColour("--lit")}, ${shares[layer * heads + head]})`;
      context.fillRect(layer * size, head * size, size - 1, size - 1);
      if (layer === state.layer && (head === state.head || state.head === MEAN)) {
        context.strokeStyle = plainColour("--ink");
        context.strokeRect(layer * size + 0.5, head * size + 0.5, size - 2, size - 2);
      }
    }
  }
  canvas.addEventListener("click", (event) => {
    const at = canvas.getBoundingClientRect(), scale = canvas.width / at.width;
    change({
      layer: within(Math.floor(((event.clientX - at.left) * scale) / size), layers),
      head: within(Math.floor(((event.clientY - at.top) * scale) / size), heads),
      view: "attention",
    });
  });
  return canvas;
}

function drawLens(pane, at) {
  const table = part("table", undefined, "lens");
  const head = table.createTHead().insertRow();
  head.append(cell("th", "after layer"), cell("th", "it reads as (logit lens)"));
  const body = table.createTBody();
  for (let layer = 0; layer < pane.attention.layers; layer++) {
    const line = body.insertRow();
    if (layer === state.layer) line.className = "now";
    const words = pane.wordsOf(layer, at).map(([word, p]) => `${word.trim() || "␣"} ${p.toFixed(2)}`);
    line.append(part("td", layer + 1), part("td", words.join(" · ")));
  }
  const rows = part("div", undefined, "rows");
  rows.append(table);
  return rows;
}
