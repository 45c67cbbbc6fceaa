"""The part of a page that shows flow maps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from videolens.drawing.html import render, two_lines
from videolens.experiments.common.statistics import Interval
from videolens.experiments.common.words import number
from videolens.experiments.flow.figure import kinds_of
from videolens.experiments.flow.lines import arrow, model_name
from videolens.experiments.flow.plan import INTO_FALSE_OPTIONS
from videolens.experiments.flow.result import FlowMap
from videolens.interventions.layer_sets import STYLES


@dataclass(frozen=True)
class Panel:
    """A figure by task: its kind, what it is called, how to read it, and the routes it shows."""

    kind: str
    name: str
    text: str
    routes: tuple[str, ...]


PANELS = (
    Panel(
        "routes",
        "From video to question to last token",
        "(figure 3). If information flows in stages, the dip of question → last lies to the right of that of video → "
        "question, and video → last stays flat.",
        ("video -> question", "question -> last", "video -> last"),
    ),
    Panel(
        "options",
        "What the last token reads",
        "(figure 7). Stem, true option and false options, each hidden from the last token in turn.",
        ("true option -> last", "false options -> last", "stem -> last"),
    ),
    Panel(
        "into the true option",
        "How the video reaches the true option",
        "(figure 8). Straight from the video, or through the question's stem.",
        ("video -> true option", "stem -> true option", "video -> stem"),
    ),
    Panel(
        "into the false options",
        "How the video reaches the false options",
        "(the companion of figure 8). Straight from the video, or through the question's stem.",
        INTO_FALSE_OPTIONS,
    ),
)


def section(flow: FlowMap, *, base: FlowMap | None = None, table: bool = True) -> Markup:
    """The heat map, then figures in the manner of the paper's 2, 3, 7 and 8, then a table of all routes.

    Args:
        flow: the map.
        base: a second map, drawn beside the first.
        table: False: without the table, because the page shows it elsewhere.
    """
    flows = [flow] if base is None else [flow, base]
    return render(
        __file__,
        flow=flow,
        base=base,
        style=STYLES[flow.settings.style],
        counts="; ".join(map(_count, flows)) + ".",
        deepest=" ".join(map(deepest, flows)),
        between=_at("cross-frame", flows),
        panels=[
            (panel, " ".join(_at(route, [flow]) for route in panel.routes if route in flow.routes))
            for panel in PANELS
            if panel.kind in kinds_of(flow)
        ],
        table=routes_table(flows) if table else "",
    )


def routes_table(flows: Sequence[FlowMap]) -> Markup:
    """Every route's effect, deepest window and centre, with intervals, in a table of its own."""
    columns = ("mean, %", "deepest, %", "centre, layer")
    head = ["route", *(two_lines(model_name(flow), column) for flow in flows for column in columns)]
    return render(__file__, "routes.html", flows=flows, name=model_name, head=head, rows=route_rows(flows))


def route_rows(flows: Sequence[FlowMap]) -> list[list[str]]:
    """One row per route: effect, deepest window and centre in every map, with intervals. Layers count from 1."""
    rows = []
    for route in flows[0].routes:
        row = [arrow(route)]
        for flow in flows:
            if route not in flow.routes:
                row += ["–"] * 3
                continue
            layer, peak = flow.peak(route)
            deep = _interval(peak, more=f", layer {layer + 1}")
            row += [_interval(flow.effect(route)), deep, _interval(flow.centre(route), first=1, sign="")]
        rows.append(row)
    return rows


def deepest(flow: FlowMap) -> str:
    """Where the map is deepest, in words."""
    at = min(flow.routes, key=lambda route: float(flow.changes(route).mean(axis=0).min()))
    layer, peak = flow.peak(at)
    spread = f" [{number(peak.low)}, {number(peak.high)}]" if flow.n > 1 else ""
    return (
        f"{model_name(flow)} is hit hardest when {arrow(at)} is cut around layer {layer + 1}: "
        f"{number(peak.value)} %{spread}."
    )


def _at(route: str, flows: Sequence[FlowMap]) -> str:
    """Deepest window of a route in each map, in words."""
    found = []
    for flow in flows:
        if route in flow.routes:
            layer, peak = flow.peak(route)
            found.append(f"{number(peak.value)} % around layer {layer + 1} in {model_name(flow)}")
    return f"{arrow(route)}: {'; '.join(found)}."


def _count(flow: FlowMap) -> str:
    """How many questions a map is about, and which."""
    kept = {"correct": "that it answers rightly", "wrong": "that it answers wrongly"}
    if flow.settings.samples in kept:
        which = f"{flow.n} of {flow.settings.n_asked} questions, those {kept[flow.settings.samples]}"
    else:
        which = f"all {flow.n} questions" if flow.n > 1 else "one question"
    return f"{model_name(flow)}: {which}"


def _interval(interval: Interval, *, first: int = 0, sign: str = "+", more: str = "") -> str:
    if math.isnan(interval.value):
        return "–"
    value, low, high = (number(each + first, 1, sign=sign) for each in (interval.value, interval.low, interval.high))
    return two_lines(value, f"{low} … {high}{more}")
