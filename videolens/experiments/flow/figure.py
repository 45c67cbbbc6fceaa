"""Flow maps as figures, in the manner of Map the Flow's figures 2, 3, 7 and 8, and all routes in one heat map.

Layers are numbered from 1 here, as in the paper's figures; every figure says so. Everywhere else they count from 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.figure import Figure

from videolens.drawing.style import INK, LAYER, MUTED, grid_of_axes, legend, note, under
from videolens.errors import SelectionError, VideolensError, near
from videolens.experiments.flow.lines import (
    FLAT,
    Dashes,
    arrow,
    check_alike,
    chosen_tasks,
    color_of,
    counts,
    key,
    level_flat,
    line,
    model_name,
    note_words,
    panel,
    places,
    ranged,
    unnamed,
)
from videolens.experiments.flow.measures import MEASURES, measure_named
from videolens.experiments.flow.plan import INTO_FALSE_OPTIONS
from videolens.experiments.flow.result import FlowMap

DASHES: tuple[Dashes, ...] = ("-", (0.0, (3.0, 1.5)))
ALL = "all tasks"
Tasks = Sequence[str] | None


def draw(
    flow: FlowMap, kind: str = "heat map", *, tasks: Tasks = None, base: FlowMap | None = None, measure: str = "answer"
) -> Figure:
    """The figure of one of `KINDS`. `base`: a second map. `measure`: one of `MEASURES`.

    Raises:
        SelectionError: the kind, or a task, is unknown.
        VideolensError: no such measure, routes that were not traced, or maps that cut different layers.
    """
    if kind not in KINDS:
        raise SelectionError(near(kind, KINDS, kind="figure"))
    measure_named(measure)
    check_alike([flow] if base is None else [flow, base])
    return KINDS[kind](flow, tasks=tasks, base=base, measure=measure)


def cross_frame(flow: FlowMap, *, tasks: Tasks = None, base: FlowMap | None = None, measure: str = "answer") -> Figure:
    """Figure 2: attention between frames cut, one line per task; beside it, if given, another model, as the base."""
    flows = [flow] if base is None else [flow, base]
    figure, panels = grid_of_axes(len(flows), label=MEASURES[measure].label)
    chosen = chosen_tasks(flow, tasks)
    for axes, each in zip(panels, flows, strict=True):
        shown = [task for task in chosen if task in each.tasks]
        for i, task in enumerate(shown):
            color, beside = color_of(chosen.index(task)), _beside(i, len(shown))
            line(axes, each, "cross-frame", task, color, measure=measure, alpha=0.1, beside=beside)
        panel(axes, each, model_name(each), counts(each, ["cross-frame"], shown, measure))
    style = flow.settings.style
    handles = [key(task or unnamed(flow), color_of(i), style=style) for i, task in enumerate(chosen)]
    legend(figure, "Cutting attention between frames", handles)
    level_flat(panels[0], MEASURES[measure].unit)
    note(figure, note_words(flows, measure=measure))
    return figure


def routes(flow: FlowMap, *, tasks: Tasks = None, base: FlowMap | None = None, measure: str = "answer") -> Figure:
    """Figure 3: from the video to the question, from the question to the last token, and what does not go direct."""
    return _by_task(flow, "routes", "Where information flows, layer by layer", tasks, base, measure)


def options(flow: FlowMap, *, tasks: Tasks = None, base: FlowMap | None = None, measure: str = "answer") -> Figure:
    """Figure 7: which part of the question the last token reads."""
    return _by_task(flow, "options", "Which part of the question the last token reads", tasks, base, measure)


def into_true_option(
    flow: FlowMap, *, tasks: Tasks = None, base: FlowMap | None = None, measure: str = "answer"
) -> Figure:
    """Figure 8: how the video reaches the true option, directly or through the question's stem."""
    return _by_task(flow, "into the true option", "How the video reaches the true option", tasks, base, measure)


def into_false_options(
    flow: FlowMap, *, tasks: Tasks = None, base: FlowMap | None = None, measure: str = "answer"
) -> Figure:
    """Figure 8's companion: how the video reaches the false options."""
    return _by_task(flow, "into the false options", "How the video reaches the false options", tasks, base, measure)


