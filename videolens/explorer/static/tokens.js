// The prompt's tokens as text, coloured by role; the video stands among them as one piece.

const ROLE_COLOURS = {
  system: "#999999", glue: "#999999", header: "#999999", suffix: "#56B4E9", stem: "#009E73", option: "#CC79A7",
  timestamp: "#999933", separator: "#BBBBBB", newline: "#BBBBBB", response: "#E69F00", pad: "transparent",
};

function makeTokens(pane, box) {
  // one span a token; neighbouring video tokens, and what stands between frames, are one
  const spans = new Map();
  let video = null;
  const frames = new Set(["video", "newline", "separator"]);
  const told = pane.grid[0];
  for (let at = 0; at < pane.n; at++) {
    if (pane.role[at] === "pad") continue;
    if (frames.has(pane.role[at])) {
      if (!video) {
        video = document.createElement("span");
        video.className = "video";
        box.append(video);
      }
      continue;
    }
    if (video && !video.textContent) video.textContent = `video: ${told} frames × ${pane.grid[1]} × ${pane.grid[2]}`;
    if (pane.role[at] !== "timestamp") video = null;
    const span = document.createElement("span");
    span.textContent = pane.text.get(at);
    span.dataset.at = at;
    span.style.setProperty("--role", ROLE_COLOURS[pane.role[at]] ?? "transparent");
    span.title = `${pane.role[at]}, position ${at}`;
    box.append(span);
    spans.set(at, span);
  }
  if (video && !video.textContent) video.textContent = `video: ${told} frames × ${pane.grid[1]} × ${pane.grid[2]}`;
  box.addEventListener("click", (event) => {
    const at = event.target.dataset?.at;
    if (at !== undefined) choose(Number(at));
  });
  box.addEventListener("keydown", (event) => stepToken(pane, event));
  return spans;
}

function stepToken(pane, event) {
  const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: pane.grid[2] || 1, ArrowUp: -(pane.grid[2] || 1) }[event.key];
  if (!step) return;
  event.preventDefault();
  choose(Math.min(pane.n - 1, Math.max(0, state.token + step)));
}

function choose(at) {
  const place = main.place(at);
  const values = { token: at };
  if (place) values.frame = place[0];
  if (state.view === "cut") values.view = "attention";
  change(values);
}

function paintTokens(pane, spans, paint) {
  for (const [at, span] of spans) {
    const { tint = "", key = false, query = false } = paint(at);
    span.style.backgroundColor = tint || "";
    span.classList.toggle("is-key", key);
    span.classList.toggle("is-query", query);
    span.classList.toggle("chosen", at === state.token);
  }
}

function roleKey(pane, box) {
  box.replaceChildren();
  for (const role of new Set(pane.roles.map(([name]) => name))) {
    if (role === "video" || role === "pad") continue;
    const square = document.createElement("i");
    square.style.background = ROLE_COLOURS[role] ?? "transparent";
    box.append(square, role);
  }
}
