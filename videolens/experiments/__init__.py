"""Experiments over a model and questions: one folder each, and what they have in common in `common`."""

from __future__ import annotations

import pkgutil
from functools import cache
from importlib import import_module

from videolens.errors import VideolensError, near
from videolens.experiments.common.declaration import Declaration

__all__ = ["declarations", "declared", "in_runs"]


@cache
def declarations() -> dict[str, Declaration]:
    """Every experiment by its name: each folder here, but for `common`, declares its own."""
    folders = sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name != "common")
    found = [import_module(f"{__name__}.{folder}").EXPERIMENT for folder in folders]
    return {each.name: each for each in found}


def in_runs() -> dict[str, Declaration]:
    """Those that a run's config can name."""
    return {name: each for name, each in declarations().items() if each.experiment is not None}


def declared(name: str) -> Declaration:
    """The declaration of an experiment that a run's config can name.

    Raises:
        VideolensError: no such experiment (lists those there are).
    """
    if name not in in_runs():
        raise VideolensError(near(name, in_runs(), kind="experiment"))
    return declarations()[name]
