"""Plain data (text, numbers, truth values, lists, mappings) checked against the signature of what it is for.

A signature becomes a pydantic model. Of every annotation its fields take what YAML can give: text for a path, a list
for any sequence. What is left of a function or a tensor is nothing, and the message says so.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from functools import cache
from os import PathLike
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, ValidationError, WrapValidator, create_model

from videolens.datasets.benchmark import WhenMissing
from videolens.errors import VideolensError, near, validation_text
from videolens.video.sampling import Sampling

_SCALARS = {str: "text", int: "a whole number", float: "a number", bool: "true or false", types.NoneType: "null"}
_LISTS = (list, tuple, set, frozenset, Iterable, Collection, Sequence, AbstractSet)
_ONLY_PYTHON = Callable[..., Any]  # what no YAML gives
_FOR_TYPE_CHECKERS = {"WhenMissing": WhenMissing, "Sampling": Sampling, "Questions": Any}  # in `load_dataset`
_SEED = Annotated[int, Field(ge=0, lt=2**63, description="a whole number from 0 to 2⁶³ − 1")]
"""A seed is first used when intervals are drawn, at the very end: a run of days must not find out then."""
_MODEL = ConfigDict(extra="forbid", strict=True)


def checked(
    given: Mapping[str, Any], function: Callable[..., Any], *, without: Sequence[str] = (), where: str, kind: str
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
    model = fields_of(function, *without)
    try:
        model.model_validate(given)
    except ValidationError as error:
        raise VideolensError(validation_text(error, model.model_fields, kind=kind, where=where)) from None
    found = {name: given.get(name, field.default) for name, field in model.model_fields.items()}
    return {name: plain(value) for name, value in found.items() if name in given or is_plain(value)}


@cache
def fields_of(function: Callable[..., Any], *without: str) -> type[BaseModel]:
    """The parameters of a function or class that a config can give, as a model: not those in `without`, and neither
    `*arguments` nor `**options`."""
    annotated = getattr(function, "__init__") if _own_constructor(function) else function  # noqa: B009
    hints = get_type_hints(annotated, localns=_FOR_TYPE_CHECKERS, include_extras=True)
    hints |= {"seed": _SEED} if hints.get("seed") is int else {}
    gathered = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    fields: dict[str, Any] = {
        name: (_field(hints.get(name, Any)), ... if parameter.default is parameter.empty else parameter.default)
        for name, parameter in inspect.signature(function).parameters.items()
        if name not in without and parameter.kind not in gathered
    }
    return create_model(getattr(function, "__name__", "Options"), __config__=_MODEL, **fields)


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


def _own_constructor(function: Any) -> bool:
    """Whether it is a class whose parameters are not its fields."""
    return isinstance(function, type) and not hasattr(function, "__dataclass_fields__")


def _field(hint: Any) -> Any:
    """The type of a field: what YAML can give of an annotation, with our own words for what it takes."""
    kind, words = _in_yaml(hint)

    def told(value: Any, check: Callable[[Any], Any]) -> Any:
        try:
            return check(value)
        except ValidationError:
            choices = [str(each) for each in _choices(hint)]
            if choices and isinstance(value, str):
                raise ValueError(near(value, choices, kind="choice")) from None
            raise ValueError(f"it takes {words}, got {value!r:.80}") from None

    return Annotated[kind, WrapValidator(told)]


def _in_yaml(hint: Any) -> tuple[Any, str]:
    """What YAML can give of an annotation, and what that is called."""
    origin, inner = get_origin(hint) or hint, get_args(hint)
    if origin is Annotated:
        kind, words = _in_yaml(inner[0])
        described = [each.description for each in inner[1:] if getattr(each, "description", None)]
        return Annotated[(kind, *inner[1:])], (described or [words])[0]
    if origin is Any or isinstance(origin, TypeVar):
        return Any, "anything"
    if origin in (Union, types.UnionType):
        kinds, called = zip(*map(_in_yaml, inner), strict=True)
        return Union[kinds], " or ".join(dict.fromkeys(called))  # noqa: UP007 - of a tuple
    if origin is Literal:
        return hint, "one of " + ", ".join(map(repr, inner))
    if origin is None or origin in _SCALARS:
        return origin, _SCALARS[origin or types.NoneType]
    if origin in (Path, PathLike):
        return str, "text"
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return dict[str, _in_yaml(inner[1])[0] if inner else Any], "a mapping"  # type: ignore[misc]
    if origin in _LISTS:
        kinds, called = zip(*(_in_yaml(each) for each in inner or [Any] if each is not ...), strict=True)
        if origin is not tuple or _ONLY_PYTHON not in kinds:
            return list[Union[kinds]], f"a list of {' or '.join(dict.fromkeys(called))}"  # type: ignore[valid-type]  # noqa: UP007
    return _ONLY_PYTHON, "something that only Python can give"


def _choices(hint: Any) -> tuple[Any, ...]:
    inner = get_args(hint)
    return inner if get_origin(hint) is Literal else tuple(each for part in inner for each in _choices(part))
