"""Flow maps as figures, in the manner of Map the Flow's figures 2, 3, 7 and 8, and all routes in one heat map.

Layers are numbered from 1 here, as in the paper's figures; every figure says so. Everywhere else they count from 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from videolens.errors import SelectionError, VideolensError, near
from videolens.experiments.flowmap import FlowMap
from videolens.report.style import (
    CHANGE,
    INK,
    LAYER,
    MUTED,
    PALETTE,
    grid_of_axes,
    layer_axis,
    legend,
    note,
    plain,
    under,
)

__all__ = ["KINDS", "cross_frame", "draw", "heat_map", "into_true_option", "options", "routes"]

Style = Literal["-"] | tuple[float, tuple[float, float]]
STYLES: tuple[Style, ...] = ("-", (0.0, (3.0, 1.5)))
ALL = "all tasks"


def draw(flow: FlowMap, kind: str, *, tasks: Sequence[str] | None = None, base: FlowMap | None = None) -> Figure:
    """The figure of one of `KINDS`.

    Raises:
        SelectionError: the kind, or a task, is unknown.
    """
    if kind not in KINDS:
        raise SelectionError(near(kind, KINDS, kind="figure"))
    return KINDS[kind](flow, tasks=tasks, base=base)


def cross_frame(flow: FlowMap, *, tasks: Sequence[str] | None = None, base: FlowMap | None = None) -> Figure:
    """Figure 2: attention between frames cut, one line per task; beside it, if given, another model, as the base."""
    flows = [flow] if base is None else [flow, base]
    figure, panels = grid_of_axes(len(flows))
    chosen = _tasks(flow, tasks)
    for axes, each in zip(panels, flows, strict=True):
        shown = [task for task in chosen if task in each.tasks]
        for task in shown:
            _line(axes, each, "cross-frame", task, _color(chosen.index(task)), alpha=0.1)
        _panel(axes, each, _name(each), _counts(each, "cross-frame", shown))
    handles = [_key(task or "questions", _color(i)) for i, task in enumerate(chosen)]
    legend(figure, "Cutting attention between frames", handles)
    return _finish(figure, panels, flows)


def routes(flow: FlowMap, *, tasks: Sequence[str] | None = None, base: FlowMap | None = None) -> Figure:
    """Figure 3: from the video to the question, from the question to the last token, and what does not go direct."""
    named = ("video -> question", "video -> last", "question -> last", "last -> last")
    return _by_task(flow, named, "Where information flows, layer by layer", tasks, base)


def options(flow: FlowMap, *, tasks: Sequence[str] | None = None, base: FlowMap | None = None) -> Figure:
    """Figure 7: which part of the question the last token reads."""
    named = ("stem -> last", "true option -> last", "false options -> last")
    return _by_task(flow, named, "Which part of the question the last token reads", tasks, base)


def into_true_option(flow: FlowMap, *, tasks: Sequence[str] | None = None, base: FlowMap | None = None) -> Figure:
    """Figure 8: how the video reaches the true option, directly or through the question's stem."""
    named = ("video -> stem", "stem -> true option", "video -> true option")
    return _by_task(flow, named, "How the video reaches the true option", tasks, base)


def heat_map(flow: FlowMap, *, tasks: Sequence[str] | None = None, base: FlowMap | None = None) -> Figure:
    """Layer × route: mean change over the questions of `tasks`; beside it, if given, another model, same scale."""
    flows = [flow] if base is None else [flow, base]
    shown = flow.routes
    means = [_mean_changes(each, shown, tasks) for each in flows]
    depth = max(5.0, *(float(np.nanmax(np.abs(mean))) for mean in means))
    width = max(3.4, 0.3 * flow.settings.n_layers)
    figure = Figure(figsize=(width * len(flows) + 2.4, 0.34 * len(shown) + 1.8), dpi=150, layout="constrained")
    panels = list(figure.subplots(1, len(flows), sharey=True, squeeze=False).ravel())
    for axes, each, mean in zip(panels, flows, means, strict=True):
        extent = (0.5, each.settings.n_layers + 0.5, len(shown) - 0.5, -0.5)
        image = axes.imshow(mean, cmap="RdBu", vmin=-depth, vmax=depth, aspect="auto", extent=extent)
        axes.set_yticks(range(len(shown)), [_arrow(route) for route in shown])
        _cells(axes, mean, depth)
        _panel(axes, each, _name(each), _range([len(_pooled(each, route, tasks)) for route in shown]), line=False)
        axes.set_xlabel(LAYER, fontsize=8, color=INK)
        axes.tick_params(length=0, labelsize=8, labelcolor=INK)
        axes.spines[:].set_visible(False)
    bar = figure.colorbar(image, ax=panels, fraction=0.05, pad=0.02, aspect=40)
    bar.set_label(f"mean {CHANGE}", fontsize=8, color=INK)
    bar.ax.tick_params(labelsize=8, colors=MUTED, labelcolor=INK)
    bar.outline.set_visible(False)
    under(figure, "What cutting each route costs", _note(flows, band=False))
    return figure


KINDS: dict[str, Callable[..., Figure]] = {
    "heat map": heat_map,
    "routes": routes,
    "cross-frame": cross_frame,
    "options": options,
    "into the true option": into_true_option,
}
"""Figures by the name that `FlowMap.figure` takes."""


