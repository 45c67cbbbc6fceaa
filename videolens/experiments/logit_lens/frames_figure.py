"""Words of the logit lens written on the frames, each on its patch, in the manner of Map the Flow's figure 5.

The layer is numbered from 1 here, as in the paper's figures; frames, rows and columns keep their numbers, from 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache

import numpy as np
import pandas as pd
from jaxtyping import UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.patheffects import Normal, Stroke

from videolens.drawing.style import INK, PALETTE, legend, note, under
from videolens.errors import SelectionError, VideolensError, near
from videolens.experiments.common.thumbnails import pixels_of
from videolens.experiments.logit_lens.result import LogitLens
from videolens.interventions.numbering import whole_numbers
from videolens.model.checkpoints.files import short_name

_WIDEST, _CELL_POINTS, _LEAST_POINTS, _MOST_POINTS = 23.0, 34.0, 4.2, 9.0
_LETTER = 0.64  # width of a letter, in font sizes
Pixels = UInt8[np.ndarray, "height width 3"]


def words_on_frames(
    lens: LogitLens,
    *,
    question: str | None = None,
    layer: int,
    task: str | None = None,
    frames: Iterable[int] | int | None = None,
    highlight: str | Sequence[str] | Mapping[str, Sequence[str]] | None = None,
) -> Figure:
    """The likeliest word of every patch of every frame, after one layer.

    Args:
        lens: what to draw.
        question: its id; None: the first.
        layer: 0-based.
        task: where questions of several tasks have the same id.
        frames: 0-based; None: all.
        highlight: keywords whose patches are coloured by group, as for `LogitLens.keywords`.

    Raises:
        SelectionError: the question, the layer or a frame is not in this lens.
        VideolensError: a keyword that is not in the vocabulary.
    """
    question = lens.questions[0] if question is None else question
    words = lens.words(question, layer, task=task)
    shape = tuple(int(words[each].max()) + 1 for each in ("row", "column"))
    known = sorted(int(frame) for frame in words["frame"].unique())
    shown = known if frames is None else list(whole_numbers("frame", frames))
    if not shown:
        raise VideolensError("frames is empty: name at least one, or leave it out for all of them")
    for frame in shown:
        if frame not in known:
            raise SelectionError(near(str(frame), map(str, known), kind="frame of this video"))
    pictures = _pictures(lens, question, task)
    colours = _colours(lens, highlight)

    picture = pictures.get(shown[0])
    ratio = shape[0] / shape[1] if picture is None else picture.shape[0] / picture.shape[1]
    width = max(1.5, shape[1] * _CELL_POINTS / 72)
    columns = max(1, min(len(shown), 4, int(_WIDEST / width)))
    rows = -(-len(shown) // columns)
    size = (max(5.2, width * columns + 0.3), (width * ratio + 0.25) * rows + (1.0 if highlight is None else 1.2))
    figure = Figure(figsize=size, dpi=150, layout="constrained")
    panels = list(figure.subplots(rows, columns, squeeze=False).ravel())
    for spare in panels[len(shown) :]:
        spare.remove()
    points = width * 72 / shape[1]
    for axes, frame in zip(panels, shown, strict=False):
        _panel(axes, words[words["frame"] == frame], pictures.get(frame), shape, ratio, points, colours)
        axes.set_title(f"frame {frame}", fontsize=8, color=INK, pad=3)
    title = f"What the video tokens read as after layer {layer + 1}"
    text = _note(lens, question, layer, has_pictures=bool(pictures))
    if highlight is None:
        under(figure, title, text)
    else:
        groups = enumerate(lens.subwords(highlight)[0])
        legend(figure, title, [_key(name, PALETTE[i % len(PALETTE)]) for i, name in groups])
        note(figure, text)
    return figure


def _panel(
    axes: Axes,
    words: pd.DataFrame,
    picture: Pixels | None,
    shape: tuple[int, ...],
    ratio: float,
    points: float,
    colours: Mapping[str, str] | None,
) -> None:
    """A frame, pale, its grid, and in every cell a word above a bar as long as the word is probable."""
    if picture is not None:
        pale = (picture * 0.6 + 255 * 0.4).astype(np.uint8)
        axes.imshow(pale, extent=(-0.5, shape[1] - 0.5, shape[0] - 0.5, -0.5), aspect="auto")
    halo = [Stroke(linewidth=1.8, foreground="white"), Normal()]
    cells = zip(*(words[each] for each in ("row", "column", "word", "probability")), strict=True)
    for y, x, word, probability in cells:
        color = None if colours is None else colours.get(word)
        if color is not None:
            box = (x - 0.46, y - 0.46), 0.92, 0.92
            axes.add_patch(Rectangle(*box, facecolor=color, alpha=0.35, linewidth=0))
            axes.add_patch(Rectangle(*box, facecolor="none", edgecolor=color, linewidth=1.3))
        text, size = _fitted(_drawable(word), points, bold=color is not None)
        weight = "bold" if color is not None else "normal"
        drawn = axes.text(x, y, text, ha="center", va="center", fontsize=size, color=INK, fontweight=weight)
        drawn.set_path_effects(halo)
        axes.add_patch(Rectangle((x - 0.4, y + 0.33), 0.8, 0.06, facecolor="white", alpha=0.75, linewidth=0))
        axes.add_patch(Rectangle((x - 0.4, y + 0.33), 0.8 * probability, 0.06, facecolor=INK, linewidth=0))
    for line in np.arange(0.5, shape[1] - 1):
        axes.axvline(line, color="white", linewidth=0.6)
    for line in np.arange(0.5, shape[0] - 1):
        axes.axhline(line, color="white", linewidth=0.6)
    axes.set_xlim(-0.5, shape[1] - 0.5)
    axes.set_ylim(shape[0] - 0.5, -0.5)
    axes.set_box_aspect(ratio)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


def _drawable(word: str) -> str:
    """The word, with a box for what the font has no glyph for: a multilingual vocabulary has such words."""
    return "".join(letter if ord(letter) in _glyphs() else "□" for letter in word)


@cache
def _glyphs() -> frozenset[int]:
    return frozenset(get_font(findfont(FontProperties())).get_charmap())


def _fitted(word: str, points: float, *, bold: bool) -> tuple[str, float]:
    """(the word, its font size) so that it stays in its cell; shortened where that would be too small to read."""
    room = 0.9 * points / (_LETTER * (1.12 if bold else 1.0))
    size = min(_MOST_POINTS, room / max(1, len(word)))
    if size >= _LEAST_POINTS:
        return word, size
    letters = int(room / _LEAST_POINTS)
    return word[: max(1, letters - 1)] + "…", _LEAST_POINTS


def _colours(
    lens: LogitLens, highlight: str | Sequence[str] | Mapping[str, Sequence[str]] | None
) -> dict[str, str] | None:
    """First sub-word of every keyword → the colour of its group."""
    if highlight is None:
        return None
    groups, pieces = lens.subwords(highlight)
    colours: dict[str, str] = {}
    for i, group in enumerate(groups.values()):
        for word in group:
            colours.setdefault(pieces[word], PALETTE[i % len(PALETTE)])
    return colours


def _pictures(lens: LogitLens, question: str, task: str | None) -> dict[int, Pixels]:
    clips = lens.clips[lens.clips["question"] == question]
    if task is not None:
        clips = clips[clips["task"] == task]
    return {int(frame): pixels_of(png) for frame, png in zip(clips["frame"], clips["png"], strict=True)}


def _key(name: str, color: str) -> Line2D:
    return Line2D([], [], color=color, linestyle="none", marker="s", markersize=6, label=name)


def _note(lens: LogitLens, question: str, layer: int, *, has_pictures: bool) -> str:
    made, name = lens.settings, short_name(lens.settings.model)
    parts = [
        f"{name}, question {question!r}: the likeliest word of every video token after layer {layer + 1} of "
        f"{made.n_layers}, counted from 1, above its probability (full bar: 1). Lens: {made.lens}.",
        "One clip: a word on a single patch is no finding; a video token may hold what other patches show.",
    ]
    if not has_pictures:
        parts.append("No picture of the frames was kept.")
    return " ".join(parts)
