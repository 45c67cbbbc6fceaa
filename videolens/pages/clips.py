"""The parts of a page that show clips with their answers, and how everything on the page was made."""

from __future__ import annotations

import string
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from videolens.drawing.html import render
from videolens.experiments.flow.result import FlowMap
from videolens.question import Question

KINDS = ("tuned", "base")
"""Colours of the page: the first model's and the second's."""


@dataclass(frozen=True)
class AnsweredClip:
    """A question about a clip, and what models answer.

    Attributes:
        question: with its video.
        shares: per model, the probability of every option's letter at the last position.
        said: per model, the text it writes, for a question without options.
    """

    question: Question
    shares: Mapping[str, Sequence[float]]
    said: Mapping[str, str]


@dataclass(frozen=True)
class Bar:
    """A model's probability of one option; `chosen`: whether it ranks the option first."""

    kind: str
    share: float
    chosen: bool


def clips_section(clips: Sequence[AnsweredClip]) -> Markup:
    """How to read the cards, and a card for every clip."""
    frames = sorted({len(clip.question.video) for clip in clips})
    return render(
        __file__,
        "clips.html",
        clips=clips,
        card=clip_card,
        models=list(dict.fromkeys(model for clip in clips for model in (*clip.shares, *clip.said))),
        frames=f"{frames[0]}" if len(frames) == 1 else f"{frames[0]} to {frames[-1]}",
        with_options=any(clip.shares for clip in clips),
        known=any(clip.question.answer is not None for clip in clips),
    )


def clip_card(clip: AnsweredClip) -> Markup:
    """Frames with their times, the question, its options, and every model's probabilities and answer."""
    video = clip.question.video
    return render(
        __file__,
        "clip.html",
        question=clip.question,
        frames=list(zip(video.frames, video.seconds.tolist(), strict=True)),
        shares=clip.shares,
        options=list(_options(clip)),
        said=clip.said,
    )


def _options(clip: AnsweredClip) -> Iterator[tuple[str, bool, list[Bar]]]:
    """(option with its letter, whether it is right, a bar for every model)"""
    for i, option in enumerate(clip.question.choices):
        bars = [
            Bar(kind, shares[i], chosen=i == max(range(len(shares)), key=shares.__getitem__))
            for kind, shares in zip(KINDS, clip.shares.values(), strict=False)
        ]
        yield f"({string.ascii_uppercase[i]}) {option}", option == clip.question.answer, bars


def settings_section(settings: Mapping[str, str], flows: Sequence[FlowMap], versions: Mapping[str, str]) -> Markup:
    """Settings, versions, and what was left out and why."""
    left_out = [
        [flow.settings.model, row.task, row.route, row.reason, str(row.questions)]
        for flow in flows
        for row in flow.skipped().itertuples()
    ]
    return render(__file__, "settings.html", settings=settings, left_out=left_out, versions=versions)
