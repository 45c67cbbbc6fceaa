"""A benchmark's listing, a JSON file of questions: its fields are checked, and a mistake is named where it stands."""

from __future__ import annotations

import os
import re
import string
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from videolens.errors import DatasetError, VideolensError, check_text
from videolens.question import repeated
from videolens.reading import json_kind, parse_json, read_table, read_text

_ADDRESS = re.compile(
    r"([a-z]|file|concatf?|subfile.*|crypto|cache|async|data|pipe|fd|https?|s?ftp|ftps|rtm?ps?|rtsp|tls|tcp|udp|unix):",
    re.IGNORECASE,
)
"""How names begin that FFmpeg takes for more than a name, or Windows for a drive."""
_LONGEST_S = 1e9  # thirty years; a whole number in JSON may be too large for a float


@dataclass(frozen=True)
class Record:
    """One entry of a listing. What reads a field raises a `DatasetError` that names it where it is not as it should be.

    Attributes:
        listing: the file.
        key: the entry's place in a list, counted from 0, or its name in an object.
        fields: what it says.
    """

    listing: Path
    key: int | str
    fields: Mapping[str, Any]

    def error(self, field: str, what: str) -> DatasetError:
        """The error for a field: which file, which entry, which field, and what is the matter."""
        return DatasetError(f"{self.listing}, entry {self.key!r}, field {field!r}: {what}")

    def text(self, field: str) -> str:
        """A field that is text and not blank."""
        value = self.fields[field]
        if not isinstance(value, str) or not value.strip():
            raise self.error(field, f"{value!r} is {'blank' if isinstance(value, str) else 'no text'}: write words")
        return value

    def file(self, field: str) -> str:
        """A field that can be the name of a file, or a path below a folder: not out of it, and no address."""
        value = self.text(field)
        try:
            longest = max(len(os.fsencode(part)) for part in value.split("/"))
        except UnicodeEncodeError:
            longest = 256
        if longest > 255 or "\0" in value:
            raise self.error(field, f"no file can be called {value[:40]!r}: give its name, at most 255 bytes long")
        if value.startswith(("/", "~")) or ".." in value.split("/") or _ADDRESS.match(value):
            raise self.error(
                field, f"{value[:80]!r} leads out of the data set: give a name, or a path below its folder"
            )
        return value

    def text_or_none(self, field: str) -> str | None:
        """A field that is text, or not there, or null."""
        return None if self.fields.get(field) is None else self.text(field)

    def options(self, field: str) -> list[str]:
        """A field that lists what to choose from: at least one text, at most one for each letter, each once."""
        value = self.fields[field]
        if not isinstance(value, list):
            raise self.error(field, f"{value!r} is no list: list the options, each as text without its letter")
        if not value:
            raise self.error(field, "the list is empty, but the question is multiple choice: list its options")
        if len(value) > 26:
            raise self.error(field, f"{len(value)} options: letters reach from A to Z, so list at most 26")
        for option in value:
            if not isinstance(option, str) or not option.strip():
                raise self.error(field, f"the option {option!r} is no words: write each as text, in quotes")
        if twice := repeated(value):
            raise self.error(field, f"two options read {twice[0]!r}, so no letter stands for it: change one")
        return list(value)

    def one_of(self, field: str, options: Sequence[str]) -> str:
        """A field that is one of the options, word for word."""
        value = self.text(field)
        if value not in options:
            raise self.error(
                field,
                f"{value!r} is not among the options {list(options)}: give exactly one of them, word for word and "
                "without its letter",
            )
        return value

    def letter(self, field: str, options: Sequence[str]) -> str:
        """The option whose letter a field gives, the first being A."""
        value = self.text(field).strip()
        letters = string.ascii_uppercase[: len(options)]
        if len(value) != 1 or value not in letters:
            raise self.error(
                field, f"{value!r:.40} is the letter of none of the {len(options)} options: give one of {letters}"
            )
        return options[letters.index(value)]

    def lettered(self, field: str, lines: Sequence[str]) -> list[str]:
        """Options out of lines that begin with their letters, "A. left", without them; `field` is named in errors."""
        found = []
        for letter, line in zip(string.ascii_uppercase, lines, strict=False):
            if not line.startswith((f"{letter}.", f"{letter})")) or not line[2:].strip():
                raise self.error(field, f"the option {line!r:.80} does not begin with its letter: write '{letter}. …'")
            found.append(line[2:].strip())
        return Record(self.listing, self.key, {field: found + list(lines[26:])}).options(field)

    def place(self, field: str, options: Sequence[str]) -> str:
        """The option whose place among them, counted from 0, a field gives."""
        value = self.fields[field]
        if not isinstance(value, int) or isinstance(value, bool):
            raise self.error(field, f"{value!r} is no whole number: give the right option's place, counted from 0")
        if not 0 <= value < len(options):
            raise self.error(
                field,
                f"{value} is the place of none of the {len(options)} options: give one from 0 to {len(options) - 1}",
            )
        return options[value]

    def part(self) -> tuple[float | int | None, float | int | None]:
        """The fields start and end, in seconds from 0 on; None where the entry does not say."""
        for field in ("start", "end"):
            value = self.fields.get(field)
            if value is None:
                continue
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not number or not 0 <= value <= _LONGEST_S:  # NaN is not
                raise self.error(field, f"{value!r} is no time: give seconds from 0 on, as a number")
        start, end = self.fields.get("start"), self.fields.get("end")
        if end is not None and (start or 0) >= end:
            raise self.error("start", f"{start or 0} s is not before its end, {end} s: exchange them?")
        return start, end

    def but(self, *used: str) -> dict[str, Any]:
        """What the entry says besides."""
        return {field: value for field, value in self.fields.items() if field not in used}


