"""What a probe is to read: a label for every question, and which questions show the same clip."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from videolens.errors import VideolensError
from videolens.question import Question

Target = str | Callable[[Question], Any] | Sequence[Any]
ANSWER = "answer"


@dataclass(frozen=True)
class Labels:
    """Labels by target: how each is found for a question.

    Attributes:
        of: name of a target → its label of a question; None where it has none.
        words: name of a target → where its labels come from, for the settings.
    """

    of: Mapping[str, Callable[[Question], Any]]
    words: Mapping[str, str]

    def found(self, question: Question | None) -> dict[str, str]:
        """The labels of a question, as text."""
        if question is None:
            return {}
        labels = {name: find(question) for name, find in self.of.items()}
        return {name: str(label) for name, label in labels.items() if label is not None}


def as_labels(targets: Any, questions: Sequence[Any] | None = None) -> Labels:
    """Targets in any of the forms that callers give.

    Args:
        targets: name → "answer", a key of `question.meta`, either with " of TASK" behind it, a function of a question,
            or a list with one label for each question (None: it has none).
        questions: those that lists are about.

    Raises:
        VideolensError: no mapping, an empty one, a name that is none, a list that is not as long as the questions, or
            something else.
    """
    if not isinstance(targets, Mapping) or not targets:
        raise VideolensError(
            f"targets are {targets!r:.80}: give each a name, {{'direction': 'answer of moving direction'}}"
        )
    found, words = {}, {}
    for name, given in targets.items():
        if not isinstance(name, str) or not name.strip():
            raise VideolensError(f"a target is called {name!r}: give it a name, such as 'direction'")
        if isinstance(given, str):
            found[name], words[name] = _named(given), given
        elif callable(given):
            found[name], words[name] = given, getattr(given, "__name__", "a function")
        else:
            found[name], words[name] = _listed(name, given, questions), "labels that were given"
    return Labels(found, words)


def _named(given: str) -> Callable[[Question], Any]:
    key, of, task = (part.strip() for part in given.partition(" of "))

    def find(question: Question) -> Any:
        if of and question.task != task:
            return None
        return question.answer if key == ANSWER else question.meta.get(key)

    return find


def _listed(name: str, given: Any, questions: Sequence[Any] | None) -> Callable[[Question], Any]:
    if not isinstance(given, Sequence) or questions is None:
        raise VideolensError(
            f"the target {name!r} is {given!r:.80}: give 'answer', a key of question.meta, a function of a question, "
            "or a list with one label for each question"
        )
    if len(given) != len(questions):
        raise VideolensError(
            f"the target {name!r} has {len(given)} labels for {len(questions)} questions: give one for each"
        )
    asked = [getattr(each, "question", None) or each for each in questions]
    by_object = {id(question): label for question, label in zip(asked, given, strict=True)}
    return lambda question: by_object.get(id(question))


def clip_key(question: Question | None, name: str) -> str:
    """Which clip a question shows, whatever the order of its frames: a clip and its reversal have one key."""
    if question is None:
        return name

    def checksum(frame: UInt8[Tensor, "h w c"], n: int) -> Tensor:
        return torch.tensor(zlib.crc32(np.ascontiguousarray(frame.numpy()).tobytes()))

    sums = sorted(question.video.map_frames(checksum).tolist())
    return f"{zlib.crc32(repr(sums).encode()):08x}"
