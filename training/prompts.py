"""The benchmark's questions as text: what stands before the answer, and the answer, in the package's own template."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from videolens.datasets.shapes_tasks import Ask
from videolens.prompt.known_templates import TEMPLATES
from videolens.question import Question
from videolens.video.video import Video

TEMPLATE = TEMPLATES["shapes"]
_BLANK = Video.from_array(np.zeros((1, 2, 2, 3), np.uint8))  # only the words matter here


def _split(question: Question) -> tuple[str, str, str]:
    """The text up to the end of the video, the text after it, and the answer that follows."""
    pieces = TEMPLATE.render(question)
    video = next(i for i, piece in enumerate(pieces) if piece.role == "video")
    before, after = ("".join(p.text for p in part) for part in (pieces[: video + 1], pieces[video + 1 :]))
    answer, _ = TEMPLATE.continuations(question)
    assert answer is not None
    return before, after, answer


def multiple_choice(ask: Ask, options: Sequence[str]) -> tuple[str, str]:
    """Text after the video up to the answer, and the letter."""
    return _split(Question(_BLANK, ask.stem, options, ask.answer))[1:]


def open_ended(ask: Ask) -> tuple[str, str]:
    """Text after the video up to the answer, and the answer in words."""
    return _split(Question(_BLANK, ask.stem, None, ask.answer, completion=ask.completion))[1:]


def said_aloud(ask: Ask, text: str) -> str:
    """A multiple-choice question's text with the answer in words before the place of its letter."""
    before, cue = text.rsplit("ASSISTANT:", 1)
    return f"{before}ASSISTANT: {ask.completion} {ask.answer}\n{cue}"


PREFIX = _split(Question(_BLANK, "?", None, "."))[0]
"""Shared by all questions about one clip."""
