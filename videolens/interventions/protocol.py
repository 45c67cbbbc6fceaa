"""What an intervention is, and how one or several are read from what a caller gives."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from videolens.errors import VideolensError
from videolens.interventions.attention_mask import AsAttentionMask
from videolens.interventions.knockout import Knockout
from videolens.interventions.layer_sets import layer_words
from videolens.interventions.scale import Scale
from videolens.prompt.prompt import Prompt

HookFunction = Callable[..., Tensor | None]
"""`function(value, hook=…)` returns a new value, or None if it keeps the one it was given or has edited it in place."""
Hooks = Sequence[tuple[str, HookFunction]]
"""Pairs of a hook point's name and the function that acts there."""


@runtime_checkable
class Acting(Protocol):
    """An object that has hook functions for a prompt."""

    def hooks(self, prompt: Prompt) -> Hooks:
        """Hook functions by the name of their hook point."""
        ...


@runtime_checkable
class Intervention(Acting, Protocol):
    """An object that has hook functions for a prompt, and declares the first layer and row that they can change.

    A resumed run computes only some rows of the prompt; `hook.ctx["rows"]` holds their positions. A hook function on a
    mask may depend only on `hook.ctx["rows"]`, `hook.ctx["keys"]` and its layer. Hook functions that compare equal must
    do the same.
    """

    def cone(self, prompt: Prompt) -> tuple[int, int] | None:
        """(first layer, first row) that it can change; None: it changes nothing."""
        ...

    def check(self, *, n_layers: int, n_heads: int) -> None:
        """Raise a `VideolensError` if it acts on layers or heads that the model does not have."""
        ...


@dataclass(frozen=True)
class HookList(AsAttentionMask):
    """Hook functions as they are. They do not declare what they change, so the engine runs the whole prompt."""

    functions: tuple[tuple[str, HookFunction], ...]

    def hooks(self, prompt: Prompt) -> Hooks:
        """The same for every prompt."""
        return self.functions


def is_declared(intervention: Any) -> bool:
    """Whether it declares what it can change: whether it has a `cone`."""
    return callable(getattr(intervention, "cone", None))


def is_pair(given: Any) -> bool:
    """Whether it is one hook function with its place: (hook point, function)."""
    several = isinstance(given, (list, tuple)) and len(given) == 2
    return several and callable(given[1]) and (isinstance(given[0], str) or callable(given[0]))


def as_interventions(
    given: Any,
    cfg: Any,
    *,
    layers: Iterable[int] | int | None = None,
    called: str = "interventions",
    optional: bool = False,
) -> list[Acting]:
    """One or several interventions in any of the forms that callers give, as a list, checked against a model.

    Args:
        given: one of these, or several in a list or another iterable:

            - an object with `.hooks(prompt)`, such as a `Knockout`, `Patch` or `Pathway`;
            - a route by name, such as "cross-frame" or "video -> question";
            - plain data, `{"route": "video -> question", "layers": [2, 3]}`, with "heads" if need be, and with a
              "factor" for a `Scale`;
            - a pair (hook point, function), or a list of such pairs, which becomes one `HookList`.
        cfg: the model's configuration; its `n_layers` and `n_heads` are read.
        layers: 0-based layers in which routes by name are cut; None: all.
        called: what error messages call the value.
        optional: whether an empty list is allowed.

    Raises:
        VideolensError: an empty list, something that is no intervention, plain data with other fields, or a layer or
            head that the model does not have.
        SelectionError: an unknown route; the message lists the known ones.
    """
    found = [_one(each, range(cfg.n_layers) if layers is None else layers, called) for each in _several(given)]
    if not found and not optional:
        raise VideolensError(f"{called} are empty: give at least one, such as 'cross-frame'")
    for each in found:
        if callable(check := getattr(each, "check", None)):
            check(n_layers=cfg.n_layers, n_heads=cfg.n_heads)
    return found


def _several(given: Any) -> list[Any]:
    alone = is_pair(given) or hasattr(given, "hooks") or isinstance(given, (str, Mapping))
    if alone or not isinstance(given, Iterable):
        return [given]
    each = list(given)
    return [each] if each and all(map(is_pair, each)) else each


def _one(given: Any, layers: Iterable[int] | int, called: str) -> Acting:
    if callable(getattr(given, "hooks", None)):
        return given
    if isinstance(given, str):
        return Knockout.route(given, layers=layers)
    if isinstance(given, Mapping):
        if not {"route", "layers"} <= set(given) <= {"route", "layers", "heads", "factor"}:
            raise VideolensError(
                f"{called} has {dict(given)!r}: as plain data an intervention has a route, layers and, if need be, "
                'heads and a factor, such as {"route": "video -> question", "layers": [2, 3]}'
            )
        where = {"layers": given["layers"], "heads": given.get("heads")}
        if "factor" in given:
            return Scale.route(given["route"], factor=given["factor"], **where)
        return Knockout.route(given["route"], **where)
    pairs = [given] if is_pair(given) else given
    if not isinstance(pairs, (list, tuple)) or not pairs or not all(map(is_pair, pairs)):
        raise VideolensError(
            f"{called} has {given!r}, which is no intervention: give an object with .hooks(prompt), such as a Knockout "
            'or a Patch, a route by name, such as "cross-frame", or a list of pairs (hook point, function)'
        )
    return HookList(tuple((name, function) for name, function in pairs))


_NAMED = {
    "video ↛ video of later frames": "cross-frame",
    "video ↛ video of the same frame": "within-frame",
}


def described(intervention: Any, n_layers: int) -> str:
    """An intervention in words for tables and figures, layers counted from 1: "cross-frame, layers 3–7"."""
    if isinstance(intervention, HookList):
        return "hook functions"
    if not isinstance(intervention, Knockout):
        return f"{type(intervention).__name__} {getattr(intervention, 'name', '')}".strip()
    words = f"{intervention.source} ↛ {intervention.target}{intervention.frame_words}"
    words = _NAMED.get(words, words)
    words += ", all layers" if len(intervention.layers) == n_layers else f", {layer_words(intervention.layers)}"
    return words if intervention.heads is None else f"{words}, heads {', '.join(map(str, intervention.heads))} (from 0)"
