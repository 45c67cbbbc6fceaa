"""Asking one chunk of questions: a question that cannot be asked is recorded, and the next one is asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from videolens.errors import utf8
from videolens.experiments.common.asking import gather, named
from videolens.experiments.common.experiment import Asked, Experiment, ask_one
from videolens.question import Question
from videolens.runs.parts import Chunk, Failure, Part, contents


def cut(run: str, label: str, questions: Sequence[Question], size: int) -> Iterator[tuple[Chunk, list[Question]]]:
    """Questions in chunks of `size`, the last one smaller, each with its identity."""
    for index, start in enumerate(range(0, len(questions), size)):
        some = list(questions[start : start + size])
        yield Chunk(run, label, index, tuple((question.task, question.id) for question in some)), some


def ask_chunk(
    experiment: Experiment[Any], questions: Sequence[Question], done: Callable[[float], Any], *, pictured: int = 0
) -> Part:
    """Ask one question after the other. Whatever goes wrong with one is that question's error, of any type, also that
    its rows cannot be written; an interrupt (`KeyboardInterrupt`, `SystemExit`) is none.

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
            asked = ask_one(experiment, one, tick, pictured=pictured)
            contents(_part(experiment, [asked], 1))
        except Exception as error:
            failures.append(Failure(question.id, question.task, type(error).__name__, _said(error)))
        else:
            found.append(asked)
            answered += bool(asked.rows)
            pictured += bool(asked.also.get("clips"))
        done(i + 1.0)
    part = _part(experiment, found, len(questions))
    return replace(part, failures=tuple(failures), answered=answered, pictured=pictured - pictured_before)


def pictured_before(chunk: Chunk, experiment: Experiment[Any], done: Mapping[tuple[str, int], Part]) -> int | None:
    """How many questions before a chunk have pictures, as far as it matters; None: not known yet, and it does."""
    if "clips" not in experiment.also:
        return 0
    n = 0
    for index in range(chunk.index):
        if n >= experiment.pictures:  # whatever follows has none
            break
        if (chunk.label, index) not in done:
            return None
        n += done[chunk.label, index].pictured
    return n


def _part(experiment: Experiment[Any], found: Sequence[Asked], n_asked: int) -> Part:
    gathered = gather(experiment, found, n_asked)
    costs = tuple(asked.cost for asked in found if asked.cost is not None)
    return Part(gathered.table, gathered.also, gathered.skipped, (), costs, 0, 0)


def _said(error: Exception) -> str:
    """An error's words as files can hold them."""
    try:
        said = str(error)
    except Exception as another:
        said = f"its words cannot be had ({type(another).__name__})"
    return utf8(said).decode() or f"{type(error).__name__} without a word"
