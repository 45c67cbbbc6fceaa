// What is looked at. It stands in the address, so that a link shows the same; whoever changes it calls change().

const panes = DATA.panes.map((data, i) => new Pane(data, i));
const main = panes[0];
const VIEWS = ["cut", "attention", "words", "patches"];
const state = { route: 0, layer: 0, token: main.last, head: MEAN, frame: 0, view: "cut", theme: "" };
let near = null; // {route, layer} under the pointer: shown instead of the chosen cell, and not kept

function deepest() {
  // the cell that is looked at first: where the answer loses most
  let best = [0, 0];
  main.map.change.forEach((row, route) => row.forEach((change, layer) => {
    if (change !== null && change < (main.map.change[best[0]][best[1]] ?? Infinity)) best = [route, layer];
  }));
  return best;
}

function toHash() {
  const held = new URLSearchParams({
    route: main.map.routes[state.route], layer: state.layer + 1, token: state.token,
    head: state.head === MEAN ? "mean" : state.head, frame: state.frame, view: state.view,
  });
  if (state.theme) held.set("theme", state.theme);
  return "#" + held;
}

function fromHash() {
  // what the address says, as far as there is such a thing
  const held = new URLSearchParams(location.hash.slice(1));
  const number = (name, from, to, otherwise) => {
    const value = Number(held.get(name));
    return held.get(name) !== null && Number.isInteger(value) && value >= from && value <= to ? value : otherwise;
  };
  const route = main.map.routes.indexOf(held.get("route"));
  if (route >= 0) state.route = route;
  state.layer = number("layer", 1, main.attention.layers, state.layer + 1) - 1;
  state.token = number("token", 0, main.n - 1, state.token);
  state.head = number("head", 0, main.attention.heads - 1, MEAN);
  state.frame = number("frame", 0, Math.max(0, main.grid[0] - 1), state.frame);
  if (VIEWS.includes(held.get("view"))) state.view = held.get("view");
  if (["light", "dark"].includes(held.get("theme"))) state.theme = held.get("theme");
}

function shownCell() {
  return near ?? { route: state.route, layer: state.layer };
}

let drawing = false, again = false;
function change(values = {}) {
  // set values, and draw before the next picture; never two drawings at once, and the last state is always drawn
  Object.assign(state, values);
  again = true;
  if (drawing) return;
  drawing = true;
  requestAnimationFrame(redraw);
}

async function redraw() {
  again = false;
  await draw();
  if (again) requestAnimationFrame(redraw);
  else drawing = false;
}

function keep() {
  if (location.hash === toHash()) return;
  try {
    history.replaceState(null, "", toHash());
  } catch {
    // a page inside a frame of a notebook may not change its address
  }
}
