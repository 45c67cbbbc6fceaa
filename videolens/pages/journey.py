"""The way of an answer in one picture: what a stranger sees first."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup

from videolens.drawing.html import render
from videolens.experiments.common.words import number
from videolens.experiments.flow.result import FlowMap
from videolens.pages.clips import AnsweredClip

STEPS = {
    "cross-frame": "Frames look at one another",
    "video -> question": "The question looks at the video",
    "question -> last": "The answer looks at the question",
}
"""What has to happen on the way, in the paper's order; each is a route that is cut."""
_SHOWN = 3  # frames of the clip
_LITTLE = 3.0  # percent, by which a change is next to nothing: the margin of the claims


@dataclass(frozen=True)
class Step:
    """A route, and what cutting it does where that does most.

    Attributes:
        says: what happens along it.
        route: its name.
        change: the mean change, in percent.
        interval: of that.
        layers: that are cut there, counted from 1.
    """

    says: str
    route: str
    change: str
    interval: str
    layers: str


def journey(clip: AnsweredClip, flow: FlowMap, *, explorer: str) -> Markup:
    """The clip, the steps with this run's numbers, the answer, and the way to the explorer.

    Args:
        clip: a question, with the probabilities of its options; those of the first model count.
        flow: that model's map; routes that it lacks are left out.
        explorer: where the explorer's page lies.
    """
    question = clip.question
    shares = next(iter(clip.shares.values()))
    best = max(range(len(shares)), key=shares.__getitem__)
    options = question.options or ()
    frames = question.video.frames
    at = [round(i * (len(frames) - 1) / (_SHOWN - 1)) for i in range(_SHOWN)]
    right = question.answer is not None and options[best] == question.answer
    return render(
        __file__,
        "journey.html",
        frames=[frames[i] for i in at],
        stem=question.stem,
        steps=[_step(flow, route, says) for route, says in STEPS.items() if route in flow.routes],
        n_layers=flow.settings.n_layers,
        n=flow.n,
        answer=f"“{options[best]}”",
        right="which is right" if right else "which is wrong",
        probability=f"{shares[best]:.2f}",
        direct=_direct(flow),
        explorer=explorer,
    )


def _step(flow: FlowMap, route: str, says: str) -> Step:
    layer, peak = flow.peak(route)
    cut = [each + 1 for each in flow.settings.cuts[layer]]
    return Step(
        says,
        route.replace("->", "→"),
        f"{number(peak.value)} %",
        f"[{number(peak.low)}, {number(peak.high)}]",
        str(cut[0]) if len(cut) == 1 else f"{cut[0]}–{cut[-1]}",
    )


def _direct(flow: FlowMap) -> str:
    """The change along the straight way, if it is next to nothing for sure; else nothing is said about it here."""
    if "video -> last" not in flow.routes:
        return ""
    _, peak = flow.peak("video -> last")
    if not -_LITTLE <= peak.low <= peak.high <= _LITTLE:
        return ""
    return f"{number(peak.value, 1)} % [{number(peak.low, 1)}, {number(peak.high, 1)}]"
