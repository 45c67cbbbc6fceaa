"""Probes as figures: what can be read after every layer, beside the knockout of a route.

Layers are numbered from 1 here, as in the other figures; 0 is what enters the first.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from videolens.drawing.style import CHANGE, INK, LAYER, MUTED, PALETTE, layer_ticks, legend, note, plain, titled
from videolens.errors import VideolensError
from videolens.experiments.common.conditions import CLEAN
from videolens.experiments.flow.result import FlowMap
from videolens.experiments.probe.result import Probes
from videolens.model.checkpoints.files import short_name

Style = Literal["-"] | tuple[float, tuple[float, ...]]
_DASHES: tuple[Style, ...] = ("-", (0.0, (4.0, 1.6)), (0.0, (1.0, 1.2)), (0.0, (5.0, 1.2, 1.0, 1.2)))


def draw(
    probes: Probes,
    *,
    flow: FlowMap | None = None,
    route: str = "cross-frame",
    beside: Mapping[str, Probes] | None = None,
) -> Figure:
    """One panel per target: accuracy by layer and site, with bands; grey: labels given by chance.

    Args:
        probes: what to draw.
        flow: a flow map of the same model; its curve along `route` is drawn under every panel.
        route: one of its routes.
        beside: other models' probes for the same targets and sites, by name: thin lines.

    Raises:
        SelectionError: the flow map does not have the route, or other probes not the targets and sites.
        VideolensError: the flow map is of another depth; more conditions or sites than can be told apart.
    """
    if flow is not None and flow.settings.n_layers != probes.settings.n_layers:
        raise VideolensError(
            f"the flow map is of {flow.settings.n_layers} layers, the probes of {probes.settings.n_layers}: give one "
            "of the same model"
        )
    if len(probes.conditions) > len(_DASHES) or len(probes.sites) > len(PALETTE):
        raise VideolensError(
            f"{len(probes.conditions)} conditions and {len(probes.sites)} sites: a figure shows at most "
            f"{len(_DASHES)} and {len(PALETTE)}; probe fewer at once"
        )
    n, rows = len(probes.targets), 1 if flow is None else 2
    figure = Figure(figsize=(max(3.3 * n, 6.2) + 0.5, 3.4 + 1.9 * (rows - 1)), dpi=150, layout="constrained")
    axes = figure.subplots(rows, n, sharex=True, sharey="row", squeeze=False, height_ratios=[3, 2][:rows])
    for panel, target in zip(axes[0], probes.targets, strict=True):
        _panel(panel, probes, target, beside or {})
    axes[0, 0].set_ylabel("labels predicted rightly (%)", fontsize=8, color=INK)
    if flow is not None:
        for panel in axes[1]:
            _knockout(panel, flow, route)
        axes[1, 0].set_ylabel(f"{route.replace('->', '→')} cut:\n{CHANGE}", fontsize=8, color=INK)
    for panel in axes[-1]:
        panel.set_xticks([0, *layer_ticks(probes.settings.n_layers)])
        panel.set_xlabel(LAYER, fontsize=8, color=INK)
    legend(figure, "What can be read, layer by layer", _keys(probes, beside or {}))
    note(figure, _note(probes))
    return figure


def _panel(axes: Axes, probes: Probes, target: str, beside: Mapping[str, Probes]) -> None:
    colours = _colours(probes)
    plain(axes)
    axes.axhline(100 * probes.chance(target), color=MUTED, linewidth=0.8, linestyle=(0, (1, 2)))
    for site, colour in colours.items():
        for condition, dashes in zip(probes.conditions, _DASHES, strict=False):
            curve = probes.curve(target, site, condition=condition)
            layers = curve["layer"] + 1
            axes.plot(layers, 100 * curve["accuracy"], color=colour, linewidth=1.7, linestyle=dashes)
            if condition == CLEAN:
                axes.fill_between(
                    layers, 100 * curve["low"], 100 * curve["high"], color=colour, alpha=0.18, linewidth=0
                )
                axes.plot(layers, 100 * curve["control"], color="#999999", linewidth=0.8)
        for other in beside.values():
            curve = other.curve(target, site)
            at = np.linspace(0, probes.settings.n_layers, len(curve))
            axes.plot(at, 100 * curve["accuracy"], color=colour, linewidth=0.8)
    axes.set_ylim(0, 102)
    titled(axes, target, f"n = {probes.curve(target, probes.sites[0])['n'].iloc[0]}")


def _knockout(axes: Axes, flow: FlowMap, route: str) -> None:
    curve = flow.curve(route)
    layers = np.array(curve.layers) + 1
    plain(axes)
    axes.plot(layers, curve.mean, color=INK, linewidth=1.4)
    axes.fill_between(layers, curve.low, curve.high, color=INK, alpha=0.15, linewidth=0)


def _colours(probes: Probes) -> dict[str, str]:
    return dict(zip(probes.sites, PALETTE, strict=False))


def _keys(probes: Probes, beside: Mapping[str, Probes]) -> list[Line2D]:
    keys = [Line2D([], [], color=colour, linewidth=2, label=site) for site, colour in _colours(probes).items()]
    keys += [
        Line2D([], [], color=INK, linewidth=1.4, linestyle=dashes, label=condition)
        for condition, dashes in list(zip(probes.conditions, _DASHES, strict=False))[1:]
    ]
    keys += [Line2D([], [], color=INK, linewidth=0.8, label=name) for name in beside]
    return [*keys, Line2D([], [], color="#999999", linewidth=0.8, label="labels given by chance")]


def _note(probes: Probes) -> str:
    made = probes.settings
    return (
        f"{short_name(made.model)}: logistic regression on the mean residual of a site, on clips it was not fitted on "
        f"({made.folds} folds). Layer 0: what enters the first. Bands: Wilson’s 95 %. Dotted: the commonest label."
    )
