"""Asking a model question after question: what experiments over questions have in common.

An experiment says what is done with one question and what is made of all; going through the questions is the same for
every experiment, in one call (`ask_all`) or in a run that is cut into parts and resumed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, runtime_checkable

import pandas as pd
from tqdm import tqdm

from videolens.errors import VideolensError
from videolens.model.transformer import HookedVideoTransformer
from videolens.prompt.prompt import Prompt
from videolens.question import Question

__all__ = ["Asked", "Experiment", "Row", "Skip", "ask_all", "named_prompts", "tabulated"]

_QUIET_S = 2.0  # shorter work than this needs no progress bar

Row = tuple[Any, ...]
Result_co = TypeVar("Result_co", covariant=True)


@dataclass(frozen=True)
class Skip:
    """A question left out, of one route or (route None) of all, and why."""

    question: str
    task: str
    route: str | None
    reason: str


@dataclass(frozen=True)
class Asked:
    """What one question gave: rows of the table, in the order of the experiment's columns, and what was left out."""

    rows: list[Row]
    skipped: list[Skip]


@runtime_checkable
class Experiment(Protocol[Result_co]):
    """What is done with one question, and what is made of all of them.

    Rows of different questions do not depend on one another: tables made from parts of the questions, put together in
    the questions' order, are the table made from all.

    Attributes:
        name: "flow", "pathway", …
        model: what is asked.
        columns: of the table; the first two are "question" and "task".
        dtypes: of columns that pandas cannot tell by itself, such as "boolean" where values may be missing.
    """

    @property
    def name(self) -> str:
        """What a configuration calls it."""
        ...

    @property
    def model(self) -> HookedVideoTransformer:
        """What is asked."""
        ...

    @property
    def columns(self) -> Sequence[str]:
        """Of the table, in order."""
        ...

    @property
    def dtypes(self) -> Mapping[str, str]:
        """Of the columns that need one said."""
        ...

    def ask(self, prompt: Prompt, name: str, task: str, tick: Callable[[float], Any]) -> Asked:
        """Ask one question, a single prompt. `tick` is told which share of the question's work is done."""
        ...

    def result(self, table: pd.DataFrame, skipped: Sequence[Skip], n_asked: int, seconds: float | None) -> Result_co:
        """The result, from the rows of all questions. `n_asked`: before any was left out.

        Raises:
            VideolensError: no row is left.
        """
        ...


def ask_all(
    experiment: Experiment[Result_co], questions: Question | Prompt | Iterable[Question | Prompt], *, progress: bool
) -> Result_co:
    """Ask one question after the other, and give the result.

    Args:
        experiment: what to do.
        questions: questions, or prompts made from them or by hand; a batch of prompts counts as several.
        progress: show a bar if it takes longer than two seconds.

    Raises:
        VideolensError: no questions, something else than questions, or two with one id.
    """
    began = time.monotonic()
    rows: list[Row] = []
    skipped: list[Skip] = []
    n_asked = 0
    total = len(questions) if isinstance(questions, Sequence) else None
    form = "{desc}: {percentage:3.0f}%|{bar}| {n:.1f}/{total} questions [{elapsed}<{remaining}]"
    form = form if total else "{desc}: {n:.1f} questions [{elapsed}]"
    with tqdm(
        total=total, desc=experiment.name, bar_format=form, delay=_QUIET_S, disable=not progress, leave=False
    ) as bar:

        def tick(share: float) -> None:
            bar.n = min(bar.n + share, n_asked + 1)  # shares sum to one, but for rounding
            bar.update(0)

        for name, task, prompt in named_prompts(experiment.model, questions):
            found = experiment.ask(prompt, name, task, tick)
            rows += found.rows
            skipped += found.skipped
            n_asked += 1
            bar.n = n_asked
            bar.update(0)
    if n_asked == 0:
        raise VideolensError("there are no questions: give at least one Question or Prompt")
    return experiment.result(tabulated(experiment, rows), skipped, n_asked, time.monotonic() - began)


def tabulated(experiment: Experiment[Any], rows: Sequence[Row]) -> pd.DataFrame:
    """Rows as a table with the experiment's columns."""
    return pd.DataFrame(rows, columns=list(experiment.columns)).astype(dict(experiment.dtypes))


def named_prompts(
    model: HookedVideoTransformer, questions: Question | Prompt | Iterable[Question | Prompt]
) -> Iterator[tuple[str, str, Prompt]]:
    """(id, task, single prompt) one after the other: a prompt is made only when its turn comes.

    Raises:
        VideolensError: something else than questions and prompts, or two with the same id in one task.
    """
    seen: set[tuple[str, str]] = set()
    count = 0
    several = [questions] if isinstance(questions, (Question, Prompt)) else questions
    if not isinstance(several, Iterable) or isinstance(several, str):
        raise VideolensError(f"what is asked are Questions or Prompts, got {questions!r}")
    for item in several:
        if not isinstance(item, (Question, Prompt)):
            raise VideolensError(f"what is asked are Questions or Prompts, got {item!r}")
        for prompt in model.prompt(item) if isinstance(item, Question) else item:
            question = prompt.question
            name = question.id if question is not None and question.id else f"prompt {count}"
            task = question.task if question is not None else ""
            if (task, name) in seen:
                raise VideolensError(
                    f"question {name!r} of task {task!r} is there twice: give every question its own id"
                )
            seen.add((task, name))
            count += 1
            yield name, task, prompt
