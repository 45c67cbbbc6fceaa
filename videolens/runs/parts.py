"""A part of a run: what one experiment found for a few questions, as one Parquet file that says what it is."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from videolens.errors import VideolensError
from videolens.experiments.common.asking import Experiment, Skip, tabulated
from videolens.runs.writing import write_atomic

__all__ = ["Chunk", "DamagedPartError", "Failure", "Part", "joined", "read_part", "write_part"]

_KEY = b"videolens"


class DamagedPartError(VideolensError):
    """A part that cannot be read: truncated, or overwritten with something else."""


@dataclass(frozen=True)
class Chunk:
    """The identity of a part.

    Attributes:
        run: digest of the run's identity: config, versions, model, questions.
        label: of the experiment in the run.
        index: counted from 0 within the experiment.
        questions: (task, id) of each, in the order in which they are asked.
    """

    run: str
    label: str
    index: int
    questions: tuple[tuple[str, str], ...]

    def plain(self) -> dict[str, Any]:
        """As it is stored."""
        return asdict(self) | {"questions": [list(each) for each in self.questions]}


@dataclass(frozen=True)
class Failure:
    """A question that could not be asked, and the error that said so."""

    question: str
    task: str
    error: str
    message: str


@dataclass(frozen=True, eq=False)
class Part:
    """What asking a chunk gave.

    Attributes:
        table: rows of the questions that were asked.
        skipped: what the experiment left out.
        failures: questions that could not be asked.
    """

    table: pd.DataFrame
    skipped: tuple[Skip, ...]
    failures: tuple[Failure, ...]


def write_part(path: Path, chunk: Chunk, part: Part) -> None:
    """Write a part whole or not at all. The same part is the same bytes: nothing in it says when it was made."""
    about = {
        "format": 1,
        "chunk": chunk.plain(),
        "skipped": [asdict(skip) for skip in part.skipped],
        "failures": [asdict(failure) for failure in part.failures],
    }
    table = pa.Table.from_pandas(part.table, preserve_index=False)
    spelled = json.dumps(about, ensure_ascii=False).encode()
    table = table.replace_schema_metadata({**(table.schema.metadata or {}), _KEY: spelled})
    content = BytesIO()
    pq.write_table(table, content, write_page_checksum=True)
    write_atomic(path, content.getvalue())


def read_part(path: Path, chunk: Chunk) -> Part:
    """Read a part back, which must be the one expected.

    Raises:
        DamagedPartError: it is no Parquet file, is truncated, or a checksum in it does not hold.
        VideolensError: it is whole, but another part, or no part of a run.
    """
    try:
        table = pq.read_table(path, page_checksum_verification=True)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DamagedPartError(f"{path} cannot be read as Parquet ({' '.join(str(error).split())})") from error
    try:
        about = json.loads((table.schema.metadata or {})[_KEY])
        found, skipped, failures = about["chunk"], about["skipped"], about["failures"]
    except (KeyError, TypeError, ValueError):
        raise VideolensError(f"{path} is a Parquet file, but no part of a run: take it out of the directory") from None
    for name, expected in chunk.plain().items():
        if found.get(name) != expected:
            raise VideolensError(
                f"{path} is a part of something else: its {name} is {found.get(name)!r}, expected {expected!r}; take "
                "it out of the directory, and the run makes its own"
            )
    return Part(
        table.replace_schema_metadata(_without_own(table)).to_pandas(),
        tuple(Skip(**skip) for skip in skipped),
        tuple(Failure(**failure) for failure in failures),
    )


def joined(experiment: Experiment[Any], parts: Sequence[Part]) -> pd.DataFrame:
    """The table of all parts, as it would be if all questions had been asked in one go."""
    tables = [part.table for part in parts if len(part.table)]
    if tables and all(table.dtypes.equals(tables[0].dtypes) for table in tables):
        return pd.concat(tables, ignore_index=True)
    # a column that is empty in one part has another dtype there: let pandas look at all values at once
    rows = [row for table in tables for row in table.itertuples(index=False, name=None)]
    return tabulated(experiment, rows)


def _without_own(table: pa.Table) -> dict[bytes, bytes]:
    return {key: value for key, value in (table.schema.metadata or {}).items() if key != _KEY}
