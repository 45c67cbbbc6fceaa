"""What the tests of the engine share: the plain way to evaluate, interventions of other kinds, and watching torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from helpers.models import tiny_llava_next_video
from helpers.prompts import tiny_prompt
from videolens.interventions.knockout import ROUTES, Knockout
from videolens.interventions.layer_sets import window_layers
from videolens.model.transformer import HookedVideoTransformer
from videolens.prompt.prompt import Prompt

HookList = list[tuple[str, Callable[[Tensor, Any], Tensor]]]

N_LAYERS = 5
FAMILIES: dict[str, dict[str, Any]] = {
    "grouped heads": {},
    "a key head per head, biases": {"num_key_value_heads": 4, "attention_bias": True},
    "one key head": {"num_key_value_heads": 1},
}
"""Text settings of tiny random models of five layers and four heads, under which attention matters."""


def random_model(family: str, *, dtype: torch.dtype = torch.float32) -> HookedVideoTransformer:
    """One of `FAMILIES`."""
    settings = {"num_hidden_layers": N_LAYERS} | FAMILIES[family]
    return HookedVideoTransformer.from_hugging_face(tiny_llava_next_video(text=settings)).to(dtype)


def random_pair(family: str, *, dtype: torch.dtype = torch.float32) -> tuple[HookedVideoTransformer, Prompt]:
    """One of `FAMILIES`, and a prompt of 25 positions with two options."""
    model = random_model(family, dtype=dtype)
    return model, tiny_prompt(model)


@torch.no_grad()
def plain_logits(model: HookedVideoTransformer, prompt: Prompt, interventions: Sequence[Any]) -> Tensor:
    """[intervention d_vocab] at "last", the plain way: one after the other, each a forward of the whole prompt."""
    last = int(prompt.tokens["last"][0])
    rows = [model.run_with_hooks(prompt, fwd_hooks=list(one.hooks(prompt)))[0, last] for one in interventions]
    return torch.stack(rows) if rows else torch.empty(0, model.cfg.d_vocab, dtype=model.cfg.dtype)


def distance(ours: Tensor, theirs: Tensor, spread: Tensor) -> Tensor:
    """max |Δlogit| of every row, in standard deviations of the unblocked logits."""
    return (ours.double() - theirs.double()).abs().amax(-1) / spread.double()


def all_windows(n_layers: int, window: int, routes: Sequence[str] = ROUTES) -> list[Knockout]:
    """Every window of every route, as a flow map has them."""
    return [
        Knockout.route(route, layers=window_layers(layer, window, n_layers))
        for route in routes
        for layer in range(n_layers)
    ]


class NotKnockout:
    """Acts on layers and heads that any model has."""

    def check(self, *, n_layers: int, n_heads: int) -> None:
        """Nothing to complain about."""


@dataclass(frozen=True)
class Idle(NotKnockout):
    """Changes nothing, and says so."""

    def hooks(self, prompt: Prompt) -> HookList:
        """None."""
        return []

    def cone(self, prompt: Prompt) -> None:
        """Nothing."""


class Lenient(Knockout):
    """A knockout that may cut nothing, as those inside a pathway."""

    hooks = Knockout.functions


@dataclass(frozen=True)
class _Scale:
    rows: tuple[int, ...]
    factor: float

    def __call__(self, value: Tensor, hook: Any) -> Tensor:
        # [batch head row key] for scores and patterns, [batch row …] for everything else
        axis = -2 if hook.name.endswith(("hook_pattern", "hook_attn_scores")) else 1
        hit = torch.isin(hook.ctx["rows"], torch.tensor(self.rows))
        assert value.shape[0] == 1 and value.shape[axis] == len(hit), (hook.name, value.shape, len(hit))
        shape = [1] * value.ndim
        shape[axis] = len(hit)
        return torch.where(hit.view(shape), value * self.factor, value)


@dataclass(frozen=True)
class Scaled(NotKnockout):
    """Multiplies an activation at some positions. Its functions compare equal where they do the same."""

    point: str
    layer: int
    rows: tuple[int, ...]
    factor: float = 2.0

    def hooks(self, prompt: Prompt) -> HookList:
        """One function."""
        name = f"blocks.{self.layer}.{self.point}" if self.point in POINTS else self.point
        return [(name, _Scale(self.rows, self.factor))]

    def cone(self, prompt: Prompt) -> tuple[int, int] | None:
        """From its layer and its first position on."""
        return (self.layer, min(self.rows)) if self.rows else None


POINTS = (
    "hook_resid_pre",
    "hook_resid_mid",
    "hook_resid_post",
    "hook_attn_out",
    "hook_mlp_out",
    "ln1.hook_normalized",
    "ln2.hook_scale",
    "attn.hook_q",
    "attn.hook_k",
    "attn.hook_v",
    "attn.hook_rot_q",
    "attn.hook_rot_k",
    "attn.hook_attn_scores",
    "attn.hook_pattern",
    "attn.hook_z",
    "mlp.hook_pre",
    "mlp.hook_post",
)
"""Hook points of a block that hold numbers."""


@dataclass(frozen=True)
class Both(NotKnockout):
    """Two interventions at once: from the earlier layer and the earlier row of the two on."""

    first: Any
    second: Any

    def hooks(self, prompt: Prompt) -> HookList:
        """Those of the first, then those of the second; who changes nothing is left out, for it has no cone."""
        return [hook for one in (self.first, self.second) if one.cone(prompt) is not None for hook in one.hooks(prompt)]

    def cone(self, prompt: Prompt) -> tuple[int, int] | None:
        """Around both."""
        cones = [cone for one in (self.first, self.second) if (cone := one.cone(prompt)) is not None]
        return (min(layer for layer, _ in cones), min(row for _, row in cones)) if cones else None


@dataclass(frozen=True)
class Claiming(NotKnockout):
    """An intervention that declares whatever cone it is told to."""

    honest: Any
    claimed: tuple[int, int] | None

    def hooks(self, prompt: Prompt) -> HookList:
        """Those of the honest one."""
        return self.honest.hooks(prompt)

    def cone(self, prompt: Prompt) -> tuple[int, int] | None:
        """What it was told to say."""
        return self.claimed


@dataclass(frozen=True)
class Coneless(NotKnockout):
    """Hook functions that say nothing about what they change."""

    honest: Any

    def hooks(self, prompt: Prompt) -> HookList:
        """Those of the honest one."""
        return self.honest.hooks(prompt)


@dataclass(frozen=True)
class Named(NotKnockout):
    """A function that does nothing, on a hook point of any name."""

    name: str

    def hooks(self, prompt: Prompt) -> HookList:
        """One function."""
        return [(self.name, _Scale((), 1.0))]

    def cone(self, prompt: Prompt) -> tuple[int, int]:
        """Everything."""
        return 0, 0


class NothingRuns(TorchDispatchMode):
    """Inside, a matrix product is a failure: whatever way a model is run, it cannot do without."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Every operation passes through here."""
        assert not str(func).startswith(("aten.mm", "aten.addmm", "aten.bmm", "aten.linear", "aten.baddbmm")), (
            f"the model ran: {func}"
        )
        return func(*args, **(kwargs or {}))


class LargestFloat(TorchDispatchMode):
    """Remembers the shapes of the floating-point tensors that were made, by the size of their two last dimensions."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: set[tuple[int, ...]] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Every operation passes through here."""
        result = func(*args, **(kwargs or {}))
        for one in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(one, Tensor) and one.is_floating_point():
                self.shapes.add(tuple(one.shape))
        return result

    def squares(self, n: int) -> list[tuple[int, ...]]:
        """Shapes that hold a matrix of n × n or more over two neighbouring dimensions."""
        return [shape for shape in self.shapes if any(min(pair) >= n for pair in pairwise(shape))]
