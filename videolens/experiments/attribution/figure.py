"""An attribution as a figure: scores, layer by route, and beside them how they agree with exact knockouts."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.colors import SymLogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from videolens.drawing.style import INK, LAYER, MUTED, PALETTE, RULE, layer_ticks, under
from videolens.experiments.attribution.result import Attribution
from videolens.experiments.common.statistics import Interval
from videolens.experiments.common.words import number
from videolens.interventions.partition import PARTITION, coarse_route
from videolens.model.checkpoints.files import short_name

_SHORT = {"own-part": "own frame", "cross-part": "earlier frames"}
UNIT = {"logit difference": "logits", "log-probability": "nats", "kl": "nats"}


def draw(result: Attribution, *, task: str | None = None) -> Figure:
    """Left: the mean score of every route in every layer; of several units in one cell (heads, pairs of frames) that of
    the one with the largest. Right: score against exact change, one dot per unit that was closed.

    Args:
        result: the attribution.
        task: mean scores of one task's questions; None: of all.
    """
    routes, scores = _cells(result, task)
    figure = Figure(figsize=(11.5, 4.6), dpi=150, layout="constrained")
    picture, panel = figure.subplots(1, 2, width_ratios=(1.55, 1))
    limit = max(float(np.nanmax(np.abs(scores))), 1e-12)
    # a few units have a hundred times the score of most: colours go by powers of ten
    colours = SymLogNorm(limit / 300, vmin=-limit, vmax=limit)
    shown = picture.imshow(scores, cmap="RdBu_r", norm=colours, aspect="auto", origin="lower")
    picture.set_xticks(
        range(len(routes)), [short_route(route) for route in routes], rotation=40, ha="right", fontsize=8
    )
    picture.set_yticks([tick - 1 for tick in layer_ticks(len(scores))], [str(t) for t in layer_ticks(len(scores))])
    picture.set_ylabel(LAYER, fontsize=8, color=INK)
    picture.set_title("mean score" if task is None else f"mean score, {task}", fontsize=9, color=INK, loc="left")
    bar = figure.colorbar(shown, ax=picture, fraction=0.04, pad=0.02, ticks=_powers(limit / 300, limit))
    bar.ax.minorticks_off()
    bar.ax.yaxis.set_major_formatter(_plain)
    bar.set_label(f"estimated change of the {result.settings.metric} ({UNIT[result.settings.metric]})", fontsize=8)
    bar.ax.tick_params(labelsize=8, colors=MUTED, labelcolor=INK)
    bar.outline.set_visible(False)
    _against_exact(panel, result)
    for axes in (picture, panel):
        axes.tick_params(labelsize=8, colors=MUTED, labelcolor=INK, length=0 if axes is picture else 3)
    for side in (*picture.spines.values(), panel.spines["top"], panel.spines["right"]):
        side.set_visible(False)
    under(
        figure, "What closing attention would change: a screen, and its agreement with exact knockouts", _note(result)
    )
    return figure


def short_route(route: str) -> str:
    """A route as figures and tables write it: "V → Q"."""
    return _SHORT.get(route, route.replace("part V frame ", "frame ").replace("part ", "").replace("->", "→"))


def agreement_text(found: Interval) -> str:
    """A measure of agreement and its interval."""
    value, low, high = (number(each, 2, sign="") for each in (found.value, found.low, found.high))
    return value if found.n < 2 or np.isnan(found.low) else f"{value} [{low}, {high}]"


def _cells(result: Attribution, task: str | None) -> tuple[list[str], Float[np.ndarray, "layer route"]]:
    units = result.units(task=task)
    coarse = units["route"].map(coarse_route)
    routes = [route for route in PARTITION if (coarse == route).any()]
    scores = np.full((result.settings.n_layers, len(routes)), np.nan)
    units = units.assign(coarse=coarse, size=units["score"].abs()).sort_values("size", kind="stable")
    for layer, route, score in zip(units["layer"], units["coarse"], units["score"], strict=True):
        scores[layer, routes.index(route)] = score  # the largest comes last
    return routes, scores


def _against_exact(axes: Axes, result: Attribution) -> None:
    closed = result.table[result.table["exact"].notna()]
    ends = np.abs(closed[["score", "exact"]].to_numpy(dtype=float)).max() or 1.0
    groups = dict(list(closed.groupby(closed["route"].map(coarse_route), sort=False)))
    least = max(float(np.quantile(np.abs(closed["exact"].to_numpy(dtype=float)), 0.2)), ends * 1e-6)
    for i, route in enumerate(route for route in PARTITION if route in groups):
        rows, color, mark = groups[route], PALETTE[i % len(PALETTE)], "o" if i < len(PALETTE) else "^"
        axes.plot(rows["exact"], rows["score"], mark, color=color, markersize=3, alpha=0.6, label=short_route(route))
    axes.plot([-ends, ends], [-ends, ends], color=MUTED, linewidth=0.8, zorder=1)
    for axis, scale in ((axes.xaxis, axes.set_xscale), (axes.yaxis, axes.set_yscale)):
        scale("symlog", linthresh=least)
        axis.set_ticks(_powers(least, ends))
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(_plain)
    axes.set(xlim=(-1.6 * ends, 1.6 * ends), ylim=(-1.6 * ends, 1.6 * ends))  # no dot is cut off
    axes.grid(color=RULE, linewidth=0.5)
    axes.set_axisbelow(True)
    axes.set_xlabel("exact change", fontsize=8, color=INK)
    axes.set_ylabel("score", fontsize=8, color=INK)
    size, recall = (agreement_text(result.measure(name)) for name in ("magnitudes", "recall"))
    axes.set_title(f"ρ of magnitudes {size}\nrecall of the top {recall}", fontsize=9, color=INK, loc="left")
    axes.legend(fontsize=6.5, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5), handletextpad=0.2)
    axes.xaxis.set_tick_params(rotation=40)


def _powers(least: float, most: float) -> list[float]:
    """Zero and powers of ten on either side of it, no more than four from `least` to `most`."""
    low, high = math.ceil(math.log10(least)), math.floor(math.log10(most))
    powers = [10.0**n for n in range(high, low - 1, -max(1, -(-(high - low + 1) // 4)))][::-1]
    return [-power for power in powers[::-1]] + [0.0] + powers


def _plain(value: float, place: int | float) -> str:
    return f"{value:g}".replace("-", "−")


def _note(result: Attribution) -> str:
    made = result.settings
    closed = int(result.table["exact"].notna().sum())
    cells = "" if not made.heads and made.grain == "routes" else " In a cell: the unit with the largest mean score."
    return (
        f"{short_name(made.model)}, n = {result.n} questions, method {made.method!r}. Below zero: closing it does "
        f"harm. Scores are estimates; {closed} units were closed exactly (dots; the line is equality). ρ: Spearman's, "
        f"with 95 % bootstrap intervals over questions.{cells} Layers count from 1."
    )
