"""The pictures of docs/knockouts.md, drawn from what the package computes for the bundled model.

    python docs/site/pictures.py

writes docs/pictures/*.svg anew. Nothing in them is made up: masks, cones and changes are those of the objects shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Patch, Rectangle

import videolens as vl
from videolens.drawing.style import INK, MUTED, PALETTE, RULE
from videolens.interventions.layer_sets import cut_layers

PICTURES = Path(__file__).resolve().parents[1] / "pictures"
BLUE, ORANGE, GREEN = PALETTE[:3]
OPEN, CUT, LATER, AGAIN = "#BFDDF0", ORANGE, "#FFFFFF", GREEN
NAMES = {"system": "before", "header": "", "glue": "", "suffix": "after", "last": ""}


def main() -> None:
    """Draw all of them."""
    matplotlib.rcParams["svg.hashsalt"] = "videolens"
    model = vl.HookedVideoTransformer.from_pretrained("shapes")
    questions = vl.load_dataset("shapes", split="test", task="moving direction", n=100)
    prompt = model.prompt(questions[0])
    PICTURES.mkdir(exist_ok=True)
    flow = mapped(model, questions)
    drawn = {
        "journey": journey(prompt, questions[0], flow),
        "masks": masks(prompt),
        "windows": windows(flow, "video -> question"),
        "cones": cones(prompt, model.cfg.n_layers),
    }
    for name, figure in drawn.items():
        figure.savefig(PICTURES / f"{name}.svg", metadata={"Date": None}, facecolor="white", bbox_inches="tight")


def mapped(model: vl.HookedVideoTransformer, questions: Sequence[vl.Question]) -> vl.FlowMap:
    """The map of three routes, which out/pictures keeps: take it away to ask again."""
    kept = PICTURES.parents[1] / "out" / "pictures"
    if not kept.is_dir():
        routes = ["cross-frame", "video -> question", "question -> last"]
        vl.trace_flow(model, questions, routes=routes).save(kept)
    return vl.FlowMap.load(kept)


def _figure(wide: float, high: float) -> Figure:
    return Figure(figsize=(wide, high), layout=ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08))


def _segments(prompt: vl.Prompt) -> list[tuple[str, int, int]]:
    """(name, first position, position behind the last) of the prompt's segments, frames by their number from 1."""
    found = []
    for name, positions in prompt.tokens.segments():
        shown = f"{int(name.split()[1]) + 1}" if name.startswith("frame ") else NAMES.get(name, name)
        found.append((shown, int(positions.min()), int(positions.max()) + 1))
    return found


def masks(prompt: vl.Prompt) -> Figure:
    """Who may look at whom: causally, and with two knockouts."""
    causal = torch.ones(prompt.tokens.n_pos, prompt.tokens.n_pos, dtype=torch.bool).tril()
    layer = {"video -> question": 6, "cross-frame": 3}
    figure = _figure(8.6, 4.7)
    for axes, name in zip(figure.subplots(1, 2), layer, strict=True):
        left = causal.clone()
        cut = vl.Knockout.route(name, layers=layer[name])
        cut.close(left, prompt.tokens)
        kinds = np.where(left, 1, np.where(causal, 2, 0))
        axes.imshow(kinds, cmap=ListedColormap([LATER, OPEN, CUT]), vmin=0, vmax=2, interpolation="none")
        _segment_axes(axes, _segments(prompt))
        axes.set_title(
            f"{name.replace('->', '→')}: {cut.edges(prompt):,} pairs cut", fontsize=11, color=INK, loc="left"
        )
        axes.set_xlabel("looked at (keys)", fontsize=10, color=INK)
    figure.axes[0].set_ylabel("looking (queries)", fontsize=10, color=INK)
    labels = {OPEN: "may look", CUT: "cut", LATER: "comes later: never"}
    handles = [Patch(facecolor=colour, edgecolor=RULE, label=label) for colour, label in labels.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False, fontsize=10)
    return figure


def _segment_axes(axes: Axes, segments: Sequence[tuple[str, int, int]], *, rows: bool = True) -> None:
    """Lines and names where segments begin; frames by number."""
    for _, first, _ in segments[1:]:
        axes.axvline(first - 0.5, color=MUTED, linewidth=0.3)
        if rows:
            axes.axhline(first - 0.5, color=MUTED, linewidth=0.3)
    centres = [((first + stop - 1) / 2, name) for name, first, stop in segments if name]
    axes.set_xticks([at for at, _ in centres], [name for _, name in centres], rotation=90, fontsize=9, color=INK)
    if rows:
        axes.set_yticks([at for at, _ in centres], [name for _, name in centres], fontsize=9, color=INK)
    axes.tick_params(length=0)
    for side in axes.spines.values():
        side.set_color(RULE)


