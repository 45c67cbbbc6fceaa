"""What came out: a row for every question, how it was made, and what is computed from the rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import pandas as pd

from videolens.errors import VideolensError
from videolens.experiments.common.provenance import Made
from videolens.experiments.common.result import Result
from videolens.experiments.common.statistics import Interval, bootstrap_mean


class ToyRow(NamedTuple):
    """A question: a row of the table. `choice`: the likeliest option's token; `entropy`: in bits."""

    question: str
    task: str
    choice: str
    entropy: float


@dataclass(frozen=True, eq=False)
class Toy(Result):
    """How undecided a model is about every question: `table` has a `ToyRow` for each, `settings` say how it was made.

    Raises:
        VideolensError: the table contradicts itself.
    """

    table: pd.DataFrame
    settings: Made

    _called: ClassVar[str] = "measurement of entropy"
    _files: ClassVar[dict[str, str]] = {"table": "toy.parquet", "settings": "toy.json"}
    _tables: ClassVar[dict[str, Any]] = {"table": ToyRow}

    def check(self) -> None:
        """Every question is there once, with an entropy that can be."""
        if self.table.duplicated(["task", "question"]).any():
            raise VideolensError("a question is there twice: ids must be unique within a task")
        if not (self.table["entropy"] > -1e-6).all():
            raise VideolensError("an entropy is negative or NaN: the logits were not finite")

    def mean(self, task: str | None = None) -> Interval:
        """Mean entropy with its 95 % bootstrap interval. `task` None: all tasks.

        Raises:
            SelectionError: the task is not in this result.
        """
        rows = self.table if task is None else self.table[self.table["task"] == self._known("task", task, self.tasks)]
        return bootstrap_mean(rows["entropy"].to_numpy(), seed=self.settings.seed)

    def __repr__(self) -> str:
        return f"Toy({self.settings.model!r}, mean entropy in bits {self.mean()})"
