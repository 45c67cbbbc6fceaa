// The flow map: a route in every line, a layer in every column.

function makeMap(pane, table) {
  const { routes, layers } = pane.map;
  table.replaceChildren();
  table.setAttribute("aria-label", "flow map: arrow keys move");
  const caption = table.createCaption();
  caption.textContent = `Change of the probability of “${pane.answers[pane.followed].text}” in percent, when a route is cut in ` +
    `${widest(pane)} layers around each layer`;
  const head = table.createTHead().insertRow();
  head.append(cell("th", ""), ...layers.map((layer) => cell("th", layer + 1)));
  const body = table.createTBody();
  const rows = routes.map((route, r) => {
    const line = body.insertRow();
    line.append(cell("th", route.replace("->", "→")));
    return layers.map((layer, l) => {
      const box = line.insertCell();
      box.dataset.route = r;
      box.dataset.layer = l;
      return box;
    });
  });
  listen(table);
  return rows;
}

function cell(kind, text) {
  const made = document.createElement(kind);
  made.textContent = text;
  made.scope = kind === "th" && text !== "" ? (typeof text === "number" ? "col" : "row") : "";
  return made;
}

function widest(pane) {
  return Math.max(...pane.map.cut.map((layers) => layers.length));
}

function listen(table) {
  const of = (event) => {
    const box = event.target.closest?.("td");
    return box ? { route: Number(box.dataset.route), layer: Number(box.dataset.layer) } : null;
  };
  table.addEventListener("pointerover", (event) => {
    const found = event.pointerType === "touch" ? null : of(event);
    if (found) { near = found; change(); }
  });
  table.addEventListener("pointerleave", () => { near = null; change(); });
  table.addEventListener("click", (event) => {
    const found = of(event);
    if (found) { near = null; change({ ...found, view: "cut" }); }
  });
  table.addEventListener("keydown", (event) => {
    const step = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] }[event.key];
    if (!step) return;
    event.preventDefault();
    near = null;
    change({
      route: within(state.route + step[0], main.map.routes.length),
      layer: within(state.layer + step[1], main.map.layers.length),
      view: "cut",
    });
  });
}

function within(at, n) {
  return Math.min(n - 1, Math.max(0, at));
}

function tone(value, most) {
  // falls and rises have colours of their own; a quarter of the way is already seen
  if (value === null || !most) return "";
  const strength = Math.min(1, Math.sqrt(Math.abs(value) / most));
  return `rgba(${value < 0 ? "var(--fall)" : "var(--rise)"}, ${(0.92 * strength).toFixed(3)})`;
}

function strongest(pane) {
  return Math.max(1e-9, ...pane.map.change.flat().map((value) => Math.abs(value ?? 0)));
}

function paintMap(pane, boxes) {
  // values do not change; what is chosen does
  const shown = shownCell();
  boxes.forEach((line, route) => line.forEach((box, layer) => {
    box.classList.toggle("chosen", route === state.route && layer === state.layer);
    box.classList.toggle("near", near !== null && route === shown.route && layer === shown.layer);
  }));
}

function fillMap(pane, boxes, scale) {
  const most = Math.min(100, strongest(pane));
  boxes.forEach((line, route) => line.forEach((box, layer) => {
    const value = pane.map.change[route]?.[layer] ?? null;
    const filled = tone(value, most); // over the cell's own colour: a cell of nothing is still a cell
    box.style.backgroundImage = filled && `linear-gradient(${filled}, ${filled})`;
    box.textContent = value === null || Math.abs(value) < 0.5 ? "" : Math.round(value).toString().replace("-", "−");
    box.setAttribute("aria-label", `${pane.map.routes[route]}, layer ${layer + 1}: ${whole(value)} percent`);
    if (value !== null && Math.abs(value) > 0.35 * most) box.style.color = document.documentElement.dataset.theme === "dark" ? "#0b0c0e" : "#ffffff";
    else box.style.color = "";
  }));
  const missing = Object.keys(pane.map.missing);
  scale.textContent = `Blue: the answer loses; orange: it gains. Fullest colour: ${most.toFixed(0)} %.` +
    (missing.length ? ` Not in this prompt: ${missing.join(", ").replaceAll("->", "→")}.` : "");
}
