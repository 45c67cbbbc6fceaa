"""Attention maps as figures: what a word looks at, laid over the frames; and how much of it is video, layer by layer.

Map the Flow, section "Attention maps". Layers are numbered from 1, as in the paper; frames keep their names, from 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize, to_rgba
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D

from videolens.drawing.style import INK, LAYER, MUTED, PALETTE, draw_kind, layer_ticks, legend, note, plain, under
from videolens.errors import SelectionError, VideolensError, near
from videolens.experiments.attention_map.result import AVERAGED, AttentionMap
from videolens.experiments.common.thumbnails import pixels_of
from videolens.interventions.numbering import whole_numbers
from videolens.model.checkpoints.files import short_name

FLOOR = 5e-5
"""Added to attention before the logarithm, as in the paper."""

_SIDE, _WIDEST, _MOST_LAYERS = 0.82, 14.0, 4
_RAMP = ("#FFF3B0", "#FDB863", "#E66101", "#B2182B", "#4D004B")
_CMAP = LinearSegmentedColormap.from_list(
    "attention over a frame",
    [to_rgba(color, alpha) for color, alpha in zip(_RAMP, (0.0, 0.4, 0.6, 0.72, 0.82), strict=True)],
)
_BEHIND = "#DDDDDD"  # where a frame is not known, and behind the colour bar

Grid = Float[np.ndarray, "layer frame row column"]
Frames = list[UInt8[np.ndarray, "height width 3"]]


def draw(attended: AttentionMap, kind: str = "frames", **options: Any) -> Figure:
    """A figure by name: "frames" or "share".

    Raises:
        SelectionError: there is no such figure.
        VideolensError: an option that it does not have; others are those of `draw_frames`.
    """
    return draw_kind(KINDS, kind, attended, options, called="an attention map")


def draw_frames(
    attended: AttentionMap,
    *,
    word: str | None = None,
    question: str | None = None,
    task: str | None = None,
    layers: Iterable[int] | int | None = None,
    heads: str | int = "mean",
    scale: str = "log",
) -> Figure:
    """A word's attention over the frames of one clip: for each layer the unblocked row above the blocked one.

    Args:
        attended: what to draw.
        word: which word; None: the first.
        question: id of a question; "mean": the mean over all, without pictures; None: the first that has the word,
            one whose frames are known if there is one.
        task: where questions of several tasks have the same id; with "mean": the mean over this task.
        layers: 0-based; None: up to four between a third and two thirds of the depth, where the paper looks.
        heads: the mean over heads, the largest of them for each patch, or one head, counted from 0.
        scale: "log": log10(a + 5e-5), as in the paper; "linear".

    Raises:
        SelectionError: no such word, question, layer or head in the map.
        VideolensError: an unknown scale or choice of heads; the mean over clips of different grids.
    """
    if scale not in ("log", "linear"):
        raise VideolensError(near(scale, ("log", "linear"), kind="scale"))
    word = attended.words[0] if word is None else word
    chosen = _question(attended, word, question, task)
    shown = _layers(attended, layers)
    at = [attended.settings.layers.index(layer) for layer in shown]
    grids = [
        _over_heads(attended, attended.maps(word, question=chosen, task=task, blocked=blocked)[at], heads)
        for blocked in (False, True)
    ]
    values = [np.log10(grid + FLOOR) if scale == "log" else grid for grid in grids]
    limits = Normalize(min(float(each.min()) for each in values), max(float(each.max()) for each in values))
    figure = _panels(values, shown, _pictures(attended, chosen, task), limits)
    _bar(figure, limits, scale)
    under(figure, f"What {word!r} looks at, unblocked and blocked", _note(attended, word, chosen, task, heads))
    return figure


def draw_share(attended: AttentionMap) -> Figure:
    """Share of each word's attention that falls on the video, by layer: unblocked and blocked, with 95 % bands."""
    table, words = attended.summary(), attended.words
    table = table[table["task"] == "all"]
    columns = 2 if len(words) == 4 else min(3, len(words))
    rows = -(-len(words) // columns)
    figure = Figure(figsize=(3.1 * columns + 0.6, 2.2 * rows + 1.1), dpi=150, layout="constrained")
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    colors = {"share": PALETTE[0], "share_blocked": PALETTE[1]}
    for axes, word in zip(panels, words, strict=False):
        of_word = table[table["word"] == word]
        layer = of_word["layer"].to_numpy() + 1
        for name, color in colors.items():
            low, high = (100 * of_word[f"{name}_{end}"].to_numpy() for end in ("low", "high"))
            dashes = "-" if name == "share" else (0, (4, 1.5))
            axes.fill_between(layer, low, high, color=color, alpha=0.18, linewidth=0)
            axes.plot(
                layer, 100 * of_word[name], color=color, linewidth=1.6, marker=".", markersize=4, linestyle=dashes
            )
        plain(axes)
        axes.set_title(f"{word}, n = {int(of_word['n'].iloc[0])}", fontsize=9, loc="left", color=INK)
        axes.set_xticks([tick for tick in layer_ticks(attended.settings.n_layers) if layer[0] <= tick <= layer[-1]])
    for spare in panels[len(words) :]:
        spare.remove()
    for axes in panels[max(0, len(words) - columns) : len(words)]:
        axes.xaxis.set_tick_params(labelbottom=True)
        axes.set_xlabel(LAYER, fontsize=8, color=INK)
    panels[0].set_ylim(bottom=0)
    for axes in panels[: len(words) : columns]:
        axes.set_ylabel("attention on the video (%)", fontsize=8, color=INK)
    names = ("unblocked", "blocked")
    handles = [Line2D([], [], color=color, label=label) for color, label in zip(colors.values(), names, strict=True)]
    handles[1].set_linestyle((0, (4, 1.5)))
    legend(figure, "How much of a word's attention falls on the video", handles)
    note(
        figure,
        f"{short_name(attended.settings.model)}. Mean over heads and questions; band: 95 % bootstrap over questions. "
        f"Blocked: {attended.settings.blocked}. Attention is not evidence of use.",
    )
    return figure


KINDS: dict[str, Callable[..., Figure]] = {"frames": draw_frames, "share": draw_share}
"""Figures by the name that `AttentionMap.figure` takes."""


def _panels(values: list[Grid], shown: list[int], pictures: Frames, limits: Normalize) -> Figure:
    """The frames as they are; then layer by layer, each twice: unblocked, and blocked below it."""
    _, n_frames, n_rows, n_columns = values[0].shape
    shape = pictures[0].shape[0] / pictures[0].shape[1] if pictures else n_rows / n_columns
    side, first = min(_SIDE, _WIDEST / n_frames), 2 if pictures else 0
    # a thin empty row between layers keeps the two rows of a layer together
    heights = ([1, 0.14] if pictures else []) + [part for _ in shown for part in (1, 1, 0.14)][:-1]
    size = (max(5.5, side * n_frames + 2.1), sum(heights) * side * shape * 1.06 + 1.1)
    figure = Figure(figsize=size, dpi=150, layout=ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.02, hspace=0, wspace=0))
    grid = figure.add_gridspec(len(heights), n_frames, height_ratios=heights)
    rows = [(0, "frames", None)] if pictures else []
    for i, layer in enumerate(shown):
        for blocked, name in enumerate(("unblocked", "blocked")):
            rows.append((first + 3 * i + blocked, f"layer {layer + 1}\n{name}", values[blocked][i]))
    for row, text, maps in rows:
        for frame in range(n_frames):
            axes = figure.add_subplot(grid[row, frame])
            _frame(axes, None if maps is None else maps[frame], pictures[frame] if pictures else None, limits)
            axes.set_box_aspect(shape)
            if frame == 0:
                axes.set_ylabel(text, fontsize=8, color=INK, rotation=0, ha="right", va="center", labelpad=6)
            if row == 0:
                axes.set_title(f"frame {frame}", fontsize=8 if side > 0.6 else 6, color=INK, pad=3)
    return figure


