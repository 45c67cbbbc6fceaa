"""The architectures this package can load: one small declarative file each, picked by `config.model_type`.

To add one, write a file beside `llava_next_video.py` (or anywhere, calling `register`) that makes a `Family`: where the
decoder's weights are, how pixels become video tokens, and on what grid. Nothing else in the package knows a model's
name.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from videolens.errors import ModelError, near

__all__ = ["LLAMA", "Family", "LayerPaths", "family_of", "known_families", "register"]

Parts = Mapping[str, nn.Module]


@dataclass(frozen=True)
class LayerPaths:
    """Where a decoder layer keeps its weights: paths below the layer."""

    q: str = "self_attn.q_proj"
    k: str = "self_attn.k_proj"
    v: str = "self_attn.v_proj"
    o: str = "self_attn.o_proj"
    gate: str = "mlp.gate_proj"
    up: str = "mlp.up_proj"
    down: str = "mlp.down_proj"
    ln1: str = "input_layernorm"
    ln2: str = "post_attention_layernorm"
    act: str = "mlp.act_fn"


LLAMA = LayerPaths()


@dataclass(frozen=True)
class Family:
    """What the package must know about one architecture.

    patch: positions of the vision tower's output per frame; video: video tokens of a prompt.

    Attributes:
        model_type: `config.model_type` of its checkpoints.
        architecture: the transformers class that reads them.
        decoder: path of the module that holds `embed_tokens`, `layers`, `norm` and `rotary_emb`.
        unembed: path of the module from residual to logits.
        parts: name → path of the front end's modules, handed to `features` and `project`.
        features: (parts, pixels [n channel height width], config) → tower output [n patch d_vision].
        project: (parts, features [batch frame patch d_vision], config) → video tokens [batch video d_model], frame by
            frame, row by row.
        grid: (config, frames, height, width) of the pixels → (frames, rows, columns) of the video tokens.
        video_token: id of the placeholder that stands for the video in `input_ids`.
        text_config: the decoder's part of the config.
        layer: where a layer keeps its weights.
    """

    model_type: str
    architecture: str
    decoder: str
    unembed: str
    parts: Mapping[str, str]
    features: Callable[[Parts, Float[Tensor, "n channel height width"], Any], Float[Tensor, "n patch d_vision"]]
    project: Callable[[Parts, Float[Tensor, "batch frame patch d_vision"], Any], Float[Tensor, "batch video d_model"]]
    grid: Callable[[Any, int, int, int], tuple[int, int, int]]
    video_token: Callable[[Any], int]
    text_config: Callable[[Any], Any] = field(default=lambda config: config.get_text_config())
    layer: LayerPaths = LLAMA


_FAMILIES: dict[str, Family] = {}


def register(family: Family) -> Family:
    """Make an architecture known. Registering a model type again replaces it."""
    _FAMILIES[family.model_type] = family
    return family


def known_families() -> list[str]:
    """Model types that can be loaded: every file of this folder registers its own."""
    for module in pkgutil.iter_modules(__path__):
        import_module(f"{__name__}.{module.name}")
    return sorted(_FAMILIES)


def family_of(model_type: str) -> Family:
    """The family of a `config.model_type`.

    Raises:
        ModelError: no such family; lists the known ones and says how to add one.
    """
    if model_type not in known_families():
        raise ModelError(
            near(model_type, known_families(), kind="model_type")
            + "; a text-only model has no video to trace, another VideoLLM needs a file in videolens/model/families"
        )
    return _FAMILIES[model_type]
