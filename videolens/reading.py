"""Files from outside, read strictly before anything is made of them: JSON, YAML, text.

One reader for all of them. What it gives is plain data of known kinds and bounded size: what goes on with it need not
fear nesting without end, aliases that unfold to millions, infinite numbers, or text that cannot be written again.
"""

from __future__ import annotations

import json
import math
import os
import stat
from collections import Counter
from collections.abc import Iterator, Mapping
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from videolens.errors import VideolensError, validation_text

if TYPE_CHECKING:
    import pyarrow as pa

_MOST_BYTES = 256 * 2**20  # listings of a million questions, and tokenizers of every language
MOST_YAML = 256 * 2**10  # written by hand; reading it takes seconds a megabyte
_MOST_NODES = 20_000
_DEEPEST = 64
_KINDS = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
_MALFORMED = (ValueError, TypeError, KeyError, IndexError, AttributeError, ArithmeticError, RecursionError)
"""What parsers raise at input that they were not made for. `UnicodeError` is a `ValueError`."""


def as_path(value: object, what: str, error: type[VideolensError] = VideolensError) -> Path:
    """A path that was given; an error of ours for what is none, or what no file can be called."""
    if not isinstance(value, (str, PathLike)):
        raise error(f"{what} is {value!r:.80}: give a path, as text")
    try:
        path = Path(value)
        if b"\0" in os.fsencode(path):
            raise ValueError("it holds a zero byte")
        path.expanduser().is_dir()
    except (OSError, ValueError, TypeError, RuntimeError) as cause:  # of no user, too long, with a zero byte, of bytes
        raise error(f"{what} is {str(value)[:80]!r}, and nothing can be called so ({cause}): give a path") from cause
    return path


def read_text(path: Path, *, most: int = _MOST_BYTES) -> str:
    """The text of a file.

    Raises:
        VideolensError: it is not there, no file that ends (a folder, a pipe, a device), too large, or no UTF-8.
    """
    try:
        about = path.stat()
        if not stat.S_ISREG(about.st_mode):
            raise VideolensError(f"{path} is no file that can be read to its end: give a file")
        if about.st_size > most:
            raise VideolensError(f"{path} has {about.st_size} bytes, and at most {most} are read: it is something else")
        return path.read_text(encoding="utf-8-sig")
    except VideolensError:
        raise
    except FileNotFoundError as error:
        link = ", which the link leads to" if path.is_symlink() else ""
        raise VideolensError(f"{path} cannot be read (No such file or directory{link}): check the path") from error
    except (OSError, ValueError) as error:
        raise VideolensError(f"{path} cannot be read ({error}): give a file of text in UTF-8") from error


def read_json(path: Path, *, kind: type = dict, finite: bool = True, halves: bool = False) -> Any:
    """The content of a JSON file: an object, or a list.

    Args:
        path: the file.
        kind: of the whole, `dict` or `list`.
        finite: refuse NaN and Infinity, which are no JSON, but which Python writes.
        halves: let half characters stand, which JSON can spell: what holds one is refused where it is used.

    Raises:
        VideolensError: as `read_text` and `parse_json`, or it is of another kind.
    """
    found = parse_json(read_text(path), where=str(path), finite=finite, halves=halves)
    if not isinstance(found, kind):
        raise VideolensError(f"{path} holds {json_kind(found)}, expected {_KINDS[kind]}")
    return found


def json_kind(value: object) -> str:
    """What a value out of a JSON file is called."""
    return _KINDS.get(type(value), "a number")


def parse_json(text: str | bytes, *, where: str, finite: bool = True, halves: bool = False) -> Any:
    """What a JSON text says; `finite` and `halves` as in `read_json`.

    Raises:
        VideolensError: it is no JSON, has one key twice in an object, is nested too deeply, or holds a number that is
            not finite or half a character (a lone surrogate).
    """
    try:
        found = json.loads(text, object_pairs_hook=_without_repeats)
        _check_plain(found, finite=finite, halves=halves)
    except _MALFORMED as error:
        said = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise VideolensError(f"{where} is not JSON ({said}): download or write it anew, or mend it there") from error
    return found


def read_table(path: Path, *, most: int = _MOST_BYTES) -> pa.Table:
    """A Parquet file, every value of it looked at.

    Raises:
        VideolensError: it is not there, too large, or no whole Parquet file.
    """
    import pyarrow.parquet as pq

    try:
        if path.stat().st_size > most:
            raise VideolensError(f"{path} has {path.stat().st_size} bytes, and at most {most} are read")
        table = pq.read_table(path)
        table.validate(full=True)  # text is looked at only when it is used
        return table
    except VideolensError:
        raise
    except (Exception, MemoryError) as error:  # a size that is damaged asks for memory that nobody has
        raise VideolensError(f"{path} cannot be read as Parquet ({error}): download or write it anew") from error


