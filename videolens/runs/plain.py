"""Plain data (text, numbers, truth values, lists, mappings) held against the annotations of the function it is for."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from videolens.errors import VideolensError, near

__all__ = ["checked", "is_plain", "keywords", "plain"]

_WORDS = {str: "text", int: "a whole number", float: "a number", bool: "true or false", types.NoneType: "null"}


def keywords(function: Callable[..., Any], *, without: Sequence[str] = ()) -> dict[str, inspect.Parameter]:
    """The parameters of a function or class that a config can give, by name: neither `self`, nor those in `without`,
    nor `*arguments` and `**options`."""
    gathered = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return {
        name: parameter
        for name, parameter in inspect.signature(function).parameters.items()
        if name not in ("self", *without) and parameter.kind not in gathered
    }


def checked(
    given: Mapping[Any, Any], function: Callable[..., Any], *, without: Sequence[str] = (), where: str, kind: str
) -> dict[str, Any]:
    """What a function is called with: everything given, and the defaults of the rest where they are plain data.

    Args:
        given: by keyword.
        function: a function, or a class whose constructor is meant.
        without: parameters that are not for the config.
        where: the file and the field, for messages.
        kind: what an entry is called ("option of the experiment 'flow'").

    Raises:
        VideolensError: an unknown keyword, one that is missing, or a value of the wrong kind.
    """
    known = keywords(function, without=without)
    for name in given:
        if name not in known:
            raise VideolensError(f"{where}.{name}: {near(name, known, kind=kind)}")
    found = {}
    for name, parameter in known.items():
        if name in given:
            hint = _hint(parameter, function)
            if not _fits(given[name], hint):
                raise VideolensError(f"{where}.{name}: {_misfit(given[name], hint)}")
            found[name] = plain(given[name])
        elif parameter.default is parameter.empty:
            raise VideolensError(f"{where}: the {kind} {name!r} is missing: give {name}: …")
        elif is_plain(parameter.default):
            found[name] = plain(parameter.default)
    return found


def is_plain(value: Any) -> bool:
    """Whether a value can stand in a config."""
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and is_plain(each) for key, each in value.items())
    if isinstance(value, (list, tuple)):
        return all(map(is_plain, value))
    return value is None or isinstance(value, (str, bool, int, float))


def plain(value: Any) -> Any:
    """Plain data with lists for tuples: as it comes back out of JSON."""
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    return [plain(each) for each in value] if isinstance(value, (list, tuple)) else value


def _hint(parameter: inspect.Parameter, function: Callable[..., Any]) -> Any:
    """The annotation, or Any where it names something that is there for type checkers only."""
    hint = parameter.annotation
    if hint is parameter.empty:
        return Any
    if not isinstance(hint, str):
        return hint
    inner: Any = inspect.unwrap(getattr(function, "__init__") if isinstance(function, type) else function)  # noqa: B009
    try:
        return eval(hint, dict(inner.__globals__))
    except Exception:  # whatever a name that is not there at run time leads to
        return Any


def _fits(value: Any, hint: Any) -> bool:
    origin, inner = get_origin(hint), get_args(hint)
    if hint is Any or isinstance(hint, TypeVar):
        return True
    if origin in (Union, types.UnionType):
        return any(_fits(value, each) for each in inner)
    if origin is Literal:
        return any(value == each and type(value) is type(each) for each in inner)
    kind = hint if origin is None else origin
    if kind is None or kind is types.NoneType:
        return value is None
    if kind in (bool, str):
        return isinstance(value, kind)
    if kind in (int, float):
        return isinstance(value, (int, kind)) and not isinstance(value, bool)
    if kind in (Path, PathLike):
        return isinstance(value, str)
    if not isinstance(kind, type) or isinstance(value, (str, Mapping)) != issubclass(kind, Mapping):
        return False  # functions and the like: no config can give them
    if isinstance(value, Mapping):
        return len(inner) < 2 or all(_fits(each, inner[1]) for each in value.values())
    if not isinstance(value, list) or not _is_list(kind):
        return False
    return all(_fits(each, inner[0]) for each in value) if inner else True


def _is_list(kind: type) -> bool:
    try:
        return issubclass(list, kind) or kind in (tuple, set, frozenset)
    except TypeError:  # a protocol: what has its methods is an object, and no list
        return False


def _misfit(value: Any, hint: Any) -> str:
    choices = [each for part in (hint, *get_args(hint)) if get_origin(part) is Literal for each in get_args(part)]
    if choices and isinstance(value, str):
        return near(value, map(str, choices), kind="choice")
    return f"got {value!r}, which is {_kind(value)}; it takes {_words(hint)}"


def _kind(value: Any) -> str:
    if isinstance(value, list):
        return "a list"
    return "a mapping" if isinstance(value, Mapping) else _WORDS.get(type(value), f"a {type(value).__name__}")


def _words(hint: Any) -> str:
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(map(_words, inner)))
    if origin is Literal:
        return "one of " + ", ".join(map(repr, inner))
    if hint is None or hint in _WORDS:
        return _WORDS[types.NoneType if hint is None else hint]
    kind = hint if origin is None else origin
    if kind in (Path, PathLike):
        return "text"
    if isinstance(kind, type) and issubclass(kind, Mapping):
        return "a mapping"
    if isinstance(kind, type) and _is_list(kind):
        return "a list of " + _words(inner[0]) if inner else "a list"
    return "something that only Python can give"
