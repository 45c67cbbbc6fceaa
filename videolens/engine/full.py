"""The plain way: one forward of the whole prompt under hook functions. The reference that the engine must equal."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from videolens.errors import PromptError
from videolens.interventions.protocol import HookFunction, Hooks
from videolens.model.transformer import HookedVideoTransformer
from videolens.model.turns import a_run
from videolens.prompt.batched_tokens import TokenMaps
from videolens.prompt.prompt import Prompt


@torch.no_grad()
def last_logits(model: HookedVideoTransformer, prompt: Prompt) -> Float[Tensor, " d_vocab"]:
    """Logits at the last position of a single prompt (else a `PromptError`), nothing changed, in float32 or wider."""
    return full_logits(model, prompt.single("an evaluation"), ())


@torch.no_grad()
def full_logits(model: HookedVideoTransformer, prompt: Prompt, hooks: Hooks) -> Float[Tensor, " d_vocab"]:
    """Logits at the last position under hook functions: every row of every layer is computed, one is read out."""
    return traced_logits(model, prompt, hooks)


def traced_logits(model: HookedVideoTransformer, prompt: Prompt, hooks: Hooks) -> Float[Tensor, " d_vocab"]:
    """What `full_logits` gives, with gradients to the prompt's residual where they are switched on."""
    return each_logits(model, prompt, hooks)[0]


@a_run()
def each_logits(model: HookedVideoTransformer, prompt: Prompt, hooks: Hooks) -> Float[Tensor, "batch d_vocab"]:
    """The same for every prompt of a batch: side by side, they cost less than one after the other.

    Raises:
        PromptError: their last positions differ.
    """
    maps = prompt.tokens.maps if isinstance(prompt.tokens, TokenMaps) else (prompt.tokens,)
    lasts = sorted({int(one["last"]) for one in maps})
    if len(lasts) > 1:
        raise PromptError(f"the last positions of the prompts of this batch differ, {lasts}: ask them one by one")
    last = torch.tensor(lasts, device=model.frontend.device)
    with model.hooks(hooks) if hooks else nullcontext():
        residual, at = model.enter(prompt)
        residual = model.run_layers(residual, at)
        return wide(model.read_out(residual[:, last], at.only(last)))[:, 0]


def wide(logits: Tensor) -> Tensor:
    """At least float32."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def batched_hooks(hooks: Sequence[Hooks]) -> list[tuple[str, HookFunction]]:
    """One list of hook functions from one list per copy in a batch: every function sees and changes its own copy."""
    at_point: dict[str, list[tuple[int, HookFunction]]] = defaultdict(list)
    for copy, functions in enumerate(hooks):
        for name, function in functions:
            at_point[name].append((copy, function))
    return [(name, _each_its_own(functions, len(hooks))) for name, functions in at_point.items()]


def _each_its_own(functions: Sequence[tuple[int, HookFunction]], n_copies: int) -> HookFunction:
    def apply(value: Tensor, hook: Any) -> Tensor:
        # one copy for all of them to work on: many hook functions edit in place
        value = value.expand(n_copies, *value.shape[1:]).clone()
        wider: dict[int, Tensor] = {}
        for copy, function in functions:
            mine = wider.get(copy, value[copy : copy + 1])
            result = function(mine, hook=hook)
            if result is None or result is mine:
                continue
            if result.shape[1:] == value.shape[1:]:
                value[copy] = result[0]
            else:
                wider[copy] = result
        if not wider:
            return value
        # a function that cuts some heads only gives one mask per head where the others have one for all
        parts = [wider.get(copy, value[copy : copy + 1]) for copy in range(n_copies)]
        return torch.cat(torch.broadcast_tensors(*parts))

    return apply
