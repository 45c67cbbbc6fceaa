"""Groups of questions, by the sign of one route's effect, along several routes: Map the Flow, figure 10."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from videolens.drawing.style import grid_of_axes, legend, note
from videolens.errors import SelectionError, near
from videolens.experiments.flow.lines import (
    arrow,
    color_of,
    counts,
    key,
    level_flat,
    line,
    model_name,
    note_words,
    panel,
)
from videolens.experiments.flow.measures import measure_named
from videolens.experiments.flow.result import FlowMap
from videolens.experiments.flow.split import FlowSplit

MAIN = ("cross-frame", "video -> question", "question -> last")
_WORDS = {"falls": "cutting lowers it", "rises": "cutting raises it", "unchanged": "unchanged"}


def draw(split: FlowSplit, *, routes: Sequence[str] | None = None, measure: str = "answer") -> Figure:
    """One panel per route, one line per group; the first panel's route is the one that decides the group.

    Raises:
        SelectionError: a route that is not in the map.
    """
    flow, unit = split.flow, measure_named(measure).unit
    shown = list(routes or dict.fromkeys((split.route, *(route for route in MAIN if route in flow.routes))))
    for route in shown:
        if route not in flow.routes:
            raise SelectionError(near(route, flow.routes, kind="route in this flow map"))
    figure, panels = grid_of_axes(len(shown), label=measure_named(measure).label)
    groups: dict[str, FlowMap] = {name: split.group(name) for name in _WORDS if split.counts[name]}
    for axes, route in zip(panels, shown, strict=True):
        for i, (name, each) in enumerate(groups.items()):
            if route in each.routes:
                beside = 0.3 * (i - (len(groups) - 1) / 2)
                line(axes, each, route, None, color_of(list(_WORDS).index(name)), measure=measure, beside=beside)
        said = [counts(each, [route], [None], measure) for each in groups.values() if route in each.routes]
        panel(axes, flow, arrow(route), ", ".join(said))
    handles = [key(f"{_WORDS[name]} (n = {split.counts[name]})", color_of(list(_WORDS).index(name))) for name in groups]
    kept = {"correct": "right answers", "wrong": "wrong answers", "all": "all answers"}[flow.settings.samples]
    title = f"{model_name(flow)}, {kept}, by what cutting {arrow(split.route)} does to their probability"
    legend(figure, title, handles)
    level_flat(panels[0], unit)
    decided = f"Groups: sign of each question's {split.by} change along {arrow(split.route)}"
    left_out = "" if not split.counts["not traced"] else f" ({split.counts['not traced']} without the route left out)"
    apart = "; along it they differ by construction, so compare them along the others."
    note(figure, f"{decided}{left_out}{apart} {note_words([flow], measure=measure)}")
    return figure
