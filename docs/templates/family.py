"""A family of one's own, in one file: square patches of a frame, their mean colour, one linear layer, a Llama."""

from __future__ import annotations

from typing import Any

from einops import reduce
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from videolens.model.families import Family, Parts, register

PATCH = 8


class Toy(nn.Module):
    """Holds the weights under the names that the checkpoint's keys have."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.projector = nn.Linear(3, config.text_config.hidden_size)
        self.language_model = LlamaForCausalLM(LlamaConfig(**config.text_config.to_dict()))


def features(parts: Parts, pixels: Tensor, config: Any) -> Tensor:
    """Mean colour of every patch, row by row."""
    each = "batch frame channel (row ph) (column pw) -> batch frame (row column) channel"
    return reduce(pixels, each, "mean", ph=PATCH, pw=PATCH)


def project(parts: Parts, features: Tensor, config: Any, grid: tuple[int, int, int]) -> Tensor:
    """Each patch by itself."""
    return parts["projector"](features).flatten(1, 2)


FAMILY = register(
    Family(
        model_type="toy_video",
        architecture=Toy,
        decoder="language_model.model",
        unembed="language_model.lm_head",
        parts={"projector": "projector"},
        features=features,
        project=project,
        grid=lambda config, frames, height, width: (frames, height // PATCH, width // PATCH),
        video_token=lambda config: config.video_token_id,
        template="shapes",
    )
)