def windows(flow: vl.FlowMap, route: str) -> Figure:
    """Which layers each knockout of a route cuts, and what that does to the answer's probability."""
    n_layers, curve = flow.settings.n_layers, flow.curve(route)
    figure = _figure(8.6, 4.2)
    left, right = figure.subplots(1, 2, sharey=True)
    for row, layers in enumerate(cut_layers(flow.settings.style, flow.settings.window, n_layers).values()):
        for layer in range(n_layers):
            colour = CUT if layer in layers else OPEN
            left.add_patch(Rectangle((layer + 0.54, row + 0.58), 0.92, 0.84, facecolor=colour, edgecolor="white"))
    left.set(xlim=(0.5, n_layers + 0.5), ylim=(n_layers + 0.5, 0.5), xticks=range(1, n_layers + 1))
    left.set(yticks=range(1, n_layers + 1))
    left.set_title(f"layers in which {route.replace('->', '→')} is cut", fontsize=11, color=INK, loc="left")
    left.set_xlabel("layer", fontsize=10)
    left.set_ylabel("the knockout around layer …", fontsize=10)
    centres, means = np.asarray(curve.layers) + 1, curve.mean
    right.barh(centres, means, color=CUT, height=0.7, xerr=(means - curve.low, curve.high - means), ecolor=INK)
    right.axvline(0, color=MUTED, linewidth=0.8)
    right.set_title("change of the answer's probability", fontsize=11, color=INK, loc="left")
    right.set_xlabel(f"%, mean of {flow.n} questions with 95 % intervals", fontsize=10)
    for axes in (left, right):
        axes.tick_params(length=0, labelsize=9, labelcolor=INK)
        for side in axes.spines.values():
            side.set_visible(False)
    return figure


def cones(prompt: vl.Prompt, n_layers: int) -> Figure:
    """What two knockouts can change: the layers from their first on, and the positions from their first row on."""
    figure = _figure(8.6, 5.2)
    for axes, (route, layers) in zip(
        figure.subplots(2, 1), {"video -> question": (5, 6, 7), "question -> last": (9, 10, 11)}.items(), strict=True
    ):
        cone = vl.Knockout.route(route, layers=layers).cone(prompt)
        assert cone is not None
        layer, row = cone
        changed = np.zeros((n_layers, prompt.tokens.n_pos))
        changed[layer:, row:] = 1
        axes.imshow(changed, cmap=ListedColormap([OPEN, AGAIN]), aspect="auto", interpolation="none", origin="lower")
        _segment_axes(axes, _segments(prompt), rows=False)
        axes.set_yticks(range(n_layers), range(1, n_layers + 1), fontsize=8)
        axes.set_ylabel("layer", fontsize=10)
        share = changed.mean()
        where = f"{route.replace('->', '→')} in layers {layers[0] + 1} to {layers[-1] + 1}"
        axes.set_title(f"{where}: {100 * share:.1f} % of layers × positions", fontsize=11, color=INK, loc="left")
    handles = [Patch(facecolor=AGAIN, label="computed again"), Patch(facecolor=OPEN, label="as without the knockout")]
    figure.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False, fontsize=10)
    return figure


def journey(prompt: vl.Prompt, question: vl.Question, flow: vl.FlowMap) -> Figure:
    """From a clip to a flow map, in six stations, two to a row."""
    figure = _figure(6.6, 8.8)
    stations = figure.subplots(3, 2).ravel()
    titles = ("1  clip", "2  vision tower", "3  prompt", "4  decoder", "5  sweep", "6  result")
    for axes, title in zip(stations, titles, strict=True):
        axes.set_title(title, fontsize=13, fontweight="bold", color=INK, loc="left")
        axes.set_axis_off()
        axes.set(xlim=(0, 8), ylim=(8, 0), aspect="equal")
    _clip(stations[0], question)
    _tower(stations[1])
    _prompt(stations[2], prompt)
    _decoder(stations[3])
    _sweep(stations[4])
    _result(stations[5], flow)
    return figure


def _say(axes: Axes, x: float, y: float, text: str, **how: object) -> None:
    axes.text(x, y, text, **({"fontsize": 10.5, "color": INK, "va": "center"} | how))  # type: ignore[arg-type]


def _box(axes: Axes, x: float, y: float, wide: float, high: float, colour: str) -> None:
    axes.add_patch(Rectangle((x, y), wide, high, facecolor=colour, edgecolor="white", linewidth=0.8))


