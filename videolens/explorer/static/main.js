// Puts the page together, and draws whatever the state says.

const places = []; // of every pane: its elements
const by = (id) => document.getElementById(id);

function makePane(pane) {
  const section = by("pane").content.cloneNode(true).querySelector("section");
  const find = (name) => section.querySelector(name);
  find("h2").textContent = pane.name;
  const answer = pane.answers[pane.followed], p = pane.map.before[pane.followed];
  const right = answer.right === null ? "" : answer.right ? ", which is right" : ", which is wrong";
  find(".stem").textContent = `“${answer.text}” is followed${right}: probability ${p.toFixed(3)}`;
  document.querySelector("main").append(section);
  const at = {
    frame: find(".frame"), strip: find(".strip"), cell: find(".cell"), token: find(".token"),
    spans: makeTokens(pane, find(".text")), boxes: makeMap(pane, find(".map")), scale: find(".scale"),
  };
  roleKey(pane, find(".legend"));
  for (const [canvas, small] of [[at.frame, false], [at.strip, true]]) {
    canvas.addEventListener("click", (event) => {
      const found = patchAt(pane, canvas, event, small);
      if (!found) return;
      if (small && found[0] !== state.frame) change({ frame: found[0] });
      else choose(found[1]);
    });
  }
  at.frame.addEventListener("keydown", (event) => stepToken(pane, event));
  return at;
}

async function painter(pane) {
  // what every token looks like under the present view: position → {dark, tint, key, query, word}
  const none = () => ({});
  if (state.view === "attention") {
    const row = state.token < pane.n ? await pane.row(state.token) : null;
    if (!row) return none;
    const weights = pane.weights(row, state.layer, state.head);
    let most = 1e-9;
    for (const at of pane.video) if (at < row.n) most = Math.max(most, weights[at]);
    const lit = plainColour("--lit");
    const inText = Math.max(1e-9, weights.reduce((best, weight) => Math.max(best, weight), 0));
    return (at) => pane.cellOf.has(at)
      ? { dark: at < row.n ? 0.72 * (1 - Math.sqrt(weights[at] / most)) : 0.72 }
      : { tint: at < row.n ? `rgba(${lit}, ${(0.85 * Math.sqrt(weights[at] / inText)).toFixed(3)})` : "" };
  }
  if (state.view === "words" && pane.words) {
    return (at) => ({ dark: 0.25, word: pane.cellOf.has(at) ? pane.wordsOf(state.layer, at)[0][0].trim() : "" });
  }
  if (state.view === "patches") {
    const effects = pane.effects(state.layer);
    if (!effects) return none;
    const colours = [plainColour("--fall"), plainColour("--rise")];
    return (at) => {
      const effect = effects.get(at);
      if (effect === undefined || effect === null) return { dark: 0.5 };
      return { tint: `rgba(${colours[effect > 0 ? 1 : 0]}, ${Math.min(0.85, Math.abs(effect)).toFixed(3)})` };
    };
  }
  if (state.view !== "cut") return none;
  const { route } = shownCell();
  const queries = pane.map.queries[route] ?? [], keys = pane.map.keys[route] ?? [];
  return (at) => {
    const query = inRuns(queries, at), key = inRuns(keys, at);
    return { query, key, dark: query || key ? 0 : 0.45 };
  };
}

function painted() {
  // a name for what `painter` paints: as long as it stays the same, so do the colours
  const theme = document.documentElement.dataset.theme;
  const of = {
    cut: [shownCell().route], attention: [state.token, state.layer, state.head], words: [state.layer], patches: [state.layer],
  };
  return [theme, state.view, ...of[state.view]].join(" ");
}

