"""An intervention of one's own, in one file: what the MLPs write at some positions is scaled, or taken away."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from videolens import Prompt
from videolens.interventions.numbering import check_within, whole_numbers


@dataclass(frozen=True)
class Toy:
    """In these layers, what the MLP writes at these positions is multiplied by a factor.

    Attributes:
        positions: a selection of the prompt: "video", "frame 2", "stem | options", "last", …
        layers: 0-based; kept sorted.
        factor: 0 takes it away, 1 changes nothing.
    """

    positions: str
    layers: tuple[int, ...]
    factor: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", whole_numbers("layer", self.layers))

    def hooks(self, prompt: Prompt) -> list[tuple[str, _Scale]]:
        """A hook function for every layer, by the name of its hook point."""
        scale = _Scale(tuple(prompt.tokens[self.positions].tolist()), self.factor)
        return [(f"blocks.{layer}.hook_mlp_out", scale) for layer in self.layers]

    def cone(self, prompt: Prompt) -> tuple[int, int] | None:
        """(first layer, first position) that it can change: the engine computes nothing before them again."""
        positions = prompt.tokens[self.positions]
        return (self.layers[0], int(positions[0])) if self.layers and len(positions) else None

    def check(self, *, n_layers: int, n_heads: int) -> None:
        """Raises:
        VideolensError: a layer that a model of this size does not have.
        """
        check_within("layer", self.layers, n_layers)


@dataclass(frozen=True)
class _Scale:
    """The hook function. Equal ones do the same, so that the engine computes what they share once."""

    positions: tuple[int, ...]
    factor: float

    def __call__(self, value: Float[Tensor, "batch row d_model"], hook: Any) -> Float[Tensor, "batch row d_model"]:
        """The value may hold some rows of the prompt only: `hook.ctx["rows"]` says which positions they are."""
        hit = torch.isin(hook.ctx["rows"], torch.tensor(self.positions, device=value.device))
        return torch.where(hit[:, None], value * self.factor, value)
