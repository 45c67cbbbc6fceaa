"""The part of a page that shows how long answers are written."""

from __future__ import annotations

from markupsafe import Markup

from videolens.drawing.html import render, two_lines
from videolens.experiments.common.words import number
from videolens.experiments.flow.lines import arrow
from videolens.experiments.generation.result import GenerationTrace
from videolens.model.checkpoints.files import short_name

EXAMPLES = 3


def section(trace: GenerationTrace) -> Markup:
    """The curves of every anchor, the deepest window of every route, and a few answers."""
    kept = trace.answers.merge(trace.table[["question", "task"]].drop_duplicates(), on=["question", "task"])
    return render(
        __file__,
        trace=trace,
        name=short_name(trace.settings.model),
        head=["route", *(f"anchor {anchor + 1}" for anchor in trace.anchors)],
        rows=[[arrow(route), *(_deepest(trace, route, anchor) for anchor in trace.anchors)] for route in trace.routes],
        answers=list(kept["answer"][:EXAMPLES]),
    )


def _deepest(trace: GenerationTrace, route: str, anchor: int) -> str | Markup:
    """The mean change in the window where it is deepest, with its interval, n and layer; "–" where there is none."""
    if anchor not in set(trace.table["anchor"]) or route not in (flow := trace.flow(anchor)).routes:
        return "–"
    layer, peak = flow.peak(route)
    value, low, high = (number(each, 1) for each in (peak.value, peak.low, peak.high))
    spread = f"{low} … {high}, " if peak.n > 1 else ""
    return two_lines(f"{value} %", f"{spread}layer {layer + 1}, n = {peak.n}")