def heat_map(flow: FlowMap, *, tasks: Tasks = None, base: FlowMap | None = None, measure: str = "answer") -> Figure:
    """Layer × route: mean change over the questions of `tasks`; beside it, if given, another model, same scale."""
    flows = [flow] if base is None else [flow, base]
    shown, unit = flow.routes, MEASURES[measure].unit
    pooled = [[_pooled(each, route, tasks, measure) for route in shown] for each in flows]
    means = [np.stack([_mean(changes) for changes in each]) for each in pooled]
    depth = max(FLAT[unit] / 2, *(float(np.nanmax(np.abs(mean), initial=0)) for mean in means))
    n_cuts = len(flow.settings.cuts)
    width = max(3.4, 0.3 * n_cuts)
    figure = Figure(figsize=(width * len(flows) + 2.4, 0.34 * len(shown) + 1.9), dpi=150, layout="constrained")
    panels = list(figure.subplots(1, len(flows), sharey=True, squeeze=False).ravel())
    for axes, each, mean, changes in zip(panels, flows, means, pooled, strict=True):
        extent = (0.5, len(each.settings.cuts) + 0.5, len(shown) - 0.5, -0.5)
        image = axes.imshow(mean, cmap="RdBu", vmin=-depth, vmax=depth, aspect="auto", extent=extent)
        axes.set_yticks(range(len(shown)), [arrow(route) for route in shown])
        panel(axes, each, model_name(each), ranged([len(one) for one in changes]), rule=False)
        # the number in every cell that is more than noise
        for row, column in np.argwhere(np.abs(mean) >= 0.05 * depth):
            value = mean[row, column]
            color = "white" if abs(value) > 0.6 * depth else INK
            said = f"{value:.1f}" if unit == "logits" else f"{value:.0f}"
            at = places(each.settings)[column]
            axes.text(at, row, said.replace("-", "−"), ha="center", va="center", fontsize=6, color=color)
        axes.set_xlabel(LAYER, fontsize=8, color=INK)
        axes.tick_params(length=0, labelsize=8, labelcolor=INK)
        axes.spines[:].set_visible(False)
    bar = figure.colorbar(image, ax=panels, fraction=0.05, pad=0.02, aspect=40)
    bar.set_label(f"mean {MEASURES[measure].label}", fontsize=8, color=INK)
    bar.ax.tick_params(labelsize=8, colors=MUTED, labelcolor=INK)
    bar.outline.set_visible(False)
    cells, said = n_cuts * len(shown), note_words(flows, measure=measure, band=False)
    if max(each.n for each in flows) > 1:
        stray = f"chance alone puts about {max(1, round(cells / 20))} of {cells} outside a 95 % interval"
        said += f" Read rows, not cells: {stray}."
    under(figure, "What cutting each route costs", said)
    return figure


KINDS: dict[str, Callable[..., Figure]] = {
    "heat map": heat_map,
    "routes": routes,
    "cross-frame": cross_frame,
    "options": options,
    "into the true option": into_true_option,
    "into the false options": into_false_options,
}
"""Figures by the name that `FlowMap.figure` takes."""

_SHOWN: dict[str, tuple[str, ...]] = {
    "cross-frame": ("cross-frame",),
    "routes": ("video -> question", "video -> last", "question -> last", "last -> last"),
    "options": ("stem -> last", "true option -> last", "false options -> last"),
    "into the true option": ("video -> stem", "stem -> true option", "video -> true option"),
    "into the false options": ("video -> stem", *INTO_FALSE_OPTIONS),
}
# "video -> stem" leads to either option, "last -> last" nowhere: alone they are no figure
_NEEDED = {
    "routes": _SHOWN["routes"][:3],
    "into the true option": _SHOWN["into the true option"][1:],
    "into the false options": INTO_FALSE_OPTIONS,
}


def kinds_of(flow: FlowMap) -> list[str]:
    """The figures that a map has the routes for."""
    needed = {kind: _NEEDED.get(kind, _SHOWN.get(kind)) for kind in KINDS}
    return [kind for kind, some in needed.items() if some is None or any(route in flow.routes for route in some)]


def _by_task(flow: FlowMap, kind: str, title: str, tasks: Tasks, base: FlowMap | None, measure: str) -> Figure:
    """One panel per task and one for all of them, one line per route; a second map's lines are dashed."""
    shown = [route for route in _SHOWN[kind] if route in flow.routes]
    if kind not in kinds_of(flow):
        raise VideolensError(
            f"this flow map traced none of {list(_NEEDED.get(kind, _SHOWN[kind]))}, which this figure shows"
        )
    chosen: list[str | None] = list(chosen_tasks(flow, tasks))
    if tasks is None and len(chosen) > 1:
        chosen.append(None)
    figure, panels = grid_of_axes(len(chosen), label=MEASURES[measure].label)
    flows = [flow] if base is None else [flow, base]
    for axes, task in zip(panels, chosen, strict=True):
        for number, (each, dashes) in enumerate(zip(flows, DASHES, strict=False)):
            for i, route in enumerate(shown):
                if route in each.routes and (task is None or task in each.tasks):
                    line(
                        axes,
                        each,
                        route,
                        task,
                        color_of(i),
                        measure=measure,
                        dashes=dashes,
                        alpha=0.18 if each is flow else 0.08,
                        beside=_beside(number * len(shown) + i, len(flows) * len(shown)),
                    )
        said = [
            counts(each, [route for route in shown if route in each.routes], [task], measure)
            for each in flows
            if task is None or task in each.tasks
        ]
        panel(axes, flow, (ALL if task is None else task) or unnamed(flow), ", ".join(dict.fromkeys(said)))
    style = flow.settings.style
    handles = [key(arrow(route), color_of(i), style=style) for i, route in enumerate(shown)]
    if base is not None:
        handles += [
            key(model_name(each), MUTED, dashes, style=style) for each, dashes in zip(flows, DASHES, strict=True)
        ]
    legend(figure, title, handles)
    level_flat(panels[0], MEASURES[measure].unit)
    note(figure, note_words(flows, measure=measure))
    return figure


def _beside(i: int, n: int) -> float:
    """How far from the middle the i-th of n marks stands."""
    return 0.0 if n == 1 else (i / (n - 1) - 0.5) * 0.6


def _pooled(flow: FlowMap, route: str, tasks: Tasks, measure: str) -> np.ndarray:
    """[question layer]: no row for a route that the map has not got."""
    if route not in flow.routes:
        return np.empty((0, len(flow.settings.cuts)))
    if tasks is None:
        return flow.changes(route, measure=measure)
    return np.concatenate([flow.changes(route, task=task, measure=measure) for task in chosen_tasks(flow, tasks)])


def _mean(changes: np.ndarray) -> np.ndarray:
    """[layer]: NaN where there is no question."""
    return changes.mean(axis=0) if len(changes) else np.full(changes.shape[1], np.nan)
