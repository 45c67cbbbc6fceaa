"""What an experiment is: what is done with one question, and what is made of all.

Going through the questions is the loop's work (`videolens.experiments.common.asking`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

import pandas as pd

from videolens.engine.foreseeing import Foreseen, Machine
from videolens.engine.sweeping import Sweep
from videolens.errors import VideolensError, near
from videolens.experiments.common.thumbnails import LONGEST, thumbnails
from videolens.model.transformer import HookedVideoTransformer
from videolens.prompt.prompt import Prompt
from videolens.question import Question

Row = tuple[Any, ...]
"""A row of a table: a `NamedTuple` whose fields are the table's columns."""
Tick = Callable[[float], Any]
"""Called with the share of a question's work that was just done; the shares of a question sum to one."""
R = TypeVar("R")


@dataclass(frozen=True)
class Skip:
    """A question left out, of one route (or word, or condition) or, with route None, of all; and why."""

    question: str
    task: str
    route: str | None
    reason: str


class Frame(NamedTuple):
    """A frame of the token grid as a small picture: 0-based number, PNG."""

    question: str
    task: str
    frame: int
    png: bytes


@dataclass(frozen=True)
class Cost:
    """What questions have cost, in plain forwards of the whole prompt, and how exact their numbers are.

    Attributes:
        forwards: computed this way.
        full_forwards: by the published procedure: one forward per intervention, and one with nothing changed.
        verified: largest |Δlogit| between the engine and plain forwards, in standard deviations of the logits; None
            where nothing was verified.
        noise: by how much a change differs when its numbers are rounded elsewhere, in percent: of a question, the
            largest of those repeated; of several, their root mean square. None where that was not measured.
    """

    forwards: float
    full_forwards: float
    verified: float | None = None
    noise: float | None = None

    @classmethod
    def of(cls, found: Sweep, *, before: float = 0.0) -> Cost:
        """The cost of a sweep, and of the forwards that were run `before` it: a base that it was given is one."""
        return cls(found.forwards + before, float(found.full_forwards), found.verified)

    @classmethod
    def mean(cls, costs: Sequence[Cost]) -> Cost | None:
        """The mean over questions, the worst that was verified, the noise; None of no questions."""
        if not costs:
            return None
        verified = [cost.verified for cost in costs if cost.verified is not None]
        forwards = sum(cost.forwards for cost in costs) / len(costs)
        full = sum(cost.full_forwards for cost in costs) / len(costs)
        noise = [cost.noise**2 for cost in costs if cost.noise is not None]
        return cls(forwards, full, max(verified, default=None), (sum(noise) / len(noise)) ** 0.5 if noise else None)


@dataclass(frozen=True)
class Asked:
    """What one question gave.

    Attributes:
        rows: of the experiment's table.
        skipped: what was left out.
        cost: of this question, where it is counted.
        also: rows of the experiment's other tables, by name; frames for pictures are put there by the loop.
    """

    rows: Sequence[Row] = ()
    skipped: Sequence[Skip] = ()
    cost: Cost | None = None
    also: Mapping[str, Sequence[Row]] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Gathered:
    """What all questions gave.

    Attributes:
        table: all rows, in the questions' order.
        also: the experiment's other tables, by name.
        skipped: what was left out.
        n_asked: questions asked, before any was left out.
        cost: the mean over questions; None where nothing was counted.
        seconds: time it took, the vision tower included; None in a run, which may have been interrupted.
    """

    table: pd.DataFrame
    also: dict[str, pd.DataFrame]
    skipped: tuple[Skip, ...]
    n_asked: int
    cost: Cost | None = None
    seconds: float | None = None

    @property
    def reasons(self) -> str:
        """Why questions were left out, each reason once."""
        return "; ".join(dict.fromkeys(sorted(skip.reason for skip in self.skipped)))

    def check_left(self, samples: str | None = None, *, hint: str = "") -> None:
        """Raises:
        VideolensError: no question is left.
        """
        if not len(self.table):
            chosen = "" if samples is None else f" with samples={samples!r}"
            raise VideolensError(f"none of the {self.n_asked} questions is left{chosen}: {self.reasons}{hint}")