def read_listing(path: Path, *, keyed: bool, required: Sequence[str], benchmark: str) -> list[Record]:
    """The entries of a listing, each with the fields it must have.

    Args:
        path: the JSON file.
        keyed: the entries are the values of one object (as TOMATO has it); else they are a list (TVBench, MVBench).
        required: fields that each must have.
        benchmark: whose layout it is, for messages.

    Raises:
        DatasetError: the file cannot be read, is not JSON (line and column are said), is no list or no object, has no
            entries, or an entry lacks a field.
    """
    try:
        content = parse_json(read_text(path), where=str(path), finite=False, halves=True)
    except VideolensError as error:
        raise DatasetError(str(error)) from error
    wanted, name = (dict, "an object of questions by their keys") if keyed else (list, "a list of questions")
    if not isinstance(content, wanted):
        raise DatasetError(f"{path} holds {json_kind(content)}, not {name} as {benchmark}'s files do")
    return checked_records(
        path, content.items() if isinstance(content, dict) else enumerate(content), required, benchmark
    )


def read_columns(path: Path, *, required: Sequence[str], benchmark: str) -> list[Record]:
    """The entries of a listing that is a Parquet table, a row each, called by their place from 0.

    Raises:
        DatasetError: the file cannot be read as Parquet, lacks a column, or has no rows.
    """
    try:
        table = read_table(path)
    except VideolensError as error:
        raise DatasetError(str(error)) from error
    if lacking := [field for field in required if field not in table.column_names]:
        raise DatasetError(
            f"{path} has no column {', '.join(lacking)}, only {', '.join(table.column_names) or 'none'}; "
            f"{benchmark}'s are {', '.join(required)}"
        )
    return checked_records(path, enumerate(table.to_pylist()), required, benchmark)


def checked_records(
    path: Path, entries: Iterable[tuple[int | str, object]], required: Sequence[str], benchmark: str
) -> list[Record]:
    """Entries by their keys as records, each with the fields it must have; errors as in `read_listing`."""
    records = []
    for key, fields in entries:
        check_text(f"{path}: the key", str(key), error=DatasetError)
        if not isinstance(fields, dict):
            raise DatasetError(
                f"{path}, entry {key!r} is {json_kind(fields)}, not an object with {', '.join(required)}"
            )
        lacking = [field for field in required if field not in fields]
        if lacking:
            raise DatasetError(
                f"{path}, entry {key!r}: no {', '.join(lacking)}; {benchmark}'s fields are {', '.join(required)}"
            )
        records.append(Record(path, key, fields))
    if not records:
        raise DatasetError(f"{path} holds no questions: take the file away, or write some")
    return records
