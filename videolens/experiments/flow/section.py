"""The parts of a report that show flow maps, and what they say about the paper's claims."""

from __future__ import annotations

import math
from collections.abc import Sequence

from videolens.drawing.html import badge, embed, escape, paragraph, table
from videolens.experiments.claims.result import CLAIMS, Claims
from videolens.experiments.common.statistics import Interval
from videolens.experiments.flow.figure import kinds_of
from videolens.experiments.flow.plan import INTO_FALSE_OPTIONS
from videolens.experiments.flow.result import FlowMap
from videolens.interventions.layer_sets import STYLES

__all__ = ["brief_claims", "claims_section", "deepest", "flow_section", "route_rows"]


def flow_section(flow: FlowMap, base: FlowMap | None = None) -> str:
    """The heat map of both models, then the figures in the manner of the paper's 2, 3, 7 and 8."""
    made = flow.settings
    body = paragraph(
        f"Each route was cut in {STYLES[made.style]} ({made.cut_words}): the tokens "
        "on its right may no longer look at the tokens on its left. What is shown is the relative change of the "
        "probability of the answer that the model gives when nothing is cut; −100 % means that the answer is gone."
    )
    both = [flow] if base is None else [flow, base]
    body += embed(
        flow.figure("heat map", base=base),
        alt="Heat map of the change of the answer's probability, route by layer",
        caption=f"<b>All routes at once.</b> {_counts(both)} {' '.join(deepest(each) for each in both)}"
        + (
            " Single cells are means over questions without their spread: read rows, and the intervals in the table "
            "further down."
            if flow.n > 1
            else ""
        ),
    )
    if "cross-frame" in flow.routes:
        body += embed(
            flow.figure("cross-frame", base=base),
            alt="Change of the answer's probability when attention between frames is cut, by layer and task",
            caption=f"<b>Attention between frames</b> (the paper's figure 2). {_at('cross-frame', both)} A dip says "
            "in which layers the answer needs a frame to look at earlier ones; a flat line says that it does not.",
        )
    for kind, name, text in (
        (
            "routes",
            "From video to question to last token",
            "(figure 3). If information flows in stages, the dip of question → last lies to the right of that of "
            "video → question, and video → last stays flat.",
        ),
        (
            "options",
            "What the last token reads",
            "(figure 7). Stem, true option and false options, each hidden from the last token in turn.",
        ),
        (
            "into the true option",
            "How the video reaches the true option",
            "(figure 8). Straight from the video, or through the question's stem.",
        ),
        (
            "into the false options",
            "How the video reaches the false options",
            "(the companion of figure 8). Straight from the video, or through the question's stem.",
        ),
    ):
        if kind in kinds_of(flow):
            shown = [route for route in _SHOWN[kind] if route in flow.routes]
            told = " ".join(_at(route, [flow]) for route in shown)
            body += embed(
                flow.figure(kind),
                alt=f"{name}: change of the answer's probability by layer, one panel per task",
                caption=f"<b>{name}</b> {text} {told}",
            )
    return body


_SHOWN = {
    "routes": ("video -> question", "question -> last", "video -> last"),
    "options": ("true option -> last", "false options -> last", "stem -> last"),
    "into the true option": ("video -> true option", "stem -> true option", "video -> stem"),
    "into the false options": INTO_FALSE_OPTIONS,
}


def brief_claims(claims: Claims) -> str:
    """Each claim with its verdict and one sentence."""
    return "".join(
        f'<div class="claim"><div><span class="which">Claim {claim}</span>{badge(claims.verdict(claim))}</div>'
        f'<div><p class="said">{escape(text)}</p><p class="found">{escape(claims.sentence(claim))}</p></div></div>'
        for claim, text in CLAIMS.items()
    )


