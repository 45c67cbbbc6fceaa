"""Types are checked while the tests run: shapes by jaxtyping, all else by beartype alone, which costs a tenth of it.

jaxtyping's import hook wraps every function of the package, to keep the sizes of named axes of each call apart. A
function whose annotations name no shape has none to keep, so it gets beartype's check without that wrapper.
"""

from __future__ import annotations

import builtins
import re
from contextlib import suppress
from functools import partial, wraps
from types import FunctionType
from typing import Any

import jaxtyping
from beartype import beartype
from beartype.roar import BeartypeException

_original = jaxtyping.jaxtyped
_NAME = re.compile(r"[A-Za-z_]\w*")


def install(package: str) -> None:
    """Check the types of a package that has not been imported yet."""
    jaxtyping.jaxtyped = _checked
    jaxtyping.install_import_hook(package, "beartype.beartype")


def _checked(decorated: Any = None, **how: Any) -> Any:
    if decorated is None:
        return partial(_checked, **how)
    if isinstance(decorated, FunctionType) and not names_a_shape(decorated):
        with suppress(BeartypeException):  # an annotation that only type checkers can read
            return _switched(decorated, beartype(decorated))
    return _original(decorated, **how)


def _switched(function: FunctionType, checked: Any) -> Any:
    """Checked, unless a test switches jaxtyping's checks off to see what a user without them sees."""

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        return (function if jaxtyping.config.jaxtyping_disable else checked)(*args, **kwargs)

    return call


def names_a_shape(function: FunctionType) -> bool:
    """Whether an annotation may hold a shape: it does, or a name in it is not known yet."""
    for annotation in function.__annotations__.values():
        if not isinstance(annotation, str):
            return True
        for name in _NAME.findall(re.sub(r"\"[^\"]*\"|'[^']*'", "", annotation)):
            if hasattr(builtins, name):
                continue
            found = function.__globals__.get(name)
            if found is None or getattr(found, "__module__", "") == "jaxtyping" or "jaxtyping" in repr(found):
                return True
    return False
