"""PLLaVA (`PllavaForConditionalGeneration`): CLIP tower, two-layer projector, 3-D average pooling, Llama decoder.

The layout of LLaVA-NeXT-7B-Video-FT and -13B- in Map the Flow (section "Models"): model type "llava", told from plain
LLaVA, which knows no video and is not read, by its architecture. Keys are those of transformers 4.4x. All patches of
all frames are projected first; then an adaptive average pool brings [frames, rows, columns] to `pooling_shape`
(arXiv 2404.16994, section "Pooling"). The tower and the decoder are transformers' own, built from the config.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from videolens.errors import ModelError
from videolens.model.families import About, Clock, Family, Parts, register
from videolens.model.families._frames import check_size
from videolens.prompt.video_layout import VideoLayout

_PLACEHOLDER = 32000  # where the published tokenizers have <image>


class Projector(nn.Module):
    """Each patch by itself: linear, activation, linear."""

    def __init__(self, d_vision: int, d_model: int, act: str) -> None:
        from transformers.activations import ACT2FN

        super().__init__()
        self.linear_1, self.linear_2 = nn.Linear(d_vision, d_model), nn.Linear(d_model, d_model)
        self.act = ACT2FN[act]

    def forward(self, features: Float[Tensor, "*place d_vision"]) -> Float[Tensor, "*place d_model"]:
        """Features of the tower at the decoder's width."""
        return self.linear_2(self.act(self.linear_1(features)))


class Pllava(nn.Module):
    """Tower, projector and decoder, with the names of the checkpoint's keys.

    Args:
        config: config.json as it is published. What its parts leave to defaults is filled in.

    Raises:
        ModelError: it asks for another decoder, pooling or choice of features than is described above.
    """

    def __init__(self, config: Any) -> None:
        from transformers import CLIPVisionConfig, CLIPVisionModel, LlamaConfig, LlamaForCausalLM

        super().__init__()
        text, vision = config.text_config.to_dict(), config.vision_config.to_dict()
        for name, found, expected in (
            ("text_config.model_type", text.get("model_type", "llama"), "llama"),
            ("vision_config.model_type", vision.get("model_type", "clip_vision_model"), "clip_vision_model"),
            ("pooling_method", getattr(config, "pooling_method", "avg"), "avg"),
            ("vision_feature_select_strategy", getattr(config, "vision_feature_select_strategy", "default"), "default"),
        ):
            if found != expected:
                raise ModelError(f"config.json has {name} {found!r}; of the PLLaVA layout {expected!r} is read")
        shape, layer = config.pooling_shape, getattr(config, "vision_feature_layer", -2)
        if not (isinstance(shape, list) and len(shape) == 3 and all(isinstance(n, int) and n > 0 for n in shape)):
            raise ModelError(f"config.json has pooling_shape {shape!r}; expected [frames, rows, columns] of the video")
        # of what config.json says, what the parts are made of: not how they were trained or run
        known = {*LlamaConfig.__annotations__, "rope_scaling", "rope_theta"}
        config.text_config = LlamaConfig(**{name: text[name] for name in known & set(text)})
        known = set(CLIPVisionConfig.__annotations__)
        config.vision_config = CLIPVisionConfig(**{name: vision[name] for name in known & set(vision)})
        n_states = config.vision_config.num_hidden_layers + 1
        if not isinstance(layer, int) or not -n_states <= layer < n_states:
            raise ModelError(f"config.json has vision_feature_layer {layer!r}; the tower has {n_states} hidden states")
        config.vision_feature_layer = layer
        act = getattr(config, "projector_hidden_act", "gelu")
        self.vision_tower = CLIPVisionModel(config.vision_config)
        self.multi_modal_projector = Projector(config.vision_config.hidden_size, config.text_config.hidden_size, act)
        self.language_model = LlamaForCausalLM(config.text_config)


def features(
    parts: Parts, pixels: Float[Tensor, "batch frame channel height width"], config: Any
) -> Float[Tensor, "batch frame_of_grid patch d_vision"]:
    """Hidden states of the tower at the chosen layer, patches only; of frames that are pooled, one after another."""
    states = parts["tower"](pixels.flatten(0, 1), output_hidden_states=True).hidden_states[config.vision_feature_layer]
    frames = states[:, 1:].unflatten(0, (len(pixels), config.pooling_shape[0], -1))
    return frames.flatten(2, 3)


def project(
    parts: Parts, features: Float[Tensor, "batch frame patch d_vision"], config: Any, grid: tuple[int, int, int]
) -> Float[Tensor, "batch video d_model"]:
    """Project every patch to the decoder's width, then pool over time and space."""
    rows = config.vision_config.image_size // config.vision_config.patch_size
    patches = "batch frame (merged row column) d -> batch d (frame merged) row column"
    wide = rearrange(parts["projector"](features), patches, row=rows, column=rows)
    pooled = F.adaptive_avg_pool3d(wide, grid)
    return rearrange(pooled, "batch d frame row column -> batch (frame row column) d")


def grid(config: Any, frames: int, height: int, width: int) -> tuple[int, int, int]:
    """Frames, rows and columns of the video tokens: `pooling_shape`, whatever number of frames is pooled to it.

    A `ModelError` for frames of another size than the tower's, or so many that they would be repeated or overlap in
    the pool, so that a token had no frame of its own.
    """
    most, rows, columns = config.pooling_shape
    check_size(config.vision_config.image_size, height, width)
    if frames < 1 or frames % most:
        raise ModelError(
            f"{frames} frames cannot be pooled to the {most} of pooling_shape {config.pooling_shape}, each made of as "
            f"many frames: sample {most} frames, or a multiple of {most}"
        )
    return most, rows, columns


def layout(config: Any, grid: tuple[int, int, int], clock: Clock) -> VideoLayout:
    """Video tokens with nothing between them; frames that are pooled are shown when their first is."""
    merged = len(clock.seconds) // grid[0]
    return VideoLayout.plain(grid, seconds=clock.seconds[::merged], merged=merged)


FAMILY = register(
    Family(
        model_type="llava",
        architectures=("PllavaForConditionalGeneration",),
        architecture=Pllava,
        rename=((r"^vision_tower\.vision_model\.", "vision_tower."),),
        decoder="language_model.model",
        unembed="language_model.lm_head",
        parts={"tower": "vision_tower", "projector": "multi_modal_projector"},
        features=features,
        project=project,
        grid=grid,
        layout=layout,
        video_token=lambda config: getattr(config, "image_token_index", _PLACEHOLDER),
        template="vicuna",
        about=About("LLaVA-NeXT-7B/13B-Video-FT", "CLIP, adaptive pooling", "Llama"),
    )
)