def _clip(axes: Axes, question: vl.Question) -> None:
    frames = question.video.frames
    for number, frame in enumerate(frames):
        x, y = 2 * (number % 4), 2 * (number // 4)
        axes.imshow(frame, extent=(x + 0.05, x + 1.9, y + 1.9, y + 0.05), zorder=1)
    axes.set(xlim=(0, 8), ylim=(8, 0))
    _say(axes, 0, 5.0, f"{len(frames)} frames, and the question:")
    _say(axes, 0, 5.9, f"“{question.stem}”", fontsize=9.5)
    _say(axes, 0, 6.8, "vl.Video, vl.Question", color=MUTED, family="monospace", fontsize=9)


def _tower(axes: Axes) -> None:
    for row in range(4):
        for column in range(4):
            _box(axes, 0.1 + 0.75 * column, 0.4 + 0.75 * row, 0.7, 0.7, OPEN)
            _box(axes, 5 + 0.75 * column, 0.4 + 0.75 * row, 0.7, 0.7, BLUE)
    axes.annotate("", (4.8, 1.9), (3.3, 1.9), arrowprops={"arrowstyle": "-|>", "color": INK})
    _say(axes, 0, 5.0, "every frame becomes patches,")
    _say(axes, 0, 5.9, "each patch a video token: 16 a frame")
    _say(axes, 0, 6.8, "model.frontend", color=MUTED, family="monospace", fontsize=9)


def _prompt(axes: Axes, prompt: vl.Prompt) -> None:
    scale = 8 / prompt.tokens.n_pos
    colours = {"stem": ORANGE, "options": PALETTE[4], "last": INK}
    for name, positions in prompt.tokens.segments():
        colour = BLUE if name.startswith("frame") else colours.get(name, RULE)
        _box(axes, float(positions.min()) * scale, 1.2, max(len(positions) * scale, 0.15), 1.6, colour)
    for x, text, colour in ((3.4, "video", BLUE), (7.25, "options", PALETTE[4])):
        _say(axes, x, 0.6, text, color=colour, ha="center", fontsize=9.5)
    _say(axes, 6.45, 3.4, "stem", color=ORANGE, ha="center", fontsize=9.5)
    _say(axes, 8, 3.4, "last", ha="right", fontsize=9.5)
    _say(axes, 0, 5.0, f"{prompt.tokens.n_pos} tokens, each with a name")
    _say(axes, 0, 5.9, "text before, frames, question, answer")
    _say(axes, 0, 6.8, 'prompt.tokens["frame 2"]', color=MUTED, family="monospace", fontsize=9)


def _decoder(axes: Axes) -> None:
    columns = {1.4: BLUE, 4.4: ORANGE, 7.0: INK}
    for layer in range(5):
        for x, colour in columns.items():
            _box(axes, x - 0.45, 3.7 - 0.8 * layer, 0.9, 0.45, colour)
    for start, end, y in ((1.9, 3.9, 2.6), (4.9, 6.5, 1.0)):
        axes.annotate("", (end, y - 0.4), (start, y + 0.4), arrowprops={"arrowstyle": "-|>", "color": INK})
    _say(axes, 2.9, 2.5, "✕", color=CUT, fontsize=20, ha="center", family="DejaVu Sans")
    for x, name in ((1.4, "video"), (4.4, "question"), (7.0, "last")):
        _say(axes, x, 4.5, name, ha="center", fontsize=9.5)
    _say(axes, 0, 5.4, "attention carries what is known from")
    _say(axes, 0, 6.2, "token to token; a knockout cuts a route")
    _say(axes, 0, 7.0, 'vl.Knockout("video", "question", …)', color=MUTED, family="monospace", fontsize=9)


def _sweep(axes: Axes) -> None:
    for copy in range(6):
        x, y = 0.2 + 1.3 * copy, 0.5
        for layer in range(5):
            _box(axes, x, y + 0.75 * (4 - layer), 1.0, 0.65, CUT if layer in (copy - 1, copy) else OPEN)
    _say(axes, 0, 5.0, "every route in every window of layers,")
    _say(axes, 0, 5.9, "sharing what they have in common")
    _say(axes, 0, 6.8, "vl.sweep, vl.trace_flow", color=MUTED, family="monospace", fontsize=9)


def _result(axes: Axes, flow: vl.FlowMap) -> None:
    means = np.stack([flow.curve(route).mean for route in flow.routes])
    axes.imshow(-means, extent=(2.6, 8, 4, 0.5), cmap="Reds", aspect="auto", vmin=0, zorder=1)
    axes.set(xlim=(0, 8), ylim=(8, 0), aspect="equal")
    for row, route in enumerate(flow.routes):
        _say(axes, 2.5, 0.5 + 3.5 * (row + 0.5) / len(flow.routes), route.replace("->", "→"), ha="right", fontsize=8)
    _say(axes, 0, 5.0, "by how much the answer's probability")
    _say(axes, 0, 5.9, f"falls: {flow.n} questions, layers 1 to {flow.settings.n_layers}")
    _say(axes, 0, 6.8, "flow.figure(), flow.to_dataframe()", color=MUTED, family="monospace", fontsize=9)


if __name__ == "__main__":
    main()
