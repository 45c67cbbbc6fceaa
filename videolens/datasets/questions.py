"""What loading a data set gives: its questions, and those that were left out because their videos are missing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from videolens.question import Question


@dataclass(frozen=True)
class Missing:
    """A question that was left out.

    Attributes:
        task, id: which one.
        path: where its video should be.
        reason: what is the matter ("is not there").
    """

    task: str
    id: str
    path: Path
    reason: str

    def __str__(self) -> str:
        return f"{self.id}: {self.path} {self.reason}"


class Questions(list[Question]):
    """A list of questions, task by task, that knows which were left out.

    Attributes:
        missing: the questions without a video, in the listings' order; empty unless loaded with missing="report". A
            slice of the list is an ordinary list.
    """

    missing: tuple[Missing, ...]

    def __init__(self, questions: Iterable[Question] = (), missing: Iterable[Missing] = ()) -> None:
        super().__init__(questions)
        self.missing = tuple(missing)


def counted(missing: Iterable[Missing]) -> str:
    """How many questions of each task: "action antonym 320, object count 2"."""
    return ", ".join(f"{task} {n}" for task, n in Counter(each.task for each in missing).items())
