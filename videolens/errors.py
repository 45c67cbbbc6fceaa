"""Errors of the package: each says what happened, with which values, and what to do next."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from math import isfinite
from numbers import Real
from operator import index
from typing import Any, SupportsIndex, cast


class VideolensError(ValueError):
    """Base of every error this package raises on purpose."""


class VideoError(VideolensError):
    """A video cannot be read, sampled or written as asked."""


class QuestionError(VideolensError):
    """A question contradicts itself, such as an answer that is not among its options."""


class PromptError(VideolensError):
    """A question cannot be made into a prompt."""


class SelectionError(VideolensError):
    """A name of token positions, or a route between two of them, is not known in this prompt."""


class DatasetError(VideolensError):
    """A data set cannot be found, read or written as asked."""


class ModelError(VideolensError):
    """A model cannot be found, loaded or run as asked."""


@contextmanager
def refusing(error: type[VideolensError], what: str) -> Iterator[None]:
    """Whatever somebody else's code raises in here at what it was not made for is an error of ours.

    Args:
        error: which.
        what: what is the matter and what to do, before the cause in brackets.
    """
    try:
        yield
    except (VideolensError, MemoryError):
        raise
    except Exception as cause:
        raise error(f"{what} ({type(cause).__name__}: {cause})") from cause


class UnknownNameError(VideolensError, AttributeError):
    """An attribute that is not here, and what to use in its place; to `hasattr` it is simply not there."""


def near(name: object, known: Iterable[str], *, kind: str = "name", where: str | None = None) -> str:
    """Say that `name` is unknown, which known names come close, and what is known.

    Args:
        name: what was asked for; something that is no string is as unknown as a misspelt one.
        known: what there is.
        kind: what it is a name of.
        where: where the known names are listed, where they are too many for a message.

    >>> near("fram 1", ["frame 1", "stem"], kind="selection")
    "unknown selection 'fram 1'; did you mean 'frame 1'? known: 'frame 1', 'stem'"
    """
    names = list(dict.fromkeys(known))
    folded = {each.casefold(): each for each in reversed(names)}
    close = [folded[each] for each in difflib.get_close_matches(str(name).casefold(), folded, n=3, cutoff=0.6)]
    hint = f"; did you mean {' or '.join(map(repr, close))}?" if close else ";"
    listed = where or ", ".join(map(repr, names)) or "none"
    return f"unknown {kind} {name!r}{hint} known: {listed}"


def utf8(text: str) -> bytes:
    """Text as files hold it. A lone surrogate, such as a file name that is not UTF-8 has for Python, has no place in
    UTF-8: it is written as its escape, which JSON reads back as the surrogate.

    >>> utf8("caf\udce9")
    b'caf\\udce9'
    """
    return text.encode("utf-8", "backslashreplace")


def check_whole(
    name: str,
    value: object,
    *,
    least: int = 0,
    most: int = 2**63 - 1,
    error: type[VideolensError] = VideolensError,
) -> None:
    """Raise an error of ours if a value, such as a seed, is no whole number from `least` to `most`."""
    try:
        fits = not isinstance(value, bool) and least <= index(cast(SupportsIndex, value)) <= most
    except TypeError:
        fits = False
    if not fits:
        bound = "on" if most == 2**63 - 1 else f"to {most}"
        raise error(f"{name} = {value!r:.80}: give a whole number from {least} {bound}")


def is_number(value: object) -> bool:
    """Whether a value is a real number that a float can hold: not infinite, not a truth value, no text."""
    try:
        return isinstance(value, Real) and not isinstance(value, bool) and isfinite(value)
    except OverflowError:
        return False


def check_text(name: str, text: str, *, error: type[VideolensError] = VideolensError) -> None:
    """Raise an error of ours if text holds a lone surrogate, half of a character: no tokenizer and no file takes it."""
    at = next((i for i, character in enumerate(text) if "\ud800" <= character <= "\udfff"), None)
    if at is not None:
        raise error(
            f"{name} {text!r} holds the lone surrogate {text[at]!r}, half of a character, as text has that was cut or "
            "read in another encoding: write the character itself"
        )


def check_flag(name: str, value: object) -> None:
    """Raise a `VideolensError` if a value, such as `verify`, is neither true nor false: any text would be true."""
    if not isinstance(value, bool):
        raise VideolensError(f"{name} = {value!r}: give True or False")


def validation_text(error: Any, known: Iterable[str] = (), *, kind: str = "field", where: str = "") -> str:
    """What a pydantic `ValidationError` says, in one line of our own: every wrong field with its value.

    Args:
        error: the error.
        known: the fields that there are, for those that are not known.
        kind: what a field is called.
        where: what the fields are in, such as "config.yaml.dataset"; put before their names.
    """
    said = []
    for each in error.errors():
        name = ".".join(str(part) for part in each["loc"])
        at = ".".join(filter(None, (where, name)))
        if own := each.get("ctx", {}).get("error"):  # raised by a check of ours
            said.append(f"{f'{at}: ' if where else ''}{own}")
            continue
        if each["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
            said.append(f"{f'{at}: ' if where else ''}{near(str(each['loc'][-1]), known, kind=kind)}")
        elif each["type"] in ("missing", "missing_argument", "missing_keyword_only_argument"):
            said.append(f"{f'{where}: ' if where else ''}the {kind} {name!r} is missing")
        else:
            said.append(f"{at or 'the whole'}: {each['msg'][:1].lower() + each['msg'][1:]}, got {each['input']!r:.80}")
    return "; ".join(dict.fromkeys(said))
