"""The module of LLaVA-Video and of LLaVA-OneVision as its authors published it, from one flat config."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import nn

from videolens.errors import ModelError
from videolens.model.families._newlines import POOLS, POSITIONS

_TOWERS = {
    "siglip-so400m-patch14-384": {
        "hidden_size": 1152,
        "intermediate_size": 4304,
        "num_hidden_layers": 27,
        "num_attention_heads": 16,
        "image_size": 384,
        "patch_size": 14,
    }
}
"""What the config.json of a tower says that a checkpoint names and does not describe."""


class _Setting(NamedTuple):
    """What config.json may say under a name.

    Attributes:
        missing: what the authors' code takes where it says nothing.
        read: what is read here.
        otherwise: what anything else is, in words.
    """

    missing: Any
    read: tuple[Any, ...]
    otherwise: str


_SETTINGS = {
    "mm_projector_type": _Setting("linear", ("mlp2x_gelu",), "another projector"),
    "mm_patch_merge_type": _Setting("flat", ("spatial_unpad",), "with which there is no image_newline"),
    "mm_newline_position": _Setting("one_token", POSITIONS, "where no newline is known to go"),
    "mm_spatial_pool_mode": _Setting(None, POOLS, "another way to pool"),
    "mm_spatial_pool_stride": _Setting(None, (2, None), "and the authors' code pools videos by 2 all the same"),
    "mm_vision_select_layer": _Setting(-2, (-2,), "and the authors' code takes the second to last all the same"),
    "mm_resampler_type": _Setting(None, (None,), "another way from patches to tokens"),
    "mm_use_im_start_end": _Setting(False, (False, None), "tokens around the video that no published model knows"),
    "add_faster_video": _Setting(False, (False, None), "frames of fewer tokens among others, which no grid can hold"),
}


class LlavaQwen(nn.Module):
    """Tower, projector, newline and decoder.

    Args:
        config: config.json as it is published. What it leaves to defaults is filled in.

    Raises:
        ModelError: a setting or a tower that is not read.
    """

    def __init__(self, config: Any) -> None:
        from transformers import Qwen2ForCausalLM, SiglipVisionModel

        super().__init__()
        for name, (missing, read, otherwise) in _SETTINGS.items():
            found = getattr(config, name, missing)
            if found not in read:
                read_are = " or ".join(map(repr, read))
                raise ModelError(f"config.json has {name} {found!r}, {otherwise}: of this layout {read_are} is read")
            setattr(config, name, found)
        config.vision_config = _tower_settings(config)
        text = _decoder_settings(config.to_dict())
        d_vision, d_model = config.vision_config.hidden_size, text.hidden_size
        tower: Any = SiglipVisionModel(config.vision_config)
        tower.post_layernorm = nn.Identity()
        self.vision_tower = tower
        self.mm_projector = nn.Sequential(nn.Linear(d_vision, d_model), nn.GELU(), nn.Linear(d_model, d_model))
        self.image_newline = nn.Parameter(torch.zeros(d_model))
        self.language_model = Qwen2ForCausalLM(text)


def _tower_settings(config: Any) -> Any:
    """Of the tower without its last layer, from `vision_config` if config.json has it, else by its name.

    A `ModelError` for a tower of which neither is known.
    """
    from transformers import SiglipVisionConfig

    name = str(getattr(config, "mm_vision_tower", None))
    said = getattr(config, "vision_config", None) or _TOWERS.get(name.rpartition("/")[2])
    if said is None or "siglip" not in name:
        raise ModelError(
            f"config.json has mm_vision_tower {name!r}, of which it says no more: {' or '.join(_TOWERS)} is known; for "
            "another SigLIP add what its own config.json says as vision_config; other towers are not read"
        )
    said = said if isinstance(said, dict) else said.to_dict()
    settings: dict[str, Any] = {key: said[key] for key in SiglipVisionConfig.__annotations__ if key in said}
    whole = SiglipVisionConfig(**settings)
    whole.num_hidden_layers -= 1
    whole.vision_use_head = False
    return whole


def _decoder_settings(said: Mapping[str, Any]) -> Any:
    """Of the decoder: rotary positions as they are, and no more of them than the authors' code keeps."""
    from transformers import Qwen2Config

    settings = {name: value for name, value in said.items() if name in Qwen2Config.__annotations__}
    base = (said.get("rope_parameters") or {}).get("rope_theta", said.get("rope_theta"))
    settings["rope_parameters"] = None if base is None else {"rope_type": "default", "rope_theta": base}
    made = Qwen2Config(**settings)
    made.max_position_embeddings = min(
        made.max_position_embeddings, said.get("tokenizer_model_max_length") or made.max_position_embeddings
    )
    return made
