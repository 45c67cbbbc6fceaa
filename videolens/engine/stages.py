"""From an intervention to what acts where: its hook functions by stage, and the first row that they can change.

The stages of a forward: −1, the front end and the embedding; 0 … L − 1, the layers; L, the final norm.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from operator import index
from typing import Any, Protocol, runtime_checkable

from videolens.engine.full import HookFunction
from videolens.errors import VideolensError
from videolens.model.listening import stage_of
from videolens.model.transformer import HookedVideoTransformer
from videolens.prompt.prompt import Prompt

__all__ = ["Functions", "Intervention", "Staged", "is_declared", "stage_interventions"]

Functions = tuple[tuple[str, HookFunction], ...]


@runtime_checkable
class Intervention(Protocol):
    """Anything that says, for a prompt, which hook functions it is and what it can change at the earliest.

    In a resumed run a hook function sees some rows of the prompt only, which `hook.ctx["rows"]` names. A function on a
    mask may depend on nothing but `hook.ctx["rows"]`, `hook.ctx["keys"]` and its layer. Functions that compare equal
    are taken to do the same.
    """

    def hooks(self, prompt: Prompt) -> Sequence[tuple[str, HookFunction]]:
        """Hook functions by the name of their hook point."""
        ...

    def cone(self, prompt: Prompt) -> tuple[int, int] | None:
        """(first layer, first row) that it can change; None: it changes nothing."""
        ...

    def check(self, *, n_layers: int, n_heads: int) -> None:
        """Raise a `VideolensError` if it acts on layers or heads that the model does not have."""
        ...


@dataclass(frozen=True, eq=False)
class Staged:
    """One intervention, ready to run.

    Attributes:
        number: its place among the interventions.
        first_row: every row before stays as it was, all of them if it is n_pos; None where the intervention does not
            say, and runs in full.
        functions: stage → hook functions there.
    """

    number: int
    first_row: int | None
    functions: dict[int, Functions]

    @property
    def hooks(self) -> list[tuple[str, HookFunction]]:
        """All hook functions, in the order of their stages."""
        return [each for stage in sorted(self.functions) for each in self.functions[stage]]


def is_declared(intervention: Any) -> bool:
    """Whether it says what it can change; a bare list of hook functions does not."""
    return callable(getattr(intervention, "cone", None))


def stage_interventions(model: HookedVideoTransformer, prompt: Prompt, interventions: Sequence[Any]) -> list[Staged]:
    """Check every intervention against the model and the prompt, before anything runs.

    Raises:
        VideolensError: a layer, head or hook point that the model does not have; a cone outside the prompt, or behind
            the first layer that the hook functions act on; something that is no intervention.
    """
    if not isinstance(interventions, Iterable) or isinstance(interventions, str):
        raise VideolensError(f"interventions are {interventions!r}: give a list of them, be it of one")
    return [_staged(model, prompt, number, each) for number, each in enumerate(interventions)]


def _staged(model: HookedVideoTransformer, prompt: Prompt, number: int, intervention: Any) -> Staged:
    n_layers, n_pos = model.cfg.n_layers, prompt.shape[1]
    if isinstance(intervention, (list, tuple)):
        return Staged(number, None, _by_stage(model, number, intervention))
    if not callable(getattr(intervention, "hooks", None)):
        raise VideolensError(
            f"intervention {number} is {intervention!r}: give a Knockout, a Patch, any object with .hooks(prompt) and "
            ".cone(prompt), or a list of (hook point, function)"
        )
    if callable(getattr(intervention, "check", None)):
        intervention.check(n_layers=n_layers, n_heads=model.cfg.n_heads)
    functions = _by_stage(model, number, intervention.hooks(prompt))
    if not is_declared(intervention):
        return Staged(number, None, functions)
    cone = intervention.cone(prompt)
    if cone is None:
        return Staged(number, n_pos, functions)
    try:
        layer, row = map(index, cone)
    except TypeError as error:
        raise VideolensError(
            f"the cone of {intervention!r} is {cone!r}: it must be (first layer, first row), or None"
        ) from error
    if not 0 <= row < n_pos:
        raise VideolensError(
            f"the cone of {intervention!r} begins at row {row}, outside the prompt of {n_pos} tokens (rows 0 … "
            f"{n_pos - 1})"
        )
    if not 0 <= layer < n_layers:
        raise VideolensError(
            f"the cone of {intervention!r} begins at layer {layer}, outside the model (layers 0 … {n_layers - 1})"
        )
    if functions and max(min(functions), 0) < layer:
        raise VideolensError(
            f"{intervention!r} says that it changes nothing before layer {layer}, but it has a hook function in layer "
            f"{max(min(functions), 0)}: its cone must begin there"
        )
    return Staged(number, row, functions)


def _by_stage(model: HookedVideoTransformer, number: int, hooks: Any) -> dict[int, Functions]:
    stages: dict[int, list[tuple[str, HookFunction]]] = {}
    pairs = list(hooks) if isinstance(hooks, Iterable) else [hooks]
    for pair in pairs:
        if not isinstance(pair, Sequence) or len(pair) != 2 or not callable(pair[1]):
            raise VideolensError(
                f"intervention {number} has {pair!r} among its hook functions: each intervention is, or has, a list of "
                "pairs (hook point, function)"
            )
        name, function = pair
        model.check_name(name)
        stages.setdefault(stage_of(name, model.cfg.n_layers), []).append((name, _hashable(function)))
    return {stage: tuple(each) for stage, each in stages.items()}


def _hashable(function: HookFunction) -> HookFunction:
    """The function; one that cannot be hashed, in a wrapping that equals nothing but itself."""
    try:
        hash(function)
    except TypeError:
        return partial(function)
    return function
