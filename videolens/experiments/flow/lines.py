"""What figures of flow maps are made of: lines with their intervals, axes for every style of cut, counts and notes.

Layers are numbered from 1 here, as in the paper's figures; every figure says so. Everywhere else they count from 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from videolens.drawing.style import MUTED, PALETTE, layer_axis, plain, titled
from videolens.errors import SelectionError, VideolensError, near
from videolens.experiments.flow.result import FlowMap
from videolens.experiments.flow.table import FlowSettings
from videolens.interventions.layer_sets import HALVES
from videolens.model.checkpoints.files import short_name

Dashes = Literal["-"] | tuple[float, tuple[float, float]]

FLAT = {"percent": 10.0, "points": 10.0, "logits": 1.0}
"""A panel shows at least this much below zero, by unit: noise is not stretched to fill it."""


def line(
    axes: Axes,
    flow: FlowMap,
    route: str,
    task: str | None,
    color: str,
    *,
    measure: str,
    dashes: Dashes = "-",
    alpha: float = 0.18,
    beside: float = 0.0,
) -> None:
    """A mean curve with its interval; nothing where no question of the task has the route and the measure.

    Halves of the layers are no curve: a mark with its interval each, `beside` the middle so that they do not overlap.
    """
    if len(flow.changes(route, task=task, measure=measure)) == 0:
        return
    if floor := flow.noise_floor(route, task=task, measure=measure):
        axes.axhspan(-floor, floor, color=MUTED, alpha=0.15, linewidth=0, zorder=0)
    curve, at = flow.curve(route, task=task, measure=measure), np.array(places(flow.settings), dtype=float)
    if flow.settings.style in HALVES:
        reach = np.stack([curve.mean - curve.low, curve.high - curve.mean])
        filled = color if dashes == "-" else "white"
        axes.errorbar(
            at + beside, curve.mean, yerr=reach, fmt="o", color=color, mfc=filled, markersize=4, elinewidth=1.4
        )
        return
    axes.plot(at, curve.mean, color=color, linewidth=1.7, linestyle=dashes, zorder=3)
    axes.fill_between(at, curve.low, curve.high, color=color, alpha=alpha, linewidth=0, zorder=2)


def places(made: FlowSettings) -> list[int]:
    """Where the knockouts of a route stand on the axis: at their layer, counted from 1; halves one after the other."""
    return [i + 1 if made.style in HALVES else layer + 1 for i, layer in enumerate(made.cuts)]


def panel(axes: Axes, flow: FlowMap, title: str, count: str, *, rule: bool = True) -> None:
    """Title, count and axis. `rule`: a line at no change."""
    made = flow.settings
    if rule:
        plain(axes)
    if made.style in HALVES:
        axes.set_xticks(places(made), [f"{cut[0] + 1} … {cut[-1] + 1}" for cut in made.cuts.values()])
        axes.set_xlim(0.5, len(made.cuts) + 0.5)
    else:
        layer_axis(axes, made.n_layers)
    titled(axes, title, count)


def level_flat(axes: Axes, unit: str) -> None:
    """A flat line should look flat: see `FLAT`."""
    low, high = axes.get_ylim()
    if low > -FLAT[unit]:
        axes.set_ylim(-FLAT[unit], max(high, FLAT[unit] / 5))


def key(label: str, color: str, dashes: Dashes = "-", *, style: str = "centre") -> Line2D:
    """An entry of the legend, as `line` draws it."""
    if style in HALVES:
        filled = color if dashes == "-" else "white"
        return Line2D([], [], color=color, marker="o", mfc=filled, markersize=4, linestyle="none", label=label)
    return Line2D([], [], color=color, linewidth=1.7, linestyle=dashes, label=label)


def color_of(index: int) -> str:
    """The colour of the index-th line, again from the first where there are more than colours."""
    return PALETTE[index % len(PALETTE)]


def arrow(route: str) -> str:
    """A route as it is written in figures."""
    return route.replace("->", "→")


def model_name(flow: FlowMap) -> str:
    """What the model is called."""
    return short_name(flow.settings.model)


def chosen_tasks(flow: FlowMap, tasks: Sequence[str] | None) -> list[str]:
    """The tasks to show, all of them if none is named.

    Raises:
        SelectionError: one of them is not in the map.
    """
    for task in tasks or []:
        if task not in flow.tasks:
            raise SelectionError(near(task, flow.tasks, kind="task in this flow map"))
    return list(tasks or flow.tasks)


def counts(flow: FlowMap, routes: Sequence[str], tasks: Sequence[str | None], measure: str) -> str:
    """How many questions stand behind a panel's lines, those left out where the measure is not known."""
    return ranged([len(flow.changes(route, task=task, measure=measure)) for route in routes for task in tasks])


def ranged(numbers: Sequence[int]) -> str:
    """n = 3, or n = 3 … 8."""
    low, high = min(numbers, default=0), max(numbers, default=0)
    return f"n = {low}" if low == high else f"n = {low} … {high}"


def check_alike(flows: Sequence[FlowMap]) -> None:
    """Raises:
    VideolensError: two maps of which one cuts other layers than the other do not belong in one figure.
    """
    styles = {flow.settings.style for flow in flows}
    if len(styles) > 1:
        raise VideolensError(f"the two maps cut different layers, {sorted(styles)}: trace both with one style")


def note_words(flows: Sequence[FlowMap], *, measure: str, band: bool = True) -> str:
    """The small print: what was cut, which questions, what the intervals are."""
    kept = {"correct": "answered rightly", "wrong": "answered wrongly", "all": "all"}
    cuts = list(dict.fromkeys(flow.settings.cut_words for flow in flows))
    parts = [
        f"Layers count from 1, as in the paper; {', or '.join(cuts)}.",
        f"Questions: {'; '.join(f'{model_name(flow)}: {kept[flow.settings.samples]}' for flow in flows)}.",
    ]
    chosen = [flow for flow in flows if flow.settings.samples != "all"]
    if measure.startswith("accuracy") and chosen:
        names = " and ".join(model_name(flow) for flow in chosen)
        parts.append(
            f"{names}: of questions chosen for their answer, so no accuracy but the share whose verdict changes."
        )
    if any(flow.settings.own_choice for flow in flows):
        parts.append("No answer was given: “true option” is the model's own choice, right or wrong.")
    if unknown := sum(_unknown(flow, measure) for flow in flows):
        parts.append(f"Not known for {unknown} questions, which are left out.")
    if band:
        rounded = {flow.settings.dtype for flow in flows if flow.noise_floor(flow.routes[0], measure=measure)}
        parts += [f"Grey: what rounding in {dtype} alone makes of a mean." for dtype in sorted(rounded)]
    if band and max(flow.n for flow in flows) > 1:
        shape = "Bars" if flows[0].settings.style in HALVES else "Band"
        parts.append(f"{shape}: 95 % bootstrap over questions.")
    return " ".join(parts)


def unnamed(flow: FlowMap) -> str:
    """What stands for a task without a name."""
    return "questions" if flow.n > 1 else "one question"


def _unknown(flow: FlowMap, measure: str) -> int:
    """Questions of a map of which the measure is not known."""
    n, known = flow.n, set()
    for route in flow.routes:
        known |= set(flow.by_question(route, measure=measure).dropna().index)
        if len(known) == n:  # mostly along the first
            break
    return n - len(known)
