"""Asking one chunk of questions: a question that cannot be asked is recorded, and the next one is asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from videolens.errors import VideolensError
from videolens.experiments.common.asking import gather, named
from videolens.experiments.common.experiment import Asked, Experiment, ask_one
from videolens.question import Question
from videolens.runs.parts import Chunk, Failure, Part


def cut(run: str, label: str, questions: Sequence[Question], size: int) -> Iterator[tuple[Chunk, list[Question]]]:
    """Questions in chunks of `size`, the last one smaller, each with its identity."""
    for index, start in enumerate(range(0, len(questions), size)):
        some = list(questions[start : start + size])
        yield Chunk(run, label, index, tuple((question.task, question.id) for question in some)), some


def ask_chunk(
    experiment: Experiment[Any], questions: Sequence[Question], done: Callable[[float], Any], *, pictured: int = 0
) -> Part:
    """Ask one question after the other.

    Args:
        experiment: what to do.
        questions: each with an id.
        done: called with how many questions of the chunk are done, as a number with a fraction.
        pictured: how many questions before these have pictures.
    """
    found: list[Asked] = []
    failures: list[Failure] = []
    answered, pictured_before = 0, pictured
    for i, question in enumerate(questions):
        share = 0.0

        def tick(more: float, i: int = i) -> None:
            nonlocal share
            share = min(share + more, 1.0)
            done(i + share)

        try:
            [one] = named(experiment, [question])
            found.append(ask_one(experiment, one, tick, pictured=pictured))
            answered += bool(found[-1].rows)
            pictured += bool(found[-1].also.get("clips"))
        except VideolensError as error:
            failures.append(Failure(question.id, question.task, type(error).__name__, str(error)))
        done(i + 1.0)
    gathered = gather(experiment, found, len(questions))
    costs = tuple(asked.cost for asked in found if asked.cost is not None)
    made = gathered.table, gathered.also, gathered.skipped
    return Part(*made, tuple(failures), costs, answered, pictured - pictured_before)