function announce() {
  const cut = shownCell();
  const value = main.map.change[cut.route]?.[cut.layer] ?? null;
  by("status").textContent = state.view === "cut"
    ? `${cellTitle(main, cut)} cut: ${whole(value)} %. Blue: queries that no longer look; orange: keys that they no longer see.`
    : state.view === "attention"
      ? `${main.named(state.token)}, layer ${state.layer + 1}, ${state.head === MEAN ? "mean over heads" : `head ${state.head}`}: what it looks at is light.`
      : state.view === "words" ? `What every patch reads as after layer ${state.layer + 1}.` : `Patch effects in layer ${state.layer + 1}: orange, towards the run that is patched from.`;
}

async function draw() {
  const began = performance.now();
  for (const input of document.getElementsByName("view")) input.checked = input.value === state.view;
  by("layer").value = state.layer + 1;
  by("layer-number").textContent = `${state.layer + 1} of ${main.attention.layers}`;
  by("head").value = state.head;
  by("frame").value = state.frame + 1;
  by("frame-number").textContent = main.time(state.frame);
  const key = painted(), token = [state.token, state.layer, state.head, document.documentElement.dataset.theme].join(" ");
  for (const [i, pane] of panes.entries()) {
    const at = places[i];
    const paint = await painter(pane);
    drawClip(pane, at, paint, key);
    if (at.coloured !== `${key} ${state.token}`) paintTokens(pane, at.spans, paint);
    at.coloured = `${key} ${state.token}`;
    paintMap(pane, at.boxes);
    drawCell(pane, at.cell);
    if (at.told !== token) await drawToken(pane, at.token);
    at.told = token;
  }
  announce();
  keep();
  window.drawn = { ms: performance.now() - began, times: (window.drawn?.times ?? 0) + 1 };
}

let playing = null;
function play() {
  if (playing) clearInterval(playing);
  playing = playing ? null : setInterval(() => change({ frame: (state.frame + 1) % main.grid[0] }), 500);
  by("play").textContent = playing ? "stop" : "play";
  by("play").setAttribute("aria-pressed", String(Boolean(playing)));
}

function dress() {
  const dark = state.theme ? state.theme === "dark" : window.matchMedia("(prefers-color-scheme: dark)").matches;
  document.documentElement.dataset.theme = dark ? "dark" : "light";
  inStyle.clear();
  panes.forEach((pane, i) => fillMap(pane, places[i].boxes, places[i].scale));
}

async function start() {
  document.querySelector("h1").textContent = DATA.title;
  document.querySelector(".made").textContent = DATA.made;
  if (panes.length > 1) document.querySelector("main").classList.add("two");
  [state.route, state.layer] = deepest();
  fromHash();
  for (const pane of panes) {
    places.push(makePane(pane));
    await Promise.all([loadPictures(pane), pane.readWords()]);
  }
  by("layer").max = main.attention.layers;
  by("frame").max = Math.max(1, main.grid[0]);
  by("head").append(new Option("mean over all", MEAN), ...Array.from({ length: main.attention.heads }, (_, i) => new Option(i, i)));
  document.querySelector(".patches").hidden = !panes.some((pane) => pane.patches);
  by("layer").addEventListener("input", (event) => change({ layer: Number(event.target.value) - 1 }));
  by("head").addEventListener("input", (event) => change({ head: Number(event.target.value), view: "attention" }));
  by("frame").addEventListener("input", (event) => change({ frame: Number(event.target.value) - 1 }));
  for (const input of document.getElementsByName("view")) input.addEventListener("input", () => change({ view: input.value }));
  by("play").addEventListener("click", play);
  by("theme").addEventListener("click", () => {
    state.theme = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
    dress();
    change();
  });
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { dress(); change(); });
  window.addEventListener("resize", () => change());
  window.addEventListener("hashchange", () => { fromHash(); dress(); change(); });
  dress();
  change();
}

window.explorer = {
  // what is drawn, for scripts that look on: attention of a pane's token to every key
  weights: async (pane, at, layer, head) => panes[pane].weights(await panes[pane].row(at), layer, head),
};
start();
