"""Pathways of any shape: every route of the partition by itself open or closed in every layer, or in single heads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from videolens.errors import VideolensError, near
from videolens.interventions.cut_routes import CutRoutes
from videolens.interventions.knockout import Knockout
from videolens.interventions.numbering import check_within, whole_numbers
from videolens.interventions.partition import PARTITION, Unit, coarse_route
from videolens.interventions.pathway import Pathway
from videolens.reading import as_path, json_kind, read_plain


def is_searched(route: str) -> bool:
    """Whether a search opens and closes a route, of either grain: all but those from part P, which is the same for
    every question, and those of part A among itself."""
    coarse = coarse_route(route)
    return not coarse.startswith("part P ->") and coarse != "part A -> part A"


SEARCHED = tuple(route for route in PARTITION if is_searched(route))
"""The routes of the grain "routes" that a search opens and closes."""


@dataclass(frozen=True)
class RoutePathway(CutRoutes):
    """Which routes are closed in which 0-based layers; all others are open. An intervention: it cuts those.

    Attributes:
        n_layers: depth of the model it is for.
        closed: (route, layers) of every route that is closed somewhere.
        name: what to call it in tables.
        heads: (route, (layer, 0-based heads)) where it is closed in some heads only.

    Raises:
        VideolensError: no depth, a layer that a model of this depth does not have, or a value of the wrong kind.
        SelectionError: no such route.
    """

    n_layers: int
    closed: tuple[tuple[str, tuple[int, ...]], ...]
    name: str = "routes"
    heads: tuple[tuple[str, tuple[tuple[int, tuple[int, ...]], ...]], ...] = ()

    def __init__(
        self,
        n_layers: int,
        closed: Mapping[str, Iterable[int]],
        *,
        name: str = "routes",
        heads: Mapping[str, Mapping[int, Iterable[int]]] | None = None,
    ) -> None:
        if not isinstance(n_layers, int) or isinstance(n_layers, bool) or n_layers < 1:
            raise VideolensError(f"n_layers of a pathway is {n_layers!r}: say how deep the model is, such as 32")
        if not isinstance(closed, Mapping):
            raise VideolensError(f"closed is {closed!r}: give the closed layers of every route, {{route: layers}}")
        if not isinstance(name, str):
            raise VideolensError(f"the name of a pathway is {name!r}: give text, or leave it out")
        heads = {} if heads is None else heads
        if not isinstance(heads, Mapping) or not all(isinstance(each, Mapping) for each in heads.values()):
            raise VideolensError(
                f"heads is {heads!r}: give the closed heads of every layer, {{route: {{layer: heads}}}}"
            )
        chosen = {route: whole_numbers("layer", layers) for route, layers in closed.items()}
        single = {
            route: tuple((layer, whole_numbers("head", some)) for layer, some in sorted(each.items()))
            for route, each in heads.items()
        }
        for route, layers in [
            *chosen.items(),
            *((route, [layer for layer, _ in one]) for route, one in single.items()),
        ]:
            check_within("layer", whole_numbers("layer", layers), n_layers)
            Knockout.route(route, layers=0)  # that there is such a route
        kept = tuple((route, layers) for route, layers in sorted(chosen.items()) if layers)
        some = tuple((route, each) for route, each in sorted(single.items()) if each)
        vars(self).update(n_layers=n_layers, closed=kept, name=name, heads=some)

    @classmethod
    def of_units(
        cls, n_layers: int, units: Iterable[Unit], *, n_heads: int | None = None, name: str = "routes"
    ) -> RoutePathway:
        """The pathway in which these units are closed. With a number of heads, a route that is closed in all of them is
        closed."""
        closed: dict[str, set[int]] = {}
        heads: dict[str, dict[int, list[int]]] = {}
        for unit in units:
            if unit.head is None:
                closed.setdefault(unit.route, set()).add(unit.layer)
                continue
            some = heads.setdefault(unit.route, {}).setdefault(unit.layer, [])
            some.append(unit.head)
            if n_heads is not None and len(some) == n_heads:
                closed.setdefault(unit.route, set()).add(unit.layer)
        for route, layers in closed.items():
            heads[route] = {layer: some for layer, some in heads.get(route, {}).items() if layer not in layers}
        return cls(n_layers, closed, name=name, heads=heads)

    @cached_property
    def knockouts(self) -> tuple[Knockout, ...]:
        """What it cuts, as knockouts."""
        found = [Knockout.route(route, layers=layers) for route, layers in self.closed]
        for route, each in self.heads:
            alike: dict[tuple[int, ...], list[int]] = {}
            for layer, heads in each:
                alike.setdefault(heads, []).append(layer)
            found += [Knockout.route(route, layers=layers, heads=heads) for heads, layers in alike.items()]
        return tuple(found)

    def check(self, *, n_layers: int, n_heads: int) -> None:
        """Raise a `VideolensError` if it is for a model of another depth, or names a head that this one lacks."""
        super().check(n_layers=n_layers, n_heads=n_heads)
        for knockout in self.knockouts:
            knockout.check(n_layers=n_layers, n_heads=n_heads)

    @property
    def open_layers(self) -> dict[str, tuple[int, ...]]:
        """The layers in which the routes of a search, and others that it closes somewhere, are open in some head."""
        closed = {route: set[int]() for route in SEARCHED} | {route: set(layers) for route, layers in self.closed}
        every = range(self.n_layers)
        return {route.replace("->", "→"): tuple(sorted(set(every) - shut)) for route, shut in closed.items()}

    @property
    def units(self) -> frozenset[Unit]:
        """What is closed."""
        whole = (Unit(layer, None, route) for route, layers in self.closed for layer in layers)
        single = (Unit(layer, head, route) for route, each in self.heads for layer, some in each for head in some)
        return frozenset([*whole, *single])

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for `pathway_from`."""
        closed = {route: list(layers) for route, layers in self.closed}
        fields: dict[str, Any] = {"n_layers": self.n_layers, "closed": closed, "name": self.name}
        if self.heads:  # text for layers, as files have it
            fields["heads"] = {route: {str(layer): list(some) for layer, some in each} for route, each in self.heads}
        return fields