class Named(NamedTuple):
    """A question whose turn it is: its id and task, and its prompt (what exactly is the experiment's choice)."""

    name: str
    task: str
    prompt: Any


class Experiment(ABC, Generic[R]):
    """What is done with one question, and what is made of all of them.

    Rows of different questions do not depend on one another: tables made from parts of the questions, put together in
    the questions' order, are the table made from all.

    Attributes:
        name: "flow", "pathway", …: what a config calls it.
        row: the `NamedTuple` whose fields are the table's columns; the first two are "question" and "task".
        also: the same for other tables; `{"clips": Frame}` asks the loop for pictures of the frames.
        picture_size: pixels of a picture's longer side, at most.
        dtypes: of columns that pandas cannot tell by itself, such as "boolean" where values may be missing.
        unnamed: what is asked without an id is named by this and a number.
        pictures: of how many questions, the first ones, pictures are kept.
        model: what is asked.
    """

    name: ClassVar[str]
    row: ClassVar[Any]
    also: ClassVar[Mapping[str, Any]] = {}
    picture_size: ClassVar[int] = LONGEST
    dtypes: ClassVar[Mapping[str, str]] = {}
    unnamed: ClassVar[str] = "prompt"
    pictures: int = 4
    model: HookedVideoTransformer

    @abstractmethod
    def ask(self, prompt: Any, name: str, task: str, tick: Tick) -> Asked:
        """Ask one question, a single prompt."""

    def foresee(self, prompt: Any, machine: Machine) -> Foreseen | None:
        """What asking one question will cost at most, before anything runs; None: that is not known beforehand.

        Args:
            prompt: what `ask` takes; it may be one without numbers (`prompt_shape`).
            machine: where it will run.
        """
        return None

    @abstractmethod
    def result(self, gathered: Gathered) -> R:
        """The result, from what all questions gave.

        Raises:
            VideolensError: no row is left.
        """

    def prompts(self, item: Any) -> Iterator[Prompt | Any]:
        """What is asked one after the other: the prompt of a question, or the single prompts of a batch.

        Raises:
            VideolensError: something else than questions and prompts.
        """
        if not isinstance(item, (Question, Prompt)):
            raise VideolensError(f"what is asked are Questions or Prompts, got {item!r}")
        yield from self.model.prompt(item) if isinstance(item, Question) else item

    def ask_each(self, named: Iterable[Named], tick: Tick) -> Iterator[Asked]:
        """Ask one question after the other. An experiment that asks several side by side has its own way."""
        pictured = 0
        for one in named:
            asked = ask_one(self, one, tick, pictured=pictured)
            pictured += bool(asked.also.get("clips"))
            yield asked

    def questions_in(self, table: pd.DataFrame) -> int:
        """How many questions have rows in one of this experiment's tables."""
        return len(table[["task", "question"]].drop_duplicates())

    def clips_of(self, prompt: Any, name: str, task: str) -> list[Row]:
        """Rows of the table "clips": what the model was shown."""
        settings = self.model.pixel_settings
        return [Frame(name, task, *each) for each in thumbnails(prompt, settings, longest=self.picture_size)]


def ask_one(experiment: Experiment[Any], one: Named, tick: Tick, *, pictured: int) -> Asked:
    """Ask one question, and add its frames where the experiment keeps pictures and fewer questions have theirs yet."""
    asked = experiment.ask(one.prompt, one.name, one.task, tick)
    if "clips" in experiment.also and asked.rows and pictured < experiment.pictures:
        clips = experiment.clips_of(one.prompt, one.name, one.task)
        return replace(asked, also={**asked.also, "clips": clips})
    return asked


SAMPLES = ("correct", "wrong", "all")
"""Which questions an experiment keeps: those that the model answers rightly, wrongly, or all."""


def check_samples(samples: str) -> None:
    """Raises:
    VideolensError: no such choice of samples.
    """
    if samples not in SAMPLES:
        raise VideolensError(near(samples, SAMPLES, kind="choice of samples"))