def parse_yaml(text: str, *, where: str) -> Any:
    """What a YAML text says.

    1. Its events are counted, and how deeply they nest, before anything is made of them.
    2. Aliases may stand for parts of it, but not for themselves, and written out it must not be too long.
    3. Only then it is constructed. A key that is there twice is an error.

    Raises:
        VideolensError: it is no YAML, or beyond one of these bounds.
    """
    if len(text) > MOST_YAML:
        raise VideolensError(f"{where} has {len(text)} letters, and at most {MOST_YAML} are read: it is no config")
    try:
        # 1.
        depth = 0
        for n, event in enumerate(yaml.parse(text, _Strict)):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if n > 2 * _MOST_NODES or depth > _DEEPEST:
                raise VideolensError(
                    f"{where} is nested more than {_DEEPEST} deep, or has more than {_MOST_NODES} parts: it is no "
                    "config"
                )
        # 2.
        root = yaml.compose(text, _Strict)
        if root is not None and (size := _written_out(root, {}, where)) > _MOST_NODES:
            raise VideolensError(
                f"{where} would have {size:.3g} parts with its aliases written out, and at most {_MOST_NODES} are "
                "read: write out what is meant"
            )
        # 3.
        found = yaml.load(text, _Strict)
        _check_plain(found, finite=False)
    except VideolensError:
        raise
    except (yaml.YAMLError, *_MALFORMED) as error:
        raise VideolensError(f"{where} is not YAML: {' '.join(str(error).split())}: mend it there") from error
    return found


def read_plain(path: Path) -> Any:
    """The content of a file of plain data: JSON where its name ends so, else YAML.

    Raises:
        VideolensError: as `read_text`, `parse_json` and `parse_yaml`.
    """
    if path.suffix == ".json":
        return parse_json(read_text(path), where=str(path), finite=False)
    return parse_yaml(read_text(path, most=MOST_YAML), where=str(path))


class Fields(BaseModel):
    """Base of the fields of a file: of exactly their kinds, with others beside them that nothing here reads."""

    model_config = ConfigDict(extra="ignore", strict=True, allow_inf_nan=False)


Known = TypeVar("Known", bound=Fields)


def fields_from(kind: type[Known], given: Any, where: str) -> Known:
    """The fields of a file that something here reads, each of its kind.

    Args:
        kind: a model whose fields these are.
        given: the content of the file.
        where: the file, for messages.

    Raises:
        VideolensError: one is missing or of the wrong kind; names all of them with their values.
    """
    try:
        return kind.model_validate(dict(given) if isinstance(given, Mapping) else given)
    except ValidationError as error:
        raise VideolensError(validation_text(error, kind.model_fields, where=where)) from None


class _Strict(yaml.SafeLoader):
    """YAML in which a key that is there twice is an error."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """A mapping, once its keys were looked at; a `ConstructorError` if one is there twice."""
        seen = set()
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:merge":  # "<<": what it brings in may be given again
                continue
            name = self.construct_object(key, deep=True)
            if isinstance(name, (str, int)) and name in seen:
                raise yaml.constructor.ConstructorError(None, None, f"the key {name!r} is there twice", key.start_mark)
            seen.add(str(name) if not isinstance(name, (str, int)) else name)
        return super().construct_mapping(node, deep)


def _written_out(node: yaml.Node, known: dict[int, int | None], where: str) -> int:
    """How many nodes there are with every alias written out; each node is looked at once."""
    if id(node) in known:
        size = known[id(node)]
        if size is None:
            raise VideolensError(f"{where}: something in it holds itself, by an alias: write it out")
        return size
    known[id(node)] = None
    size = 1
    if isinstance(node, yaml.CollectionNode):
        for each in node.value:
            size += sum(_written_out(one, known, where) for one in (each if isinstance(each, tuple) else (each,)))
    known[id(node)] = size
    return size


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of a JSON file; Python would keep the last of two values with one key and drop the other unsaid."""
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"the key {twice!r} stands twice in one object")
    return found


def _check_plain(content: Any, *, finite: bool, halves: bool = False) -> None:
    """A `ValueError` if something is nested too deeply, not finite, beyond what a float holds, or no Unicode."""
    level = [content]
    for _ in range(_DEEPEST):
        level = [inner for each in level for inner in _parts(each, finite=finite, halves=halves)]
        if not level:
            return
    raise ValueError(f"nested more than {_DEEPEST} deep")


def _parts(value: Any, *, finite: bool, halves: bool) -> Iterator[Any]:
    if isinstance(value, str):
        # lone surrogates, which JSON can spell, are a UnicodeEncodeError
        value.encode(errors="surrogatepass" if halves else "strict")
    elif finite and isinstance(value, (int, float)) and not math.isfinite(float(value)):
        raise ValueError(f"the number {value} is not finite")
    elif isinstance(value, dict):
        for key, each in value.items():
            yield from (key, each)
    elif isinstance(value, list):
        yield from value