def _by_task(
    flow: FlowMap, named: Sequence[str], title: str, tasks: Sequence[str] | None, base: FlowMap | None
) -> Figure:
    """One panel per task and one for all of them, one line per route; a second map's lines are dashed."""
    shown = [route for route in named if route in flow.routes]
    if not shown:
        raise VideolensError(f"this flow map traced none of {list(named)}, which this figure shows")
    chosen: list[str | None] = list(_tasks(flow, tasks))
    if tasks is None and len(chosen) > 1:
        chosen.append(None)
    figure, panels = grid_of_axes(len(chosen))
    flows = [flow] if base is None else [flow, base]
    for axes, task in zip(panels, chosen, strict=True):
        for each, style in zip(flows, STYLES, strict=False):
            for i, route in enumerate(shown):
                if route in each.routes and (task is None or task in each.tasks):
                    _line(axes, each, route, task, _color(i), style=style, alpha=0.18 if each is flow else 0.08)
        counts = [_counts(each, shown[0], [task]) for each in flows if task is None or task in each.tasks]
        count = ", ".join(dict.fromkeys(counts))
        _panel(axes, flow, (ALL if task is None else task) or "questions", count)
    handles = [_key(_arrow(route), _color(i)) for i, route in enumerate(shown)]
    if base is not None:
        handles += [_key(_name(each), MUTED, style) for each, style in zip(flows, STYLES, strict=True)]
    legend(figure, title, handles)
    return _finish(figure, panels, flows)


def _line(
    axes: Axes, flow: FlowMap, route: str, task: str | None, color: str, *, style: Style = "-", alpha: float
) -> None:
    """A mean curve with its interval; nothing where no question of the task has the route."""
    if len(flow.changes(route, task=task)) == 0:
        return
    curve, layers = flow.curve(route, task=task), np.arange(1, flow.settings.n_layers + 1)
    axes.plot(layers, curve.mean, color=color, linewidth=1.7, linestyle=style, zorder=3)
    axes.fill_between(layers, curve.low, curve.high, color=color, alpha=alpha, linewidth=0, zorder=2)


def _key(label: str, color: str, style: Style = "-") -> Line2D:
    return Line2D([], [], color=color, linewidth=1.7, linestyle=style, label=label)


def _color(index: int) -> str:
    return PALETTE[index % len(PALETTE)]


def _panel(axes: Axes, flow: FlowMap, title: str, count: str, *, line: bool = True) -> None:
    if line:
        plain(axes)
    layer_axis(axes, flow.settings.n_layers)
    axes.set_title(title, fontsize=9, color=INK, loc="left")
    axes.set_title(count, fontsize=7.5, color=MUTED, loc="right")


def _finish(figure: Figure, panels: Sequence[Axes], flows: Sequence[FlowMap]) -> Figure:
    low, high = panels[0].get_ylim()
    if low > -10:
        # a flat line should look flat: noise is not stretched to fill the panel
        panels[0].set_ylim(-10, max(high, 2))
    note(figure, _note(flows))
    return figure


def _cells(axes: Axes, mean: np.ndarray, depth: float) -> None:
    """The number in every cell that is more than noise."""
    for row, column in np.argwhere(np.abs(mean) >= 0.05 * depth):
        value = mean[row, column]
        color = "white" if abs(value) > 0.6 * depth else INK
        axes.text(column + 1, row, f"{value:.0f}".replace("-", "−"), ha="center", va="center", fontsize=6, color=color)


def _mean_changes(flow: FlowMap, shown: Sequence[str], tasks: Sequence[str] | None) -> np.ndarray:
    """[route layer]: NaN for a route the map has not got."""
    blank = np.full(flow.settings.n_layers, np.nan)
    pooled = [_pooled(flow, route, tasks) if route in flow.routes else blank[None] for route in shown]
    return np.stack([changes.mean(axis=0) if len(changes) else blank for changes in pooled])


def _pooled(flow: FlowMap, route: str, tasks: Sequence[str] | None) -> np.ndarray:
    if tasks is None:
        return flow.changes(route)
    return np.concatenate([flow.changes(route, task=task) for task in _tasks(flow, tasks)])


def _tasks(flow: FlowMap, tasks: Sequence[str] | None) -> list[str]:
    for task in tasks or []:
        if task not in flow.tasks:
            raise SelectionError(near(task, flow.tasks, kind="task in this flow map"))
    return list(tasks or flow.tasks)


def _counts(flow: FlowMap, route: str, tasks: Sequence[str | None]) -> str:
    """How many questions stand behind a panel's lines."""
    return _range([len(flow.changes(route, task=task)) for task in tasks])


def _range(counts: Sequence[int]) -> str:
    low, high = min(counts, default=0), max(counts, default=0)
    return f"n = {low}" if low == high else f"n = {low} … {high}"


def _name(flow: FlowMap) -> str:
    return flow.settings.model.rstrip("/").split("/")[-1] or "model"


def _arrow(route: str) -> str:
    return route.replace("->", "→")


def _note(flows: Sequence[FlowMap], *, band: bool = True) -> str:
    made = flows[0].settings
    kept = {"correct": "answered rightly", "wrong": "answered wrongly", "all": "all"}
    questions = "; ".join(f"{_name(flow)}: {kept[flow.settings.samples]}" for flow in flows)
    parts = [
        f"Layers count from 1, as in the paper; each is the centre of a window of {made.window} of {made.n_layers}.",
        f"Questions: {questions}.",
    ]
    return " ".join([*parts, *(["Band: 95 % bootstrap over questions."] if band else [])])
