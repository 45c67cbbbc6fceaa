"""How every figure looks. Colours are Okabe and Ito's, from the eighth on Tol's, which colour-blind readers can tell
apart."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence
from inspect import signature
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D

from videolens.errors import SelectionError, VideolensError, near

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999", "#882255", "#999933")
"""Ten: a benchmark of ten tasks has a colour for each."""
INK, MUTED, RULE = "#222222", "#666666", "#DDDDDD"

CHANGE = "change in answer probability (%)"
LAYER = "layer (from 1)"
_TITLE = 34  # letters of a panel's title in one line


def draw_kind(
    kinds: Mapping[str, Callable[..., Figure]], kind: str, result: Any, options: Mapping[str, Any], *, called: str
) -> Figure:
    """One of several figures of a result, with options that are its own. `called`: "an attention map", for messages.

    Raises:
        SelectionError: there is no such figure.
        VideolensError: it has no such option.
    """
    if kind not in kinds:
        raise SelectionError(near(kind, kinds, kind=f"figure of {called}"))
    known = list(signature(kinds[kind]).parameters)[1:]
    for name in options:
        if name not in known:
            raise VideolensError(near(name, known, kind=f"option of the figure {kind!r}"))
    return kinds[kind](result, **options)


def plain(axes: Axes) -> None:
    """No box, a light horizontal grid, a line at no change."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(MUTED)
    axes.grid(axis="y", color=RULE, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(colors=MUTED, labelcolor=INK, labelsize=8, length=3)
    axes.axhline(0, color=MUTED, linewidth=0.8, zorder=1)


def layer_ticks(n_layers: int) -> list[int]:
    """Whole layers, numbered from 1 as in the paper, few enough to be read, the first and last always among them."""
    step = next(step for step in (1, 2, 3, 4, 5, 8, 10, 16, 20, 40, n_layers) if n_layers / step <= 12)
    ticks = [layer for layer in range(1, n_layers + 1) if layer == 1 or layer % step == 0]
    if ticks[-1] != n_layers:
        ticks = [tick for tick in ticks if n_layers - tick > step / 2] + [n_layers]
    return ticks


def layer_axis(axes: Axes, n_layers: int) -> None:
    """Ticks at whole layers."""
    axes.set_xticks(layer_ticks(n_layers))
    axes.set_xlim(0.6, n_layers + 0.4)


def grid_of_axes(n: int, *, most_columns: int = 3, label: str = CHANGE) -> tuple[Figure, list[Axes]]:
    """A figure with n panels that share both axes, `label` on the left; not through pyplot, which keeps figures and
    settings of its own."""
    columns = min(n, most_columns)
    rows = -(-n // columns)
    wide, high = (4.9, 3.2) if n == 1 else (3.1, 2.3)
    layout = ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.06)
    figure = Figure(figsize=(wide * columns + 0.5, high * rows + 1.1), dpi=150, layout=layout)
    axes = list(figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel())
    for spare in axes[n:]:
        spare.remove()
    for bottom in axes[n - columns : n]:
        bottom.xaxis.set_tick_params(labelbottom=True)
        bottom.set_xlabel(LAYER, fontsize=8, color=INK)
    for left in axes[:n:columns]:
        left.set_ylabel(label, fontsize=8, color=INK)
    return figure, axes[:n]


def titled(axes: Axes, title: str, count: str) -> None:
    """A panel's title, in lines that leave room for the count at their right."""
    axes.set_title("\n".join(textwrap.wrap(title, _TITLE)), fontsize=9, color=INK, loc="left")
    axes.set_title(count, fontsize=7.5, color=MUTED, loc="right")


def legend(figure: Figure, title: str, handles: Sequence[Line2D]) -> None:
    """The title, and under it what the lines are: one block, so that neither lies on the other, in as many columns as
    the figure is wide."""
    for columns in range(min(len(handles), int(figure.get_figwidth() / 1.3)), 0, -1):
        block = figure.legend(
            handles=handles,
            title=title,
            alignment="left",
            loc="outside upper left",
            ncols=columns,
            fontsize=8,
            title_fontproperties={"weight": "bold", "size": 11},
            labelcolor=INK,
            frameon=False,
            handlelength=1.6,
            columnspacing=1.2,
            borderaxespad=0.2,
        )
        # at other resolutions letters are rounded to other widths: a little is left free
        if columns == 1 or block.get_window_extent().width <= 0.95 * figure.bbox.width:
            block.get_title().set_color(INK)
            return
        block.remove()


def under(figure: Figure, title: str, text: str) -> None:
    """Title above, and at the foot in small print what the figure shows and how it was made."""
    figure.suptitle(title, fontsize=11, fontweight="bold", color=INK, x=0.01, ha="left")
    note(figure, text)


def note(figure: Figure, text: str) -> None:
    """Small print at the foot: how it was made."""
    figure.supxlabel(text, fontsize=7, color=MUTED, x=0.01, ha="left", wrap=True)
