"""The answers that a search has had, in a file: the same search, asked again, goes on where it was."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from videolens.errors import VideolensError
from videolens.experiments.search.judging import Judge
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
        self._path, self._known = path, dict[str, bool]()
        self._of = _digest([margins, slack])
        if path is not None and path.exists():
            self._read(path)

    def get(self, units: Iterable[Any], most_lost: int) -> bool | None:
        """What the test has answered before; None: it was not asked."""
        return self._known.get(self._key(units, most_lost))

    def put(self, units: Iterable[Any], most_lost: int, passed: bool) -> None:
        """Keep an answer."""
        key = self._key(units, most_lost)
        self._known[key] = passed
        if self._path is not None:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"of": self._of, "test": key, "passed": passed}) + "\n")

    def _key(self, units: Iterable[Any], most_lost: int) -> str:
        return _digest([sorted(map(list, units)), most_lost])

    def _read(self, path: Path) -> None:
        lines = read_text(path).splitlines()
        for i, line in enumerate(lines):
            try:
                said = parse_json(line, where=f"{path}, line {i + 1},")
                of, test, passed = said["of"], said["test"], said["passed"]
            except (VideolensError, KeyError, TypeError) as error:
                if i == len(lines) - 1:  # written halfway: it is asked again
                    return
                raise VideolensError(f"{path}, line {i + 1}, holds no answer of a search: take it away") from error
            if of != self._of:
                raise VideolensError(
                    f"{path} holds the answers of another search (other questions, another model or slack): give "
                    "another file"
                )
            self._known[test] = passed is True


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:24]
