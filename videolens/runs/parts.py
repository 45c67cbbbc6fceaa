"""A part of a run: what one experiment found for a few questions, as one file that says what it is, and is whole."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from videolens.errors import VideolensError, refusing, utf8
from videolens.experiments.common.asking import tabulated
from videolens.experiments.common.experiment import Cost, Experiment, Gathered, Skip
from videolens.reading import parse_json
from videolens.runs.writing import write_atomic

FORMAT = 2
"""Of parts, and of the file that says what a run is. Parts of format 1 held no pictures and no costs."""

_KEY = b"videolens"
_DIGEST = 32  # bytes of a SHA-256
_TABLE, _ALSO, _ABOUT = "table", "also ", "about"  # what a part holds, by name; "also clips", …


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
        also: the experiment's other tables, by name.
        skipped: what the experiment left out.
        failures: questions that could not be asked.
        costs: of every question whose cost is counted, in their order.
        answered: how many questions have rows in the table.
        pictured: how many have pictures.
    """

    table: pd.DataFrame
    also: dict[str, pd.DataFrame]
    skipped: tuple[Skip, ...]
    failures: tuple[Failure, ...]
    costs: tuple[Cost, ...]
    answered: int
    pictured: int


def write_part(path: Path, chunk: Chunk, part: Part) -> None:
    """Write a part whole or not at all. The same part is the same bytes: nothing in it says when it was made.

    1. A Parquet table with one row for each thing in it, name and content; the content of a table is Parquet, too. The
       metadata say which chunk it is.
    2. Behind it the SHA-256 of all that, so that no bit of a part can change without being noticed: checksums of
       Parquet's own cover pages and leave out what says how to read them.
    """
    # 1.
    things = contents(part)
    fields = [pa.field("name", pa.string()), pa.field("content", pa.large_binary())]
    about = json.dumps({"format": FORMAT, "chunk": chunk.plain()}, ensure_ascii=False)
    table = pa.table([list(things), list(things.values())], schema=pa.schema(fields, {_KEY: utf8(about)}))
    written = BytesIO()
    pq.write_table(table, written, use_dictionary=False)
    # 2.
    write_atomic(path, written.getvalue() + sha256(written.getvalue()).digest())


def contents(part: Part) -> dict[str, bytes]:
    """The things in a part, by name, as they are written."""
    said: dict[str, Any] = {"answered": part.answered, "pictured": part.pictured}
    said |= {name: [asdict(each) for each in getattr(part, name)] for name in ("skipped", "failures", "costs")}
    things = {_ABOUT: utf8(json.dumps(said, ensure_ascii=False)), _TABLE: part.table.to_parquet(index=False)}
    return things | {_ALSO + name: table.to_parquet(index=False) for name, table in part.also.items()}


def read_part(path: Path, chunk: Chunk) -> Part:
    """Read a part back, which must be the one expected.

    Raises:
        DamagedPartError: it is not, to the bit, what `write_part` wrote.
        VideolensError: it is whole, but another part.
    """
    read = path.read_bytes()
    content, digest = read[:-_DIGEST], read[-_DIGEST:]
    if sha256(content).digest() != digest:
        raise DamagedPartError(f"{path} is damaged: the SHA-256 of its {len(read)} bytes is not the one it ends with")
    with refusing(DamagedPartError, f"{path} is whole, but no part of a run"):
        table = pq.read_table(BytesIO(content))
        found = dict(parse_json((table.schema.metadata or {})[_KEY], where=f"its {_KEY!r}")["chunk"])
        things = {each["name"]: each["content"] for each in table.to_pylist()}
        about = parse_json(things.pop(_ABOUT), where=f"its {_ABOUT!r}", finite=False, halves=True)
        tables = {name: pd.read_parquet(BytesIO(content)) for name, content in things.items()}
        part = Part(
            tables.pop(_TABLE),
            {name.removeprefix(_ALSO): each for name, each in tables.items()},
            tuple(Skip(**skip) for skip in about["skipped"]),
            tuple(Failure(**failure) for failure in about["failures"]),
            tuple(Cost(**cost) for cost in about["costs"]),
            about["answered"],
            about["pictured"],
        )
    for name, expected in chunk.plain().items():
        if found.get(name) != expected:
            raise VideolensError(
                f"{path} is a part of something else: its {name} is {found.get(name)!r}, expected {expected!r}; take "
                "it out of the directory, and the run makes its own"
            )
    return part


def joined(experiment: Experiment[Any], parts: Sequence[Part], n_asked: int) -> Gathered:
    """What all parts gave, as if all questions had been asked in one go; those that failed count as left out."""
    also = {
        name: _joined([part.also[name] for part in parts], partial(pd.DataFrame, columns=list(row._fields)))
        for name, row in experiment.also.items()
    }
    skipped = [skip for part in parts for skip in part.skipped]
    lost = [Skip(one.question, one.task, None, f"error: {one.message}") for part in parts for one in part.failures]
    return Gathered(
        table=_joined([part.table for part in parts], partial(tabulated, experiment)),
        also=also,
        skipped=(*skipped, *lost),
        n_asked=n_asked,
        cost=Cost.mean([cost for part in parts for cost in part.costs]),
    )


def _joined(tables: Sequence[pd.DataFrame], anew: Callable[[list[Any]], pd.DataFrame]) -> pd.DataFrame:
    filled = [table for table in tables if len(table)]
    if filled and all(table.dtypes.equals(filled[0].dtypes) for table in filled):
        return pd.concat(filled, ignore_index=True)
    # a column that is empty in one part has another dtype there: let pandas look at all values at once
    return anew([row for table in filled for row in table.itertuples(index=False, name=None)])
