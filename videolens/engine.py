"""Evaluating many interventions on one prompt.

What is asked is always the same: the logits at the prompt's last position, under each intervention. The interventions
are independent, so they run side by side as the rows of a batch, each hook function seeing its own row only.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from videolens.errors import PromptError, VideolensError
from videolens.model.transformer import HookedVideoTransformer
from videolens.prompt import Prompt

__all__ = ["Intervention", "evaluate", "last_logits"]

HookFunction = Callable[[Tensor, Any], Tensor]


@runtime_checkable
class Intervention(Protocol):
    """Anything that can say, for a prompt, which hook functions it is, and whether a model has what it acts on."""

    def hooks(self, prompt: Prompt) -> list[tuple[str, HookFunction]]:
        """Hook functions by the name of their hook point."""
        ...

    def check(self, *, n_layers: int, n_heads: int) -> None:
        """Raise a `VideolensError` if it acts on layers or heads that the model does not have."""
        ...


@torch.no_grad()
def last_logits(model: HookedVideoTransformer, prompt: Prompt) -> Float[Tensor, " d_vocab"]:
    """Logits at the last position of one prompt, with nothing changed, in float32.

    Raises:
        PromptError: a batch of several prompts.
    """
    _check_single(prompt)
    return model(prompt)[0, prompt.tokens["last"][0]].float()


@torch.no_grad()
def evaluate(
    model: HookedVideoTransformer, prompt: Prompt, interventions: Sequence[Intervention], *, max_batch: int = 16
) -> Float[Tensor, "intervention d_vocab"]:
    """Logits at the last position of one prompt under each intervention, in float32.

    1. The prompt is repeated once per intervention, `max_batch` at a time, without copying what it holds.
    2. Hook functions on the same hook point become one, which hands every function its own row of the batch.
    3. One full forward gives the last rows of all.

    Args:
        prompt: a single prompt.
        interventions: what to change, each on its own.
        max_batch: interventions per forward; memory grows with it.

    Raises:
        PromptError: a batch of several prompts.
        VideolensError: `max_batch` below 1, or an intervention on layers or heads that the model does not have.
    """
    _check_single(prompt)
    if max_batch < 1:
        raise VideolensError(f"max_batch must be at least 1, got {max_batch}")
    for intervention in interventions:
        intervention.check(n_layers=model.cfg.n_layers, n_heads=model.cfg.n_heads)
    last = int(prompt.tokens["last"][0])
    logits = [torch.empty(0, model.cfg.d_vocab, device=prompt.device)]
    for chunk in _chunks(interventions, max_batch):
        hooks = batched_hooks([intervention.hooks(prompt) for intervention in chunk])
        logits.append(model.run_with_hooks(prompt.repeated(len(chunk)), fwd_hooks=hooks)[:, last].float())
    return torch.cat(logits)


def batched_hooks(hooks: Sequence[Sequence[tuple[str, HookFunction]]]) -> list[tuple[str, HookFunction]]:
    """One list of hook functions from one list per row of a batch: every function sees and changes its own row only."""
    at_point: dict[str, list[tuple[int, HookFunction]]] = defaultdict(list)
    for row, functions in enumerate(hooks):
        for name, function in functions:
            at_point[name].append((row, function))
    return [(name, _each_its_row(functions, len(hooks))) for name, functions in at_point.items()]


def _each_its_row(functions: Sequence[tuple[int, HookFunction]], n_rows: int) -> HookFunction:
    def apply(value: Tensor, hook: Any) -> Tensor:
        # a mask may come with a batch of one that stands for all rows
        rows = list(value.expand(n_rows, *value.shape[1:]).split(1))
        for row, function in functions:
            changed = function(rows[row], hook)
            rows[row] = rows[row] if changed is None else changed
        # a function that cuts some heads only gives one mask per head where the others have one for all
        return torch.cat(torch.broadcast_tensors(*rows))

    return apply


def _chunks(interventions: Sequence[Intervention], size: int) -> Iterator[Sequence[Intervention]]:
    return (interventions[first : first + size] for first in range(0, len(interventions), size))


def _check_single(prompt: Prompt) -> None:
    if len(prompt) != 1:
        raise PromptError(f"one prompt is evaluated at a time, got a batch of {len(prompt)}: `for single in prompt`")
