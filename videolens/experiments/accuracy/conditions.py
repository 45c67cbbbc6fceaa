"""What is done to a question's video before it is asked: as it is, or with its time taken away or turned round."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Sequence

from videolens.errors import VideolensError, near
from videolens.question import Question


def _shuffled(question: Question, seed: int) -> Question:
    # an order of its own for every question, the same in every run
    own = zlib.crc32(f"{seed} {question.task} {question.id}".encode())
    return question.with_video(question.video.shuffled(own))


CONDITIONS: dict[str, Callable[[Question, int], Question]] = {
    "as is": lambda question, seed: question,
    "reversed": lambda question, seed: question.reversed(),
    "shuffled": _shuffled,
    "blank": lambda question, seed: question.with_video(question.video.blank()),
}
"""By name: "as is"; "reversed", the clip backwards, scored against the answer that is then right; "shuffled", the
frames in a random order, and "blank", black frames, both scored against the answer of the clip as it was. Each takes a
question and a seed. Besides these there is "frozen k" for every 0-based frame k, that frame in the place of all,
scored against the answer of the clip as it was: right by one frame alone."""

_FROZEN = re.compile(r"frozen (\d+)")


def apply(condition: str, question: Question, *, seed: int = 0) -> Question:
    """A question under a condition of `CONDITIONS`, or "frozen k".

    Raises:
        QuestionError: "reversed", and the answer that is right backwards is not known.
        VideolensError: the clip has no frame k; said when its frames are looked at.
    """
    return _named(condition)(question, seed)


def _named(condition: object) -> Callable[[Question, int], Question]:
    """What a condition does to a question; raises if there is no such condition."""
    if isinstance(condition, str) and (frozen := _FROZEN.fullmatch(condition)):
        return lambda question, seed: question.with_video(question.video.frozen(int(frozen[1])))
    if not isinstance(condition, str) or condition not in CONDITIONS:
        raise VideolensError(near(condition, [*CONDITIONS, "frozen 0"], kind="condition"))
    return CONDITIONS[condition]


def check(conditions: Sequence[str]) -> tuple[str, ...]:
    """Raises:
    VideolensError: an unknown condition (the message lists the known), none, or one that is there twice.
    """
    if isinstance(conditions, str):
        raise VideolensError(f"conditions is one string, {conditions!r}: give a list of conditions")
    for name in conditions:
        _named(name)
    if not conditions or len(set(conditions)) != len(conditions):
        raise VideolensError(f"conditions must name at least one condition, each once, got {list(conditions)}")
    return tuple(conditions)
