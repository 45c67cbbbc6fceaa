"""What results have in common that are one table over questions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, ClassVar

import pandas as pd

from videolens.errors import SelectionError, near

__all__ = ["QuestionsTable"]


class QuestionsTable:
    """A table whose first two columns are "question" and "task", and the settings it was made with.

    A result that is one says in `_called` what it is ("flow map"), and in `_route` what its questions may have been
    left out of, besides altogether ("route", "condition", …; None: nothing).
    """

    table: pd.DataFrame
    settings: Any

    _called: ClassVar[str] = "result"
    _route: ClassVar[str | None] = None

    @property
    def tasks(self) -> list[str]:
        """Tasks, in the order in which they were asked."""
        return list(self.table["task"].unique())

    @property
    def n(self) -> int:
        """Questions in the table."""
        return len(self.table[["task", "question"]].drop_duplicates())

    def to_dataframe(self) -> pd.DataFrame:
        """A copy of the table."""
        return self.table.copy()

    def skipped(self) -> pd.DataFrame:
        """What was left out: task, what it was left out of ("all": the whole question), reason, and how many
        questions."""
        route = [] if self._route is None else [self._route]
        rows = [
            asdict(skip) | {name: skip.route or "all" for name in route}
            for skip in getattr(self.settings, "skipped", ())
        ]
        by = ["task", *route, "reason"]
        table = pd.DataFrame(rows, columns=["question", *by])
        return table.groupby(by, sort=False).size().reset_index(name="questions")

    def _known(self, kind: str, name: str, known: Sequence[str]) -> str:
        """The name; raises if this result does not have it."""
        if name not in known:
            raise SelectionError(near(name, known, kind=f"{kind} in this {self._called}"))
        return name
