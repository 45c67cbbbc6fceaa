"""Interventions made ready to run: their hook functions by stage, and the first row that they can change.

The stages of a forward: −1, the front end and the embedding; 0 … L − 1, the layers; L, the final norm.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from operator import index
from typing import Any

from videolens.errors import SelectionError, VideolensError
from videolens.interventions.knockout import Knockout
from videolens.interventions.protocol import HookFunction, as_interventions, is_declared, is_pair
from videolens.interventions.scale import Scale
from videolens.model.listening import stage_of
from videolens.model.transformer import HookedVideoTransformer
from videolens.prompt.prompt import Prompt

Functions = tuple[tuple[str, HookFunction], ...]


@dataclass(frozen=True, eq=False)
class Staged:
    """One intervention, ready to run.

    Attributes:
        number: its place among the interventions.
        first_row: the first row that it can change; n_pos: it changes none; None: it does not declare what it changes,
            and runs in full.
        functions: stage → hook functions there.
    """

    number: int
    first_row: int | None
    functions: dict[int, Functions]

    @property
    def hooks(self) -> list[tuple[str, HookFunction]]:
        """All hook functions, in the order of their stages."""
        return [each for stage in sorted(self.functions) for each in self.functions[stage]]


def stage_interventions(model: HookedVideoTransformer, prompt: Prompt, interventions: Sequence[Any]) -> list[Staged]:
    """Check every intervention against the model and the prompt, before anything runs.

    Each element is read by `as_interventions`; those of one element hold at once.

    Raises:
        SelectionError: an unknown route.
        VideolensError: a layer, head or hook point that the model does not have; a cone outside the prompt, or behind
            the first layer that the hook functions act on; something that is no intervention.
    """
    if not isinstance(interventions, Iterable) or isinstance(interventions, str):
        raise VideolensError(f"interventions are {interventions!r}: give a list of them, even if it is only one")
    return [_staged(model, prompt, number, each) for number, each in enumerate(interventions)]


def _staged(model: HookedVideoTransformer, prompt: Prompt, number: int, given: Any) -> Staged:
    called = f"intervention {number}"
    if is_pair(given):
        raise VideolensError(
            f"{called} has {given[0]!r} where an intervention stands: hook functions are given as a list of pairs "
            "(hook point, function), even if there is only one"
        )
    functions: dict[int, Functions] = {}
    rows: list[int | None] = []
    for one in as_interventions(given, model.cfg, called=called, optional=True):
        own = _by_stage(model, called, one.hooks(prompt))
        in_full = not is_declared(one) or _moves_deepstack(prompt, own)
        rows.append(None if in_full else _first_row(model, prompt, one, own))
        functions |= {stage: functions.get(stage, ()) + each for stage, each in own.items()}
    declared = [row for row in rows if row is not None]
    return Staged(number, min(declared) if declared and len(declared) == len(rows) else None, functions)


def _moves_deepstack(prompt: Prompt, functions: dict[int, Functions]) -> bool:
    """Whether hook functions edit the tower's features of a prompt whose layers are given such features, too. A walk
    hands all its branches the same ones, so that this runs in full."""
    return bool(prompt.deepstack) and any(name == "frontend.hook_video_features" for name, _ in functions.get(-1, ()))


def _first_row(model: HookedVideoTransformer, prompt: Prompt, one: Any, functions: dict[int, Functions]) -> int:
    """The first row of its cone; the number of rows where it changes nothing."""
    n_layers, n_pos = model.cfg.n_layers, prompt.shape[1]
    cone = one.cone(prompt)
    if cone is None:
        # not knockouts inside a pathway, which may cut nothing
        if type(one) is Knockout or (type(one) is Scale and one.factor != 1):
            what = "knockout" if type(one) is Knockout else "scaling"
            raise SelectionError(
                f"the {what} '{one.source} -> {one.target}' changes nothing that the prompt's last position sees, only "
                "what is generated after it: use it with model.generate, or change something of the prompt"
            )
        return n_pos
    try:
        layer, row = map(index, cone)
    except TypeError as error:
        raise VideolensError(
            f"the cone of {one!r} is {cone!r}: it must be (first layer, first row), or None"
        ) from error
    for kind, first, n in (("row", row, n_pos), ("layer", layer, n_layers)):
        if not 0 <= first < n:
            whole = f"the prompt of {n} tokens" if kind == "row" else "the model"
            raise VideolensError(f"the cone of {one!r} begins at {kind} {first}, outside {whole} ({kind}s 0 … {n - 1})")
    if functions and max(min(functions), 0) < layer:
        raise VideolensError(
            f"{one!r} says that it changes nothing before layer {layer}, but it has a hook function in layer "
            f"{max(min(functions), 0)}: its cone must begin there"
        )
    return row


def _by_stage(model: HookedVideoTransformer, called: str, hooks: Any) -> dict[int, Functions]:
    stages: dict[int, list[tuple[str, HookFunction]]] = {}
    pairs = list(hooks) if isinstance(hooks, Iterable) else [hooks]
    for pair in pairs:
        if not isinstance(pair, Sequence) or len(pair) != 2 or not callable(pair[1]):
            raise VideolensError(
                f"{called} has {pair!r} among its hook functions: they are a list of pairs (hook point, function)"
            )
        name, function = pair
        model.check_name(name)
        stages.setdefault(stage_of(name, model.cfg.n_layers), []).append((name, _hashable(function)))
    return {stage: tuple(each) for stage, each in stages.items()}


def _hashable(function: HookFunction) -> HookFunction:
    """The function itself, or, if it cannot be hashed, a wrapper that equals only itself."""
    try:
        hash(function)
    except TypeError:
        return partial(function)
    return function
