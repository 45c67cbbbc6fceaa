"""The part of a page that follows the answer through the layers."""

from __future__ import annotations

import math

from markupsafe import Markup

from videolens.drawing.html import render
from videolens.experiments.answer_trace.result import AnswerTrace


def section(trace: AnswerTrace) -> Markup:
    """The probability of true and false options after every layer."""
    kept = {"correct": " answered rightly", "wrong": " answered wrongly"}
    return render(__file__, trace=trace, which=kept.get(trace.settings.samples, ""), rise=_rise(trace))


def _rise(trace: AnswerTrace) -> str:
    """Which layer adds most to the true option, in words; nothing if no true option is known."""
    if "true" not in trace.kinds:
        return ""
    layer, amount = trace.rise()
    if math.isnan(layer.value):
        return "Over all tasks no layer makes the true option more probable."
    points, low, high = (f"{100 * number:.0f}" for number in (amount.value, amount.low, amount.high))
    return f"Over all tasks layer {layer.value + 1:.0f} adds most, {points} points [{low}, {high}]."
