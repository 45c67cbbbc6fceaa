"""What is done to a question before it is asked: by name, in three severities, the same for the same seed and id."""

from __future__ import annotations

import string
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from videolens.errors import VideolensError, near
from videolens.experiments.stress.order import ORDER, ChangeOrder, is_as_it_was
from videolens.experiments.stress.pictures import PICTURES, ChangePictures
from videolens.question import Question
from videolens.video.video import Video

SEVERITIES = (1, 2, 3)
NONE, ADVERSARIAL = "none", "adversarial"
EPSILON = (1, 2, 4)
"""By how many levels (of 255) an adversarial perturbation may change each colour of each pixel, by severity."""

Change = Callable[[Question, int, np.random.Generator], Question | None]
"""(question, severity, random numbers) → the question that is asked; None: it lacks what the perturbation needs."""

_AS_IT_WAS = "the answer of the clip as it was"


@dataclass(frozen=True)
class Perturbation:
    """What is done to a question.

    Attributes:
        change: does it; None: the frames are attacked (`attack`).
        right: what counts as the right answer.
        needs: what a question has to have for it.
        severities: those that there are.
    """

    change: Change | None
    right: str = "the answer, which is as it was"
    needs: str = "a video"
    severities: tuple[int, ...] = SEVERITIES


def _pictures(change: ChangePictures, question: Question, severity: int, rng: np.random.Generator) -> Question:
    changed = Video.from_array(change(question.video.frames.numpy(), severity, rng))
    return question.with_video(question.video.replaced(0, None, changed))  # the clock stays the clip's


def _order(change: ChangeOrder, question: Question, severity: int, rng: np.random.Generator) -> Question | None:
    video = question.video
    if len(video) < 2:
        return None
    places = change(len(video), severity, rng)
    if is_as_it_was(places):
        return None
    changed = video.replaced(0, None, video, [0 if place is None else place for place in places])
    for place, frame in enumerate(places):
        if frame is None:
            changed = changed.replaced(place, place + 1, video.blank())
    return question.with_video(changed)


def _reversed(question: Question, severity: int, rng: np.random.Generator) -> Question | None:
    return None if question.reversed_answer is None else question.reversed()


def _hint(question: Question, severity: int, rng: np.random.Generator) -> Question | None:
    """ "Is it (B)?", "I think it is (B).", "The answer is (B).", of a wrong option."""
    wrong = [place for place in range(len(question.choices)) if place != question.answer_index]
    if not wrong:
        return None
    letter = string.ascii_uppercase[wrong[int(rng.integers(len(wrong)))]]
    said = (f"Is it ({letter})?", f"I think it is ({letter}).", f"The answer is ({letter}).")[severity - 1]
    return replace(question, stem=f"{question.stem} {said}")


def _reordered(question: Question, severity: int, rng: np.random.Generator) -> Question | None:
    """Each option moves on by 1, 2, 3 letters; with fewer than four options, by no more than moves it."""
    options = tuple(question.options or ())
    if len(options) < 2:
        return None
    by = (severity - 1) % (len(options) - 1) + 1
    return replace(question, options=(*options[-by:], *options[:-by]))


_LOST = f"{_AS_IT_WAS}, which what is left of it may no longer show"
PERTURBATIONS: dict[str, Perturbation] = {
    **{name: Perturbation(partial(_pictures, change)) for name, change in PICTURES.items()},
    **{
        name: Perturbation(partial(_order, change), _LOST, "frames that can change places")
        for name, change in ORDER.items()
    },
    "reversed": Perturbation(
        _reversed, "the answer of the clip backwards", "an answer that is known of the clip backwards", (1,)
    ),
    "false hint": Perturbation(_hint, needs="a wrong option"),
    "reordered options": Perturbation(_reordered, "the same option, under another letter", "two options"),
    ADVERSARIAL: Perturbation(None),
}
PERTURBATIONS["occlusion"] = replace(PERTURBATIONS["occlusion"], right=_LOST)
PERTURBATIONS["shift"] = replace(PERTURBATIONS["shift"], right=_LOST)
PERTURBATIONS["distractor"] = replace(
    PERTURBATIONS["distractor"], right=f"{_AS_IT_WAS}: of a count of moving things, the one without the distractors"
)


def perturbed(name: str, question: Question, severity: int, *, seed: int) -> Question | None:
    """The question after a perturbation, but for the adversarial one; None: it lacks what the perturbation needs."""
    change = PERTURBATIONS[name].change
    assert change is not None, f"{name} is an attack, and needs the model"
    own = zlib.crc32(f"{seed} {name} {question.task} {question.id}".encode())
    return change(question, severity, np.random.default_rng(own))


def check_perturbations(names: Any) -> tuple[str, ...]:
    """Raises:
    VideolensError: no list, an empty one, an unknown perturbation, or one that is there twice.
    """
    if isinstance(names, str) or not isinstance(names, Sequence) or not names:
        raise VideolensError(f"perturbations are {names!r}: give a list of names, such as ['noise', 'reversed']")
    for name in names:
        if not isinstance(name, str) or name not in PERTURBATIONS:
            raise VideolensError(near(name, PERTURBATIONS, kind="perturbation"))
    if len(set(names)) != len(names):
        raise VideolensError(f"a perturbation is there twice among {list(names)}: name each once")
    return tuple(names)


def check_severities(severities: Any) -> tuple[int, ...]:
    """Raises:
    VideolensError: no list, an empty one, or something else than different whole numbers from 1 to 3.
    """
    listed = list(severities) if isinstance(severities, Sequence) and not isinstance(severities, str) else []
    whole = all(isinstance(each, int) and not isinstance(each, bool) and each in SEVERITIES for each in listed)
    if not listed or not whole or len(set(listed)) != len(listed):
        raise VideolensError(
            f"severities are {severities!r}: give some of 1, 2 and 3, each once (0, nothing perturbed, is always asked)"
        )
    return tuple(sorted(listed))


def grid(names: Sequence[str], severities: Sequence[int]) -> list[tuple[str, int]]:
    """(perturbation, severity) of all that is asked; one that has a single severity is asked once."""
    return [
        (name, severity)
        for name in names
        for severity in ([each for each in severities if each in PERTURBATIONS[name].severities] or (1,))
    ]
