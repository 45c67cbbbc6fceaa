"""What all results have in common: they check themselves, and know how to be saved, loaded, drawn and described.

A result is a frozen dataclass below `Result`: tables, and the settings it was made with. Its folder has `figure.py`
beside it, whose `draw` draws it; nothing in a result imports what draws.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields, is_dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, get_args, get_type_hints

import numpy as np
import pandas as pd
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from videolens.errors import SelectionError, VideolensError, check_whole, near, utf8, validation_text
from videolens.experiments.common.experiment import Skip, check_samples
from videolens.notebook import Shown
from videolens.reading import as_path, parse_json, read_table, read_text

if TYPE_CHECKING:
    from typing import Self

    from matplotlib.figure import Figure

_LARGEST_TABLE = 2**32
_MOST_LAYERS = 10_000
_LAZY = int(pd.__version__.split(".")[0]) >= 3  # copies on write


class Drawn:
    """What knows how it is drawn. `_called`: what it is, in messages. `_drawn_by`: the module beside its own whose
    `draw` makes its figures."""

    _called: ClassVar[str] = "result"
    _drawn_by: ClassVar[str] = "figure"

    def figure(self, kind: str | None = None, **options: Any) -> Figure:
        """Draw it.

        Args:
            kind: which figure, where there are several; None: the first.
            options: of `draw` in the module `figure` beside the result's own, which lists kinds and options.

        Raises:
            SelectionError: an unknown kind, or a task and the like that is not in this result.
            VideolensError: an option that its figures do not have.
        """
        draw = import_module(f"{type(self).__module__.rpartition('.')[0]}.{self._drawn_by}").draw
        given = [self] if kind is None else [self, kind]
        try:
            inspect.signature(draw).bind(*given, **options)
        except TypeError as error:
            known = [name for name in inspect.signature(draw).parameters][1:]
            asked = [*([repr(kind)] if kind is not None else []), *options]
            raise VideolensError(
                f"the figure of a {self._called} cannot be drawn with {', '.join(asked)} ({error}); its options: "
                f"{', '.join(known) or 'none'}"
            ) from None
        return _as_it_stands(draw, given, options)


def _as_it_stands(draw: Callable[..., Figure], given: Sequence[Any], options: Mapping[str, Any]) -> Figure:
    """What `draw` gives, with every text as it stands: `$…$` in a question or a name is no formula.

    A text keeps how it is read from when it is made, so those of ticks, which are made late, are made here. Texts that
    wrap are measured as formulas whatever they are told (matplotlib 3.10), so there dollars are escaped.
    """
    from matplotlib import rc_context
    from matplotlib.text import Text

    with rc_context({"text.parse_math": False}):
        figure = draw(*given, **options)
        for axes in figure.axes:
            for axis in (axes.xaxis, axes.yaxis):
                axis.get_ticklabels()
    for text in figure.findobj(Text):
        if isinstance(text, Text) and text.get_wrap():
            text.set_parse_math(True)
            text.set_text(text.get_text().replace("$", r"\$"))
    return figure


class Result(Shown, Drawn):
    """Base of all results. Most are one table over questions, whose first two columns are "question" and "task".

    What it hands out, tables and numbers, are copies: changing them leaves the result as it is. (pandas copies a table
    when it is changed, not before.)

    A result says of itself:

    - `_files`: the file that each of its fields is saved in: `*.parquet` a table, `*.json` settings.
    - `_tables`: the `NamedTuple` whose fields are the columns of a table, by field.
    - `_route`: the column that says what a question may have been left out of, besides altogether ("route",
      "condition", …; None: nothing).

    Raises:
        VideolensError: its parts contradict themselves or each other.
    """

    table: pd.DataFrame
    settings: Any

    _files: ClassVar[Mapping[str, str]] = {}
    _tables: ClassVar[Mapping[str, Any]] = {}
    _route: ClassVar[str | None] = None

    def __getattribute__(self, name: str) -> Any:
        value = super().__getattribute__(name)
        if isinstance(value, (pd.DataFrame, np.ndarray, Tensor)):
            return _copied(value)
        return value

    # -- checks --------------------------------------------------------------------------------------------------------

    def __post_init__(self) -> None:
        for each in fields(self):  # type: ignore[arg-type]  # a copy: who gave a table may go on to change it
            object.__setattr__(self, each.name, getattr(self, each.name))
        settings = getattr(self, "settings", None)
        check_whole("n_layers", getattr(settings, "n_layers", 1), least=1, most=_MOST_LAYERS)
        check_whole("seed", getattr(settings, "seed", 0))
        check_samples(getattr(settings, "samples", "all"))
        for name, row in self._tables.items():
            table = getattr(self, name)
            if tuple(table.columns) != row._fields:
                missing = [column for column in row._fields if column not in table.columns]
                raise VideolensError(
                    f"the {name} of a {self._called} has the columns {list(row._fields)}, got {list(table.columns)}"
                    + (f": {missing} are missing; one of an older version has to be made anew" if missing else "")
                )
            if len(table) == 0 and name != "clips":  # a prompt may have come without its video
                raise VideolensError(f"the {name} of a {self._called} has no row: ask at least one question")
        self.check()

    def check(self) -> None:
        """Hold the parts against each other; columns and emptiness are checked already.

        Raises:
            VideolensError: they contradict each other.
        """

    # -- what is in it -------------------------------------------------------------------------------------------------

    @property
    def tasks(self) -> list[str]:
        """Tasks, in the order in which they were asked."""
        return list(self._tasks)

    @cached_property
    def _tasks(self) -> tuple[str, ...]:
        return tuple(self.table["task"].unique())

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
        return skipped_table(self.settings.skipped, self._route)

    def _known(self, kind: str, name: str, known: Sequence[str]) -> str:
        """The name; raises if this result does not have it."""
        if name not in known:
            raise SelectionError(near(name, known, kind=f"{kind} in this {self._called}"))
        return name

    # -- files ---------------------------------------------------------------------------------------------------------

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write its files into a directory.

        Returns:
            The directory.

        Raises:
            VideolensError: one of them is there already, and `overwrite` is False.
        """
        path, files = as_path(path, "the directory"), self._contents()
        if not overwrite and any((path / name).exists() for name in files):
            raise VideolensError(
                f"{path} already holds a {self._called}: choose another directory, or pass overwrite=True"
            )
        path.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            if isinstance(content, pd.DataFrame):
                content.to_parquet(path / name, index=False)
            else:
                (path / name).write_bytes(utf8(json.dumps(content, indent=2, ensure_ascii=False) + "\n"))
        return path

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what `save` wrote.

        Raises:
            VideolensError: the directory holds no such result, or one that is damaged or contradicts itself.
        """
        path = as_path(path, "the directory")
        read = {}
        for field, name in cls._files.items():
            file = path / name
            if not file.is_file():
                raise VideolensError(
                    f"{path} holds no {cls._called}: {name} is missing; give the directory that `save` wrote to"
                )
            read[field] = _table(file, cls._called) if file.suffix == ".parquet" else _text(file, cls._called)
        try:
            return cls._from_contents(read)
        except ValidationError as error:
            settings = path / next(name for name in cls._files.values() if name.endswith(".json"))
            known = {each.name for each in fields(cls._settings_class())}
            raise VideolensError(
                f"{settings} does not hold the settings of a {cls._called}: {validation_text(error, known)}"
            ) from error
        except VideolensError:
            raise
        except Exception as error:  # whatever a table with other content than was saved makes the checks raise
            raise VideolensError(
                f"{path} holds a {cls._called} that is damaged ({type(error).__name__}: {error}): make it anew"
            ) from error

    def _contents(self) -> dict[str, Any]:
        """What is written, by file: tables, and plain data for JSON."""
        return {
            name: value if isinstance(value := getattr(self, field), pd.DataFrame) else _plain(value)
            for field, name in self._files.items()
        }

    @classmethod
    def _from_contents(cls, read: dict[str, Any]) -> Self:
        """The result from what was read: tables, and the text of JSON files, by field."""
        hints = get_type_hints(cls)
        for field, value in read.items():
            if isinstance(value, str):
                read[field] = TypeAdapter(hints[field]).validate_json(value, strict=True)
        return cls(**read)

    @classmethod
    def _settings_class(cls) -> type[Any]:
        """Whose fields stand in the file of settings: their class, or its own where it has no settings."""
        hint = get_type_hints(cls)["settings"]
        one: Any = (*get_args(hint), hint)[0]  # of several, as of one
        return one if isinstance(one, type) and is_dataclass(one) else cls


def _copied(value: Any) -> Any:
    if isinstance(value, pd.DataFrame):
        return value.copy(deep=not _LAZY)
    return value.clone() if isinstance(value, Tensor) else value.copy()


def skipped_table(left: Sequence[Skip], route: str | None) -> pd.DataFrame:
    """How many questions were left out, by task, by what they were left out of (the column `route`), and reason."""
    columns = [] if route is None else [route]
    rows = [asdict(skip) | {name: skip.route or "all" for name in columns} for skip in left]
    by = ["task", *columns, "reason"]
    table = pd.DataFrame(rows, columns=["question", *by])
    return table.groupby(by, sort=False).size().reset_index(name="questions")


def _plain(settings: Any) -> Any:
    """Settings as plain data."""
    return [asdict(each) for each in settings] if isinstance(settings, tuple) else asdict(settings)


def _table(file: Path, called: str) -> pd.DataFrame:
    try:
        read_table(file, most=_LARGEST_TABLE)
        return pd.read_parquet(file)
    except Exception as error:
        raise VideolensError(f"{file} is damaged, so no {called} can be read from it ({error})") from error


def _text(file: Path, called: str) -> str:
    try:
        text = read_text(file)
        parse_json(text, where="it", finite=False, halves=True)
    except VideolensError as error:
        raise VideolensError(f"{file} is damaged, so no {called} can be read from it ({error})") from error
    return text
