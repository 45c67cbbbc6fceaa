"""Asking one chunk of questions: a question that cannot be asked is recorded, and the next one is asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from videolens.errors import VideolensError
from videolens.experiments.common.asking import Experiment, Row, Skip, named_prompts, tabulated
from videolens.question import Question
from videolens.runs.parts import Chunk, Failure, Part

__all__ = ["ask_chunk", "cut"]


def cut(run: str, label: str, questions: Sequence[Question], size: int) -> Iterator[tuple[Chunk, list[Question]]]:
    """Questions in chunks of `size`, the last one smaller, each with its identity."""
    for index, start in enumerate(range(0, len(questions), size)):
        some = list(questions[start : start + size])
        yield Chunk(run, label, index, tuple((question.task, question.id) for question in some)), some


def ask_chunk(experiment: Experiment[Any], questions: Sequence[Question], done: Callable[[float], Any]) -> Part:
    """Ask one question after the other.

    Args:
        experiment: what to do.
        questions: each with an id.
        done: is told how many questions of the chunk are done, as a number with a fraction.
    """
    rows: list[Row] = []
    skipped: list[Skip] = []
    failures: list[Failure] = []
    for i, question in enumerate(questions):
        share = 0.0

        def tick(more: float, i: int = i) -> None:
            nonlocal share
            share = min(share + more, 1.0)
            done(i + share)

        try:
            [(name, task, prompt)] = named_prompts(experiment.model, [question])
            found = experiment.ask(prompt, name, task, tick)
        except VideolensError as error:
            failures.append(Failure(question.id, question.task, type(error).__name__, str(error)))
        else:
            rows += found.rows
            skipped += found.skipped
        done(i + 1.0)
    return Part(tabulated(experiment, rows), tuple(skipped), tuple(failures))