def claims_section(claims: Claims, flows: Sequence[FlowMap]) -> str:
    """Every statement with its interval and verdict, then every route's effect and centre."""
    body = paragraph(
        "A statement <i>holds</i> if its 95 % interval lies wholly on the side it names, <i>does not hold</i> if "
        "wholly on the other side, and otherwise <i>cannot be told</i>; a claim holds if all of its statements do. "
        f"An effect is measured at the deepest window and counts from {claims.margin:g} % on; within "
        f"±{claims.margin:g} % (or points) there is none. An interval that merely includes zero is no evidence of "
        "nothing."
    )
    for claim, text in CLAIMS.items():
        rows = [[escape(each.statement), escape(each.numbers), badge(each.verdict)] for each in claims.about(claim)]
        body += f"<h3>Claim {claim} {badge(claims.verdict(claim))}</h3>" + paragraph(escape(text))
        note = _HOPS if any("reached" in each.statement for each in claims.about(claim)) else ""
        if any(each.name.endswith("in the base") for each in claims.about(claim)):
            note += _GUESSES
        body += table(["statement", "measured", "verdict"], rows, note=note, kind="statements")
    body += embed(
        claims.figure(),
        alt="Every statement's estimate with its interval",
        caption="<b>The same as a picture.</b> Estimates with 95 % bootstrap intervals over questions.",
    )
    body += "<h3>Every route</h3>" + table(
        ["route", *(f"{escape(_name(flow))}<br><small>{what}</small>" for flow in flows for what in _WHAT)],
        route_rows(flows),
        note="<i>Mean</i>: relative change, averaged over all windows. <i>Deepest</i>: mean change in the window "
        "where it is largest, and the layer of that window. <i>Centre</i>: mean layer, weighted by how far the "
        "mean change falls below zero. Layers are counted from 1. 95 % bootstrap over questions; for the deepest "
        "window the layer is chosen once. " + " ".join(f"{escape(_name(flow))}: n = {flow.n}." for flow in flows),
    )
    return body


_HOPS = (
    "How the true option is reached: the effect of cutting video → true option minus that of cutting stem → true "
    "option. Below zero the direct way matters more, above zero the one through the stem."
)
_GUESSES = (
    "A word on the base: where it guesses, the answer that the maps follow is whatever it happens to rank first, and "
    "any disturbance tends to lower a number that was picked for being the highest. So the base, and what compares it "
    "with the tuned model, is judged by the probability of the right option, which was not picked by looking at the "
    "model."
)
_WHAT = ("mean, %", "deepest, %", "centre, layer")


def route_rows(flows: Sequence[FlowMap]) -> list[list[str]]:
    """Per route: effect, deepest window and centre in every map, with intervals. Layers from 1."""
    rows = []
    for route in flows[0].routes:
        row = [escape(route.replace("->", "→"))]
        for flow in flows:
            if route not in flow.routes:
                row += ["–"] * len(_WHAT)
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
    spread = f" [{_plain(peak.low)}, {_plain(peak.high)}]" if flow.n > 1 else ""
    return (
        f"{escape(_name(flow))} is hit hardest when {escape(at.replace('->', '→'))} is cut around layer {layer + 1}: "
        f"{_plain(peak.value)} %{spread}."
    )


def _at(route: str, flows: Sequence[FlowMap]) -> str:
    """Deepest window of a route in each map, in words."""
    told = []
    for flow in flows:
        if route in flow.routes:
            layer, peak = flow.peak(route)
            told.append(f"{_plain(peak.value)} % around layer {layer + 1} in {escape(_name(flow))}")
    return f"{escape(route.replace('->', '→'))}: {'; '.join(told)}."


def _counts(flows: Sequence[FlowMap]) -> str:
    kept = {"correct": "that it answers rightly", "wrong": "that it answers wrongly", "all": "of all kinds"}
    told = [
        f"{escape(_name(flow))}: {flow.n} of {flow.settings.n_asked} questions, those {kept[flow.settings.samples]}"
        if flow.settings.samples != "all"
        else f"{escape(_name(flow))}: {f'all {flow.n} questions' if flow.n > 1 else 'one question'}"
        for flow in flows
    ]
    return "; ".join(told) + "."


def _name(flow: FlowMap) -> str:
    return flow.settings.model.rstrip("/").split("/")[-1] or "model"


def _interval(interval: Interval, *, first: int = 0, sign: str = "+", more: str = "") -> str:
    if math.isnan(interval.value):
        return "–"
    value, low, high = (_one_decimal(number + first, sign) for number in (interval.value, interval.low, interval.high))
    return f"{value}<br><small>{low} … {high}{more}</small>"


def _plain(number: float) -> str:
    return "0" if round(number) == 0 else f"{number:+.0f}".replace("-", "−")


def _one_decimal(number: float, sign: str) -> str:
    return "0.0" if round(number, 1) == 0 else f"{number:{sign}.1f}".replace("-", "−")
