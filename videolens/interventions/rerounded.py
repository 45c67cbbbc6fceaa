"""An intervention once more with its numbers rounded elsewhere: how much of a change is the dtype's rounding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from videolens.interventions.attention_mask import AsAttentionMask
from videolens.interventions.protocol import Hooks, Intervention
from videolens.prompt.prompt import Prompt

HALF = (torch.bfloat16, torch.float16)
"""Dtypes whose rounding shows in what an intervention changes."""


@dataclass(frozen=True)
class Rerounded(AsAttentionMask):
    """An intervention beside which the residual stream is moved by half a step of its dtype, up or down by chance.

    It is moved once, where the intervention begins: at its first layer, in its first row and all after it; before the
    first layer, if the intervention does not say where it begins. In exact
    arithmetic that would change nothing to speak of, so what it changes is what rounding decides.

    Attributes:
        intervention: what is done once more.
        seed: of the signs.
    """

    intervention: Intervention
    seed: int = 0

    def hooks(self, prompt: Prompt) -> Hooks:
        """Those of the intervention, and one on the residual stream where it begins."""
        own = list(self.intervention.hooks(prompt))
        cone = self.intervention.cone(prompt)
        return [*own, (f"blocks.{cone[0] if cone else 0}.hook_resid_pre", _HalfStep(self.seed))]

    def cone(self, prompt: Prompt) -> tuple[int, int] | None:
        """That of the intervention."""
        return self.intervention.cone(prompt)

    def check(self, *, n_layers: int, n_heads: int) -> None:
        """That of the intervention."""
        self.intervention.check(n_layers=n_layers, n_heads=n_heads)


@dataclass(frozen=True)
class _HalfStep:
    seed: int

    def __call__(self, value: Float[Tensor, "batch row d_model"], hook: Any) -> Float[Tensor, "batch row d_model"]:
        generator = torch.Generator().manual_seed(self.seed)
        signs = torch.randint(0, 2, value.shape[1:], generator=generator) * 2 - 1
        step = torch.finfo(value.dtype).eps / 2
        return (value.float() * (1 + step * signs.to(value.device))).to(value.dtype)