def pathway_from(fields: Mapping[str, Any]) -> CutRoutes:
    """A pathway from plain data: of closed routes where it says `closed`, else as `Pathway.from_dict` reads it.

    Raises:
        VideolensError: an unknown field, no depth, or a value of the wrong kind.
    """
    if not isinstance(fields, Mapping) or "closed" not in fields:
        return Pathway.from_dict(fields)
    known = ("n_layers", "closed", "name", "heads")
    for field in fields:
        if field not in known:
            raise VideolensError(near(field, known, kind="field of a pathway of closed routes"))
    if "n_layers" not in fields:
        raise VideolensError(f"the pathway {dict(fields)!r:.200} does not say n_layers: how deep the model is")
    heads = fields.get("heads", {})
    if isinstance(heads, Mapping) and all(isinstance(each, Mapping) for each in heads.values()):
        heads = {route: {_number(layer): some for layer, some in each.items()} for route, each in heads.items()}
    return RoutePathway(fields["n_layers"], fields["closed"], name=fields.get("name", "routes"), heads=heads)


def read_pathway(path: str | Path) -> CutRoutes:
    """A pathway from a file, JSON or YAML.

    1. The fields that `pathway_from` takes: `{n_layers: 32, cross_frame: [4, 5], …}`, `{preset: …}`.
    2. The settings of a saved result: `pathway.json` of `evaluate_pathway` holds one; of the pathways of a search
       (`search.json`) it is the chosen one.

    Raises:
        VideolensError: it cannot be read, or holds no pathway, or several of which none is the chosen one; names the
            file.
    """
    path = as_path(path, "the file of a pathway")
    fields = read_plain(path)
    if not isinstance(fields, Mapping):
        raise VideolensError(
            f"{path} holds {json_kind(fields)}, expected a pathway: a mapping with n_layers and open layers"
        )
    try:
        if isinstance(several := fields.get("pathways"), Mapping):  # 2.
            chosen = fields.get("chosen") if "chosen" in fields or len(several) != 1 else next(iter(several))
            if chosen not in several:
                raise VideolensError(
                    f"it holds {len(several)} pathways ({', '.join(map(str, several))}) and does not say which is "
                    "chosen: write the fields of one into a file of its own"
                )
            return pathway_from(several[chosen])
        return pathway_from(fields.get("pathway", fields))
    except VideolensError as error:
        raise type(error)(f"{path}: {error}") from None


def _number(layer: Any) -> Any:
    """A layer, which files have as text."""
    return int(layer) if isinstance(layer, str) and layer.isdecimal() else layer
