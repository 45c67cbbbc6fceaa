"""A comparison as a figure: every model's curve over depth, and the depth on which each centres."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from videolens.drawing.style import INK, MUTED, PALETTE, legend, note, plain
from videolens.experiments.flow.measures import measure_named
from videolens.experiments.flow_comparison.result import FlowComparison


def draw(compared: FlowComparison) -> Figure:
    """Left: mean change over depth, with bands. Right: how deep each effect is, and where it centres."""
    one, colours = compared.settings[0], dict(zip(compared.names, PALETTE, strict=False))
    figure = Figure(figsize=(9.4, 4.3), dpi=150, layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[3, 2])
    for name, curve in compared.table.groupby("model", sort=False):
        left.plot(curve["depth"], curve["mean"], color=colours[name], linewidth=1.7)
        left.fill_between(curve["depth"], curve["low"], curve["high"], color=colours[name], alpha=0.18, linewidth=0)
    plain(left)
    left.set_xlim(0, 1)
    left.set_xlabel("depth (layers, from the first to the last)", fontsize=8, color=INK)
    left.set_ylabel(measure_named(one.measure).label, fontsize=8, color=INK)
    _centres(right, compared, colours)
    handles = [
        Line2D([], [], color=colours[name], linewidth=2, label=f"{name} ({each.n_layers} layers)")
        for name, each in zip(compared.names, compared.settings, strict=True)
    ]
    legend(figure, f"{one.route.replace('->', '→')} in {len(handles)} models", handles)
    note(figure, _note(compared))
    return figure


def _centres(axes: Axes, compared: FlowComparison, colours: dict[str, str]) -> None:
    """Effect against centre, each with its interval."""
    for row in compared.models.itertuples():
        if np.isnan([row.centre, row.centre_low, row.centre_high]).any():
            continue
        reach = [[row.centre - row.centre_low], [row.centre_high - row.centre]]
        spread = [[row.effect - row.effect_low], [row.effect_high - row.effect]]
        axes.errorbar(row.centre, row.effect, xerr=reach, yerr=spread, fmt="o", color=colours[row.model], markersize=5)
    plain(axes)
    axes.set_xlim(0, 1)
    axes.set_xlabel("depth on which the effect centres", fontsize=8, color=INK)
    axes.set_ylabel("mean over all windows", fontsize=8, color=MUTED)


def _note(compared: FlowComparison) -> str:
    one = compared.settings[0]
    shares = sorted({round(100 * each.window / each.n_layers) for each in compared.settings})
    wide = f"{shares[0]} %" if len(shares) == 1 else f"{shares[0]} to {shares[-1]} %"
    counts = sorted(set(compared.models["n"]))
    n = f"n = {counts[0]}" if len(counts) == 1 else f"n = {counts[0]} to {counts[-1]}"
    asked = "all tasks" if one.task is None else one.task
    undefined = compared.models["centre"].isna().sum()
    return (
        f"{n} questions of {asked}. A window covers {wide} of the depth; a point stands at its middle layer. "
        "Bands and bars: 95 % bootstrap over questions."
        + (f" Of {undefined} models the centre is not defined: nothing falls." if undefined else "")
    )