def _frame(
    axes: Axes,
    values: Float[np.ndarray, "row column"] | None,
    picture: UInt8[np.ndarray, "height width 3"] | None,
    limits: Normalize,
) -> None:
    """One frame, with a map over it or, without values, as it is."""
    extent = (0, 1, 1, 0)
    if picture is not None and values is not None:
        # grey and light, so that colour is attention and nothing else
        picture = (np.repeat(picture.mean(axis=2, keepdims=True), 3, axis=2) * 0.7 + 75).astype(np.uint8)
    if picture is not None:
        axes.imshow(picture, extent=extent, aspect="auto")
    axes.set_facecolor(_BEHIND)
    if values is not None:
        axes.imshow(values, cmap=_CMAP, norm=limits, extent=extent, aspect="auto", interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


def _bar(figure: Figure, limits: Normalize, scale: str) -> None:
    bar = figure.colorbar(ScalarMappable(limits, _CMAP), ax=figure.axes, fraction=0.03, pad=0.015, aspect=35)
    bar.ax.set_facecolor(_BEHIND)
    if scale == "log":
        decades = [10.0**power for power in range(-4, 1)]
        steps = [step * decade for decade in decades for step in (1, 2, 5)]
        inside = [a for a in steps if limits.vmin <= np.log10(a + FLOOR) <= limits.vmax]
        whole = [a for a in inside if np.isclose(a, decades).any()]
        ticks = inside if len(whole) < 3 and len(inside) <= 9 else whole
        bar.set_ticks([np.log10(a + FLOOR) for a in ticks], labels=[f"{100 * a:g} %" for a in ticks])
        bar.set_label("attention a to one patch, as log10(a + 5e−5)", fontsize=8, color=INK)
    else:
        bar.ax.yaxis.set_major_formatter(lambda value, _: f"{100 * value:g} %")
        bar.set_label("attention to one patch", fontsize=8, color=INK)
    bar.ax.tick_params(labelsize=8, colors=MUTED, labelcolor=INK)
    bar.outline.set_visible(False)


def _over_heads(
    attended: AttentionMap, maps: Float[np.ndarray, "layer head frame row column"], heads: str | int
) -> Grid:
    known = attended.settings.heads
    if heads == "mean":
        return maps.mean(1)
    if known == (AVERAGED,):
        raise SelectionError(f"heads={heads!r}: this map holds the mean over heads only; ask for it with heads=None")
    if heads == "max":
        return maps.max(1)
    if isinstance(heads, str) or heads not in known:
        raise SelectionError(near(str(heads), ("mean", "max", *map(str, known)), kind="head in this attention map"))
    return maps[:, known.index(heads)]


def _question(attended: AttentionMap, word: str, question: str | None, task: str | None) -> str | None:
    """Whose maps are drawn; None: the mean."""
    if question == "mean":
        return None
    if question is not None:
        return question
    rows = attended.table["word"] == word
    rows = rows if task is None else rows & (attended.table["task"] == task)
    having = attended.table.loc[rows, "question"].unique()
    pictured = [name for name in having if name in set(attended.clips["question"])]
    return next(iter([*pictured, *having]), None)


def _layers(attended: AttentionMap, layers: Iterable[int] | int | None) -> list[int]:
    known = list(attended.settings.layers)
    if layers is None:
        depth = attended.settings.n_layers
        middle = [layer for layer in known if depth / 3 - 1 < layer <= 2 * depth / 3] or known
        few = np.linspace(0, len(middle) - 1, min(_MOST_LAYERS, len(middle))).round().astype(int)
        return [middle[i] for i in few]
    chosen = list(whole_numbers("layer", layers))
    for layer in chosen:
        if layer not in known:
            raise SelectionError(near(str(layer), map(str, known), kind="layer in this attention map"))
    if not chosen:
        raise VideolensError("layers is empty: name at least one, or leave it out")
    return chosen


def _pictures(attended: AttentionMap, question: str | None, task: str | None) -> Frames:
    clips = attended.clips[attended.clips["question"] == question]
    clips = clips if task is None else clips[clips["task"] == task]
    return [pixels_of(png) for png in clips["png"]]


def _note(attended: AttentionMap, word: str, question: str | None, task: str | None, heads: str | int) -> str:
    n = len(attended.video_share(word, task=task))
    of = f"Mean of n = {n} questions" if question is None else f"Question {question}, one of {n} with this word"
    over = {"mean": "mean over heads", "max": "the largest of the heads"}.get(str(heads), f"head {heads} (from 0)")
    return (
        f"{short_name(attended.settings.model)}. {of}; {over}; mean over the word's tokens. "
        f"Blocked: {attended.settings.blocked}. "
        "One colour scale throughout. Layers count from 1, frames from 0."
    )
