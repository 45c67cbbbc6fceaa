"""Conditions: the model with nothing changed, and under interventions that have a name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from videolens.errors import VideolensError
from videolens.interventions.protocol import as_interventions
from videolens.model.transformer import HookedVideoTransformer

CLEAN = "clean"
"""The condition in which nothing is changed."""


def conditions_of(model: HookedVideoTransformer, interventions: Any) -> dict[str, list[Any]]:
    """Interventions that hold at once, by the name of the condition, checked against the model.

    Raises:
        VideolensError: not a mapping, a name that is none or "clean", or what `as_interventions` refuses.
        SelectionError: plain data that names no route.
    """
    if not isinstance(interventions, Mapping):
        raise VideolensError(
            f"interventions are {interventions!r}: give each a name, such as "
            '{"video cut": Knockout("video", "question", layers=[2, 3])}'
        )
    found: dict[str, list[Any]] = {}
    for name, given in interventions.items():
        if name == CLEAN or not isinstance(name, str) or not name:
            raise VideolensError(f"an intervention is called {name!r}: {CLEAN!r} is the model with nothing changed")
        found[name] = as_interventions(given, model.cfg, called=f"the interventions of {name!r}")
    return found
