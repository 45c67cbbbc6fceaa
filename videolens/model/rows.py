"""Which rows a forward computes and what they may look at: the one idea behind prefill, decoding and resumed runs.

A forward computes some *rows* of a prompt, each at an absolute position. Their *keys* are the rows themselves and,
before them, the positions whose keys and values an earlier forward has left in a `KeyValues`. Prefill has no earlier
ones, decoding has one row, a resumed run has the rows from the first that an intervention can change.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from transformer_lens.hook_points import HookPoint

__all__ = ["KeyValues", "Rows", "fire", "heard"]


@dataclass
class KeyValues:
    """Rotated keys and values of earlier positions, per layer.

    Attributes:
        layers: layer → (keys, values), each [batch past n_kv d_head]; a layer that nothing has reached is missing.
        growing: whether `extend` keeps what it is given (decoding) or only reads (a resumed run).
    """

    layers: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)
    growing: bool = True

    def extend(
        self, layer: int, k: Float[Tensor, "batch row n_kv d_head"], v: Float[Tensor, "batch row n_kv d_head"]
    ) -> tuple[Float[Tensor, "batch key n_kv d_head"], Float[Tensor, "batch key n_kv d_head"]]:
        """Keys and values of all positions: the stored ones, then these."""
        if layer in self.layers:
            past_k, past_v = (past.expand(k.shape[0], -1, -1, -1) for past in self.layers[layer])
            k, v = torch.cat([past_k, k], dim=1), torch.cat([past_v, v], dim=1)
        if self.growing:
            self.layers[layer] = (k, v)
        return k, v

    def before(self, row: int) -> KeyValues:
        """A read-only view of the positions before `row`, for a run that resumes there."""
        return KeyValues({layer: (k[:, :row], v[:, :row]) for layer, (k, v) in self.layers.items()}, growing=False)


@dataclass(frozen=True, eq=False)
class Rows:
    """The rows of one forward.

    Attributes:
        rows: absolute positions of the rows, ascending.
        keys: absolute positions of the keys: the earlier ones, then the rows.
        cos, sin: rotary tables of the rows.
        past: keys and values of the earlier positions; None where there are none and none are to be kept.
    """

    rows: Int64[Tensor, " row"]
    keys: Int64[Tensor, " key"]
    cos: Float[Tensor, "table row d_rotary"]
    sin: Float[Tensor, "table row d_rotary"]
    past: KeyValues | None = None

    @property
    def square(self) -> bool:
        """Every key is a row: the causal kernels, aligned at the top left, need no mask."""
        return len(self.rows) == len(self.keys)

    @property
    def open(self) -> bool:
        """Every row may see every key, as in a decoding step: nothing needs to be masked."""
        return len(self.rows) == 1

    @property
    def last(self) -> Rows:
        """The newest row alone."""
        return Rows(rows=self.rows[-1:], keys=self.keys, cos=self.cos[:, -1:], sin=self.sin[:, -1:], past=self.past)

    @cached_property
    def causal(self) -> Bool[Tensor, "1 1 row key"]:
        """True where a row may attend. Shared by all layers: clone before anybody may edit it."""
        return (self.rows[:, None] >= self.keys[None, :])[None, None]


def heard(point: HookPoint) -> bool:
    """Whether anybody listens to a hook point."""
    return bool(point._forward_hooks or point._backward_hooks or point._forward_pre_hooks)


def fire(point: HookPoint, value: Tensor, at: Rows | None) -> Tensor:
    """Pass a tensor through a hook point, telling its listeners which rows and keys it holds.

    `hook.ctx["rows"]` and `hook.ctx["keys"]` are absolute positions in the prompt. Costs nothing when nobody listens.
    """
    if not heard(point):
        return value
    if at is not None:
        point.ctx["rows"], point.ctx["keys"] = at.rows, at.keys
    return point(value)
