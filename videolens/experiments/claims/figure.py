"""Claims as a figure: every statement's interval, coloured by what it tells."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from videolens.drawing.style import INK, MUTED, PALETTE, under
from videolens.experiments.claims.result import Claims, Finding

VERDICT_COLOUR = {"holds": PALETTE[2], "does not hold": PALETTE[1], "cannot be told": "#8A8A8A"}


def draw(claims: Claims) -> Figure:
    """Left: effects and their differences, percent or points. Right: layers (counted from 1), distances in layers."""
    findings = [each for each in claims.findings if each.measured is not None and not math.isnan(each.measured.value)]
    percent = [each for each in findings if each.unit in ("%", "points")]
    layers = [each for each in findings if each.unit not in ("%", "points")]
    rows = max(len(percent), len(layers), 1)
    figure = Figure(figsize=(10, 0.3 * rows + 1.5), dpi=150, layout="constrained")
    left, right = figure.subplots(1, 2)
    _forest(left, percent, "effect on the answer's probability (%; *: on the right option's, points)", rows)
    _forest(right, layers, "layer, or distance in layers", rows)
    under(
        figure,
        "What the claims rest on",
        "Line: 95 % bootstrap over questions. Green: holds; orange: does not hold; grey: cannot be told. "
        f"Grey band: ±{claims.margin:g} % or points, no effect. Squares: layers, from 1. Circles: effects, distances.",
    )
    left.axvspan(-claims.margin, claims.margin, color="#F0F0F0", zorder=0)
    return figure


def _forest(axes: Axes, findings: Sequence[Finding], label: str, rows: int) -> None:
    for at, finding in enumerate(findings):
        seen = finding.measured
        assert seen is not None
        first = 1 if finding.unit == "layer" else 0
        color = VERDICT_COLOUR[finding.verdict]
        axes.plot([seen.low + first, seen.high + first], [at, at], color=color, linewidth=2, solid_capstyle="butt")
        axes.plot(seen.value + first, at, "o" if finding.unit != "layer" else "s", color=color, markersize=5)
    axes.axvline(0, color=MUTED, linewidth=1, linestyle=(0, (1, 2)), zorder=1)
    axes.set_yticks(
        range(len(findings)), [f"{each.claim}  {each.name}{'*' * (each.unit == 'points')}" for each in findings]
    )
    axes.set_ylim(rows - 0.4, -0.6)
    axes.set_xlabel(label, fontsize=8, color=INK)
    for side in axes.spines.values():
        side.set_visible(False)
    axes.grid(axis="x", color="#E6E6E6", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, labelsize=8, colors=MUTED, labelcolor=INK)
