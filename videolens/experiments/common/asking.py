"""Asking a model question after question: the one loop of all experiments.

In one call it is `ask_all`; in a run that is cut into parts and resumed, `videolens.runs` asks each part's questions.
An experiment keeps nothing between questions, so a run gives what a call gives.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar

import pandas as pd

from videolens.errors import VideolensError, check_flag, check_whole
from videolens.experiments.common.experiment import Asked, Cost, Experiment, Gathered, Named, Row
from videolens.progress import progress_bar
from videolens.prompt.prompt import Prompt
from videolens.question import Question

_QUIET_S = 2.0  # shorter work than this needs no progress bar

R = TypeVar("R")


def ask_all(experiment: Experiment[R], questions: Any, *, progress: bool, unit: str = "questions") -> R:
    """Ask one question after the other, and give the result.

    Args:
        experiment: what to do.
        questions: questions, or prompts made from them or by hand; a batch of prompts counts as several.
        progress: show a bar if it takes longer than two seconds.
        unit: what is counted.

    Raises:
        VideolensError: no questions, something else than questions, or two with one id; a seed that is no whole number.
    """
    check_whole("seed", getattr(experiment, "seed", 0))
    check_flag("progress", progress)
    began = time.monotonic()
    several = [questions] if isinstance(questions, (Question, Prompt)) else questions
    if not isinstance(several, Iterable) or isinstance(several, str):
        raise VideolensError(f"what is asked are Questions or Prompts, got {questions!r}")
    total = len(several) if isinstance(several, Sequence) else None
    given: list[Named] = []
    found: list[Asked] = []
    with progress_bar(experiment.name, total=total, unit=unit, delay=_QUIET_S, shown=progress) as bar:

        def tick(share: float) -> None:
            bar.n = min(bar.n + share, len(given))  # shares sum to one, but for rounding
            bar.update(0)

        def noted() -> Iterator[Named]:
            for one in named(experiment, several):
                given.append(one._replace(prompt=None))  # a prompt may go when it was asked
                yield one

        for asked in experiment.ask_each(noted(), tick):
            found.append(asked)
            bar.n = max(bar.n, len(found))
            bar.update(0)
    if not given:
        raise VideolensError(f"there are no {unit}: give at least one")
    return experiment.result(gather(experiment, found, len(given), seconds=time.monotonic() - began))


def named(experiment: Experiment[Any], items: Iterable[Any]) -> Iterator[Named]:
    """What is asked, with ids and tasks: a prompt is made only when its turn comes.

    Raises:
        VideolensError: something that the experiment cannot ask, or two with the same id in one task.
    """
    seen: set[tuple[str, str]] = set()
    for item in items:
        for prompt in experiment.prompts(item):
            question = prompt.question
            name = question.id if question is not None and question.id else f"{experiment.unnamed} {len(seen)}"
            task = question.task if question is not None else ""
            if (task, name) in seen:
                raise VideolensError(
                    f"question {name!r} of task {task!r} is there twice: give every question its own id"
                )
            seen.add((task, name))
            yield Named(name, task, prompt)


def gather(
    experiment: Experiment[Any], found: Sequence[Asked], n_asked: int, *, seconds: float | None = None
) -> Gathered:
    """Put together what questions gave."""
    rows = [row for asked in found for row in asked.rows]
    also = {
        name: pd.DataFrame([row for asked in found for row in asked.also.get(name, ())], columns=list(row._fields))
        for name, row in experiment.also.items()
    }
    skipped = tuple(skip for asked in found for skip in asked.skipped)
    cost = Cost.mean([asked.cost for asked in found if asked.cost is not None])
    return Gathered(tabulated(experiment, rows), also, skipped, n_asked, cost, seconds)


def tabulated(experiment: Experiment[Any], rows: Sequence[Row]) -> pd.DataFrame:
    """Rows as a table with the experiment's columns."""
    return pd.DataFrame(rows, columns=list(experiment.row._fields)).astype(dict(experiment.dtypes))


_REASONS = {None: "the right answer is not known", True: "answered rightly", False: "answered wrongly"}


def why_left_out(samples: str, correct: bool | None) -> str | None:
    """Why a question is left out, if it is. `correct`: whether the model answers it rightly; None: not known."""
    return None if samples == "all" or correct is (samples == "correct") else _REASONS[correct]
