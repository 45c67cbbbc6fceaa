"""Keywords of the logit lens as a figure, in the manner of Map the Flow's figure 4: in which layers they are found.

Layers are numbered from 1 here, as in the paper's figures; the figure says so. Everywhere else they count from 0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from videolens.drawing.style import INK, MUTED, PALETTE, draw_kind, legend, note, plain
from videolens.experiments.common.statistics import bootstrap_shares
from videolens.experiments.logit_lens.frames_figure import words_on_frames
from videolens.experiments.logit_lens.keywords import Groups
from videolens.experiments.logit_lens.result import LogitLens
from videolens.interventions.layer_sets import layer_bins
from videolens.model.checkpoints.files import short_name

Words = str | Sequence[str] | Mapping[str, Sequence[str]]


def draw(lens: LogitLens, kind: str = "keywords", **options: object) -> Figure:
    """The figure of one of `KINDS`.

    Raises:
        SelectionError: the kind is unknown.
        VideolensError: an option that it does not have; they are those of `keyword_frequency` and `words_on_frames`.
    """
    return draw_kind(KINDS, kind, lens, options, called="a logit lens")


def keyword_frequency(
    lens: LogitLens, *, words: Words | None = None, bins: int | None = None, task: str | None = None
) -> Figure:
    """Left, one row per keyword: the share of its finds that lies in each bin of layers. Right, the groups pooled, with
    95 % bands.

    Args:
        lens: what to draw.
        words: keywords; None: those the lens was made with.
        bins: layers in a bin; None: 5/32 of them.
        task: None: all.

    Raises:
        SelectionError: the task is not in this lens.
        VideolensError: a keyword that is not in the vocabulary, a bin that does not fit the model.
    """
    groups, pieces = lens.subwords(words)
    ranges = layer_bins(lens.settings.n_layers, bins)
    every = [word for group in groups.values() for word in group]
    of_keyword = {word: lens.counts([pieces[word]], ranges, task=task)[0].sum(axis=0) for word in every}
    n_rows = len(of_keyword) + len(groups) - 1
    size = (1.7 + 0.52 * len(ranges) + 4.4, max(3.2, 0.21 * n_rows + 1.7))
    figure = Figure(figsize=size, dpi=150, layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[1.2 + 0.52 * len(ranges), 3.4])
    _heat_map(left, of_keyword, groups, pieces, ranges)
    _pooled(right, lens, groups, pieces, ranges, task)
    keys = [
        Line2D([], [], color=PALETTE[i % len(PALETTE)], marker="o", markersize=3, label=name)
        for i, name in enumerate(groups)
    ]
    legend(figure, "In which layers the video tokens read as keywords", keys)
    note(figure, _note(lens, ranges, task))
    return figure


KINDS: dict[str, Callable[..., Figure]] = {"keywords": keyword_frequency, "frames": words_on_frames}
"""Figures by the name that `LogitLens.figure` takes."""


def _heat_map(
    axes: Axes, counts: Mapping[str, np.ndarray], groups: Groups, pieces: Mapping[str, str], ranges: Sequence[range]
) -> None:
    """A keyword's finds in each bin, as a share of all its finds; the number of all at the right."""
    shares, names, totals, colours = [], [], [], []
    for i, keywords in enumerate(groups.values()):
        if i:  # a gap between the groups
            shares.append(np.full(len(ranges), np.nan))
            names.append("")
            totals.append("")
            colours.append(INK)
        for word in keywords:
            total = counts[word].sum()
            shares.append(counts[word] / total if total else np.full(len(ranges), np.nan))
            names.append(word if pieces[word] == word else f"{pieces[word]}({word[len(pieces[word]) :]})")
            totals.append(f"{int(total):,}".replace(",", " "))
            colours.append(PALETTE[i % len(PALETTE)])
    grid = np.array(shares)
    axes.imshow(grid, cmap="Greys", vmin=0, vmax=1, aspect="auto")
    axes.set_yticks(range(len(names)), names)
    for label, color in zip(axes.get_yticklabels(), colours, strict=True):
        label.set_color(color)
    axes.set_xticks(range(len(ranges)), [_range(layers) for layers in ranges])
    axes.set_xlabel("layers (from 1)", fontsize=8, color=INK)
    axes.tick_params(length=0, labelsize=7.5)
    axes.spines[:].set_visible(False)
    for row, column in np.argwhere(grid >= 0.005):
        color = "white" if grid[row, column] > 0.55 else INK
        axes.text(column, row, f"{100 * grid[row, column]:.0f}", ha="center", va="center", fontsize=6, color=color)
    for row, total in enumerate(totals):
        axes.text(len(ranges) - 0.4, row, total, ha="left", va="center", fontsize=6.5, color=MUTED)
    axes.set_title("share of a keyword's finds (%), and their number", fontsize=8.5, color=INK, loc="left")


def _pooled(
    axes: Axes, lens: LogitLens, groups: Groups, pieces: Mapping[str, str], ranges: Sequence[range], task: str | None
) -> None:
    """A line per group with its band; groups whose words are never found have none."""
    plain(axes)
    at, n, top = np.arange(len(ranges)), 0, 0.0
    for i, words in enumerate(groups.values()):
        counts, _ = lens.counts(sorted({pieces[word] for word in words}), ranges, task=task)
        n, color = len(counts), PALETTE[i % len(PALETTE)]
        if counts.sum() == 0:
            continue
        value, low, high = (100 * each for each in bootstrap_shares(counts, seed=lens.settings.seed))
        axes.plot(at, value, color=color, linewidth=1.7, marker="o", markersize=3, zorder=3)
        axes.fill_between(at, low, high, color=color, alpha=0.15, linewidth=0, zorder=2)
        top = max(top, float(high.max()))
    axes.set_xticks(at, [_range(layers) for layers in ranges])
    axes.set_xlim(-0.3, len(ranges) - 0.7)
    axes.set_ylim(0, max(5.0, 1.08 * top))
    axes.set_xlabel("layers (from 1)", fontsize=8, color=INK)
    axes.tick_params(labelsize=7.5)
    axes.set_title("share of a group's finds (%)", fontsize=8.5, color=INK, loc="left")
    axes.set_title(f"n = {n}", fontsize=7.5, color=MUTED, loc="right")


def _range(layers: range) -> str:
    return str(layers[0] + 1) if len(layers) == 1 else f"{layers[0] + 1}–{layers[-1] + 1}"


def _note(lens: LogitLens, ranges: Sequence[range], task: str | None) -> str:
    made, name = lens.settings, short_name(lens.settings.model)
    kept = {"correct": "answered rightly", "wrong": "answered wrongly", "all": "all"}[made.samples]
    uneven = "" if len({len(each) for each in ranges}) == 1 else " The last bin has fewer layers."
    return (
        "A find: a video token whose likeliest word after a layer is the keyword's first sub-word. Layers count from "
        f"1, as in the paper.{uneven} Lens: {made.lens}. {name}, {task or 'all tasks'}, questions: {kept}. Bands: 95 % "
        "bootstrap over questions. A share tells when, not how often: see the numbers."
    )
