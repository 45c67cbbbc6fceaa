"""The answers that a search has had, and their cost, in a file: the same search, asked again, goes on where it was."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from videolens.errors import VideolensError
from videolens.experiments.search.judging import Judge
from videolens.experiments.search.keeping import Effort, Keeping
from videolens.interventions.partition import Unit
from videolens.reading import parse_json, read_text


class Answers:
    """Whether tests were passed, by what was tested. A search is the same each time, so that this is all it needs.

    Args:
        path: the file, one answer a line; None: nothing is kept.
        judge: who is asked: answers of another model or of other questions are not read.

    Raises:
        VideolensError: the file is of another search, or cannot be read.
    """

    def __init__(self, path: Path | None, judge: Judge, slack: float) -> None:
        margins = [round(value, 3) for value in judge.full.tolist()]
        self._path, self._known, self._before = path, dict[str, bool](), dict[str, Effort]()
        self._of = _digest([margins, slack])
        if path is not None and path.exists():
            self._read(path)

    def of(self, keeping: Keeping, units: Collection[Unit], pathway: Any, most_lost: int) -> bool:
        """What the test says of a pathway with these units closed; it is asked once. What an answer of the file has
        cost counts when it is needed."""
        key = _digest([[list(unit) for unit in sorted(units, key=str)], most_lost])
        if key not in self._known:
            before = keeping.effort
            self._known[key] = keeping.test(pathway, most_lost)
            self._write(key, keeping.effort - before)
        if key in self._before:
            keeping.effort += self._before.pop(key)
        return self._known[key]

    def _write(self, key: str, cost: Effort) -> None:
        if self._path is None:
            return
        line = {"of": self._of, "test": key, "passed": self._known[key], "asked": cost.asked, "cost": cost.operations}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def _read(self, path: Path) -> None:
        lines = read_text(path).splitlines()
        for i, line in enumerate(lines):
            try:
                said = parse_json(line, where=f"{path}, line {i + 1},")
                of, test, passed = said["of"], said["test"], said["passed"]
                cost = Effort(1, int(said["asked"]), float(said["cost"]))
            except (VideolensError, KeyError, TypeError, ValueError) as error:
                if i == len(lines) - 1:  # written halfway: it is asked again
                    return
                raise VideolensError(f"{path}, line {i + 1}, holds no answer of a search: take it away") from error
            if of != self._of:
                raise VideolensError(
                    f"{path} holds the answers of another search (other questions, another model or slack): give "
                    "another file"
                )
            self._known[test], self._before[test] = passed is True, cost


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:24]
