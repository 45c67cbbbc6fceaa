"""Where results go: a table as Parquet and what belongs to it as JSON, in a directory, never overwritten unasked."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from videolens.errors import VideolensError
from videolens.experiments.common.asking import Skip

__all__ = ["read_result", "settings_from", "write_result"]

S = TypeVar("S")


def write_result(path: str | Path, files: Mapping[str, Any], *, what: str, overwrite: bool) -> Path:
    """Write files into a directory, by name: data frames as Parquet, anything else as JSON.

    Returns:
        The directory.

    Raises:
        VideolensError: one of them is there already, and `overwrite` is False.
    """
    path = Path(path)
    if not overwrite and any((path / name).exists() for name in files):
        raise VideolensError(f"{path} already holds {what}: choose another directory, or pass overwrite=True")
    path.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        if isinstance(content, pd.DataFrame):
            content.to_parquet(path / name, index=False)
        else:
            (path / name).write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    return path


def read_result(path: str | Path, *names: str, what: str) -> list[Any]:
    """Read files back, in the order of their names: `*.parquet` as data frames, the rest as JSON.

    Raises:
        VideolensError: one is missing, or damaged.
    """
    path = Path(path)
    for name in names:
        if not (path / name).is_file():
            raise VideolensError(f"{path} holds no {what}: {name} is missing; give the directory `save` wrote to")
    return [_read(path / name, what) for name in names]


def _read(file: Path, what: str) -> Any:
    try:
        return pd.read_parquet(file) if file.suffix == ".parquet" else json.loads(file.read_text())
    except (OSError, ValueError) as error:  # pyarrow's errors are among them
        raise VideolensError(f"{file} is damaged, so there are no {what} to read from it ({error})") from error


def settings_from(kind: type[S], read: Any, file: Path, *, what: str, tuples: Sequence[str] = ()) -> S:
    """Settings from what was read back: lists where it has tuples, and other fields, are JSON's and a damaged file's.

    Args:
        kind: the settings' class.
        read: the fields, by name.
        file: where they were read.
        what: they are the settings of: "flow map".
        tuples: fields that are tuples. `skipped` is one of `Skip`s.

    Raises:
        VideolensError: fields are missing, or there are others.
    """
    try:
        fields = dict(read) | {name: tuple(read[name]) for name in tuples}
        if "skipped" in fields:
            fields["skipped"] = tuple(Skip(**skip) for skip in fields["skipped"])
        return kind(**fields)
    except (TypeError, KeyError) as error:
        raise VideolensError(f"{file} does not hold the settings of a {what} ({error!r})") from error
