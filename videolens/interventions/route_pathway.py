"""Pathways of any shape: every route of the partition by itself open or closed in every layer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from videolens.errors import VideolensError, near
from videolens.interventions.cut_routes import CutRoutes
from videolens.interventions.knockout import OWN_PART, Knockout
from videolens.interventions.numbering import check_within, whole_numbers
from videolens.interventions.pathway import Pathway

SEARCHED = (OWN_PART, "cross-part", "part V -> part Q", "part Q -> part Q", "part V -> part A", "part Q -> part A")
"""The routes that a search opens and closes: all but those from part P, which is the same for every question, and those
of part A among itself."""


class RouteUnit(NamedTuple):
    """What is open or closed as one: a route in a 0-based layer."""

    layer: int
    route: str


@dataclass(frozen=True)
class RoutePathway(CutRoutes):
    """Which routes are closed in which 0-based layers; all others are open. An intervention: it cuts those.

    Attributes:
        n_layers: depth of the model it is for.
        closed: (route, layers) of every route that is closed somewhere.
        name: what to call it in tables.

    Raises:
        VideolensError: no depth, a layer that a model of this depth does not have, or a value of the wrong kind.
        SelectionError: no such route.
    """

    n_layers: int
    closed: tuple[tuple[str, tuple[int, ...]], ...]
    name: str = "routes"

    def __init__(self, n_layers: int, closed: Mapping[str, Iterable[int]], *, name: str = "routes") -> None:
        if not isinstance(n_layers, int) or isinstance(n_layers, bool) or n_layers < 1:
            raise VideolensError(f"n_layers of a pathway is {n_layers!r}: say how deep the model is, such as 32")
        if not isinstance(closed, Mapping):
            raise VideolensError(f"closed is {closed!r}: give the closed layers of every route, {{route: layers}}")
        if not isinstance(name, str):
            raise VideolensError(f"the name of a pathway is {name!r}: give text, or leave it out")
        chosen = {route: whole_numbers("layer", layers) for route, layers in closed.items()}
        for route, layers in chosen.items():
            check_within("layer", layers, n_layers)
            Knockout.route(route, layers=0)  # that there is such a route
        kept = tuple((route, layers) for route, layers in sorted(chosen.items()) if layers)
        vars(self).update(n_layers=n_layers, closed=kept, name=name)

    @classmethod
    def of_units(cls, n_layers: int, units: Iterable[RouteUnit], *, name: str = "routes") -> RoutePathway:
        """The pathway in which these units are closed."""
        closed: dict[str, list[int]] = {}
        for unit in units:
            closed.setdefault(unit.route, []).append(unit.layer)
        return cls(n_layers, closed, name=name)

    @cached_property
    def knockouts(self) -> tuple[Knockout, ...]:
        """What it cuts, as knockouts."""
        return tuple(Knockout.route(route, layers=layers) for route, layers in self.closed)

    @property
    def open_layers(self) -> dict[str, tuple[int, ...]]:
        """The layers in which the routes of a search, and others that it closes somewhere, are open."""
        closed = {route: set[int]() for route in SEARCHED} | {route: set(layers) for route, layers in self.closed}
        every = range(self.n_layers)
        return {route.replace("->", "→"): tuple(sorted(set(every) - shut)) for route, shut in closed.items()}

    @property
    def units(self) -> frozenset[RouteUnit]:
        """What is closed."""
        return frozenset(RouteUnit(layer, route) for route, layers in self.closed for layer in layers)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for `pathway_from`."""
        closed = {route: list(layers) for route, layers in self.closed}
        return {"n_layers": self.n_layers, "closed": closed, "name": self.name}


def pathway_from(fields: Mapping[str, Any]) -> CutRoutes:
    """A pathway from plain data: of closed routes where it says `closed`, else as `Pathway.from_dict` reads it.

    Raises:
        VideolensError: an unknown field, no depth, or a value of the wrong kind.
    """
    if not isinstance(fields, Mapping) or "closed" not in fields:
        return Pathway.from_dict(fields)
    known = ("n_layers", "closed", "name")
    for field in fields:
        if field not in known:
            raise VideolensError(near(field, known, kind="field of a pathway of closed routes"))
    if "n_layers" not in fields:
        raise VideolensError(f"the pathway {dict(fields)!r:.200} does not say n_layers: how deep the model is")
    return RoutePathway(fields["n_layers"], fields["closed"], name=fields.get("name", "routes"))
