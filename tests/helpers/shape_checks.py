"""Types are checked while the tests run: shapes by jaxtyping, all else by beartype alone.

jaxtyping's import hook decorates every function and dataclass of the package. Its own decorator binds the arguments of
each call to the signature and checks them twice, to say more about a wrong one; here beartype's check stands alone,
inside a context of jaxtyping's where an annotation names a shape, so that a named axis has one size throughout a call.
A check is compiled when a function is first called: most are not, and by then every name in an annotation is known.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import is_dataclass
from functools import partial, wraps
from importlib.machinery import SourceFileLoader
from types import CellType, CodeType, FunctionType, ModuleType
from typing import Any, get_type_hints
from unittest.mock import patch

import jaxtyping
from beartype import beartype
from beartype.roar import BeartypeException
from jaxtyping import _import_hook

_original = jaxtyping.jaxtyped
_AXES = _original("context")  # it holds nothing itself, so one will do


def install(package: str) -> None:
    """Check the types of a package that has not been imported yet."""
    jaxtyping.jaxtyped = with_checks
    _import_hook._JaxtypingLoader = _Loader
    jaxtyping.install_import_hook(package, "beartype.beartype")


class _Loader(_import_hook._JaxtypingLoader):
    """jaxtyping's, which gives its own names to the files of compiled code, for its own modules alone.

    As it is, those names hold while a module runs, so whatever that imports is looked for under them too, is not there
    and is compiled: torch, sympy, 1,000 files, 5 seconds in each process.
    """

    def get_code(self, fullname: str) -> CodeType | None:
        names = partial(_import_hook._optimized_cache_from_source, self._typechecker.get_hash())
        with patch("importlib._bootstrap_external.cache_from_source", names):
            return super().get_code(fullname)

    def exec_module(self, module: ModuleType) -> None:
        SourceFileLoader.exec_module(self, module)


def with_checks(decorated: Any = None, **how: Any) -> Any:
    """In the place of `jaxtyping.jaxtyped`: a function or a dataclass whose types are checked."""
    if decorated is None:
        return partial(with_checks, **how)
    if isinstance(decorated, FunctionType):
        return _when_called(decorated, how) if decorated.__annotations__ else decorated
    if isinstance(decorated, type):
        if is_dataclass(decorated) and not hasattr(decorated.__init__, "__wrapped__"):
            decorated.__init__ = with_checks(decorated.__init__, **how)
        return decorated
    return _original(decorated, **how)


def _when_called(function: FunctionType, how: dict[str, Any]) -> Callable[..., Any]:
    """Checked, unless a test switches jaxtyping's checks off to see what a user without them sees."""
    checked = None
    shapes = False

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        nonlocal checked, shapes
        if jaxtyping.config.jaxtyping_disable:
            return function(*args, **kwargs)
        if checked is None:
            checked, shapes = _compiled(function, how)
        if not shapes:
            return checked(*args, **kwargs)
        with _AXES:
            return checked(*args, **kwargs)

    return call


def _compiled(function: FunctionType, how: dict[str, Any]) -> tuple[Callable[..., Any], bool]:
    """The function checked, and whether an annotation names a shape.

    Functions of one `def` inside another function differ in what they hold, not in their types: the check of one
    is that of all. Every name in its annotations is a module's, or `names_a_shape` had raised.
    """
    known = _INNER.get(function.__code__)
    if known is None or known[2] != function.__annotations__:
        try:
            shapes = names_a_shape(function)
            if "<locals>" not in function.__qualname__:
                return beartype(function), shapes
            known = _INNER[function.__code__] = beartype(_nothing_held(function)), shapes, function.__annotations__
        except (NameError, TypeError, BeartypeException):
            # an annotation that only type checkers can read: jaxtyping leaves it out, and checks the others
            return _original(function, **how), False
    template, shapes, _ = known
    checked = FunctionType(template.__code__, template.__globals__, function.__name__, None, template.__closure__)
    checked.__kwdefaults__ = template.__kwdefaults__ | {_CALLED: function}
    return checked, shapes


_INNER: dict[CodeType, tuple[Any, bool, dict[str, Any]]] = {}
_CALLED = "__beartype_func"
"""What beartype's code calls the function that it checks: a default of its own."""


def _nothing_held(function: FunctionType) -> FunctionType:
    """The function without defaults and with empty cells: what it holds is not kept alive with the check."""
    cells = tuple(CellType() for _ in function.__closure__ or ())
    made = FunctionType(function.__code__, function.__globals__, function.__name__, None, cells)
    made.__annotations__ = dict(function.__annotations__)  # beartype puts what the names mean into it
    made.__qualname__, made.__module__ = function.__qualname__, function.__module__
    return made


def names_a_shape(function: FunctionType) -> bool:
    """Whether an annotation holds a shape. What `get_type_hints` raises, if something in one is not known."""
    return "jaxtyping" in repr(get_type_hints(function, include_extras=True))
