"""LLaVA-Video and LLaVA-OneVision (`LlavaQwenForCausalLM`) put together from transformers' SigLIP and Qwen2.

From the authors' description (arXiv 2408.03326, 2410.02713) and their code; nothing here comes from the package. The
tower has all of its layers here, and what leaves the last but one counts.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Qwen2Config, Qwen2ForCausalLM, SiglipVisionConfig, SiglipVisionModel

from helpers.checkpoints import special_ids
from helpers.models import DECODER

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<image>")
IMAGE = special_ids(SPECIAL)["<image>"]
SIZE, PATCH = 20, 4  # 5 × 5 patches
VISION: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": SIZE,
    "patch_size": PATCH,
    "vision_use_head": True,
}
CONFIG: dict[str, Any] = {
    "architectures": ["LlavaQwenForCausalLM"],
    "model_type": "llava_qwen",
    "add_faster_video": False,
    "add_time_instruction": True,
    "faster_token_stride": 10,
    "force_sample": True,
    "hidden_act": "silu",
    "image_aspect_ratio": "anyres_max_9",
    "image_token_index": IMAGE,
    "mm_hidden_size": 16,
    "mm_newline_position": "grid",
    "mm_patch_merge_type": "spatial_unpad",
    "mm_projector_type": "mlp2x_gelu",
    "mm_resampler_type": None,
    "mm_spatial_pool_mode": "bilinear",
    "mm_spatial_pool_stride": 2,
    "mm_tunable_parts": "mm_vision_tower,mm_mlp_adapter,mm_language_model",
    "mm_use_im_patch_token": False,
    "mm_use_im_start_end": False,
    "mm_vision_select_feature": "patch",
    "mm_vision_select_layer": -2,
    "mm_vision_tower": "google/siglip-so400m-patch14-384",
    "rms_norm_eps": 1e-6,
    "rope_scaling": {"type": "linear", "factor": 3.0},
    "rope_theta": 1000000.0,
    "sliding_window": 131072,
    "tokenizer_model_max_length": 400,
    "use_sliding_window": False,
    "vision_config": VISION,
    **DECODER,
}
"""config.json as such checkpoints are published, at a tiny size; those name the tower and have no `vision_config`."""


class PlainLlavaQwen(nn.Module):
    """Ids and pixels → logits.

    Args:
        newlines: "grid", "frame", "one_token" or "no_token".
        pool: "bilinear", "average" or "max".
        tied: whether embedding and unembedding are one.
    """

    def __init__(self, newlines: str = "grid", pool: str = "bilinear", *, tied: bool = False) -> None:
        super().__init__()
        self.newlines, self.pool = newlines, pool
        text = Qwen2Config(
            **DECODER, rope_theta=CONFIG["rope_theta"], rms_norm_eps=1e-6, tie_word_embeddings=tied, use_cache=False
        )
        width = DECODER["hidden_size"]
        self.tower = SiglipVisionModel(SiglipVisionConfig(**VISION))
        self.mm_projector = nn.Sequential(nn.Linear(16, width), nn.GELU(), nn.Linear(width, width))
        self.image_newline = nn.Parameter(torch.zeros(width))
        self.text = Qwen2ForCausalLM(text)
        self.text.set_attn_implementation("eager")

    def frame(self, patches: Tensor) -> Tensor:
        """[row column width] of one frame's projected patches [patch width]."""
        square = patches.unflatten(0, (SIZE // PATCH, -1)).permute(2, 0, 1)[None]
        if self.pool == "bilinear":
            side = math.ceil(SIZE // PATCH / 2)
            small = nn.functional.interpolate(square, size=(side, side), mode="bilinear")
        elif self.pool == "average":
            small = nn.functional.avg_pool2d(square, 2)
        else:
            small = nn.functional.max_pool2d(square, 2)
        return small[0].permute(1, 2, 0)

    def video(self, pixels: Tensor) -> Tensor:
        """What takes the place of the video, of frames [frame channel height width]."""
        hidden = self.tower(pixels, output_hidden_states=True).hidden_states[-2]
        taken = []
        for patches in hidden:
            for row in self.frame(self.mm_projector(patches)):
                taken.append(row)
                if self.newlines == "grid":
                    taken.append(self.image_newline[None])
            if self.newlines == "frame":
                taken.append(self.image_newline[None])
        if self.newlines == "one_token":
            taken.append(self.image_newline[None])
        return torch.cat(taken)

    def forward(self, ids: Tensor, pixels: Tensor) -> Tensor:
        """[batch pos vocab]."""
        x = self.text.get_input_embeddings()(ids).clone()
        for row, clip in enumerate(pixels.expand(len(ids), *pixels.shape[1:])):
            x[row, ids[row] == IMAGE] = self.video(clip)
        return self.text(inputs_embeds=x).logits

    def published(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Its weights under the authors' keys, without what they do not store, and config.json."""
        state = {}
        last = f"encoder.layers.{VISION['num_hidden_layers'] - 1}."
        for key, value in self.tower.state_dict().items():
            if not key.startswith((last, "head.")):
                state[f"model.vision_tower.vision_tower.vision_model.{key}"] = value
        state |= {f"model.mm_projector.{key}": value for key, value in self.mm_projector.state_dict().items()}
        state |= {"model.image_newline": self.image_newline.data, **self.text.state_dict()}
        tied = self.text.config.tie_word_embeddings
        if tied:
            del state["lm_head.weight"]
        said = {"mm_newline_position": self.newlines, "mm_spatial_pool_mode": self.pool, "tie_word_embeddings": tied}
        return state, CONFIG | said
