"""Tiny random checkpoints in the real on-disk format, and a model small enough to solve by hand.

Initial weights are large enough that attention is far from uniform: what a knockout or a wrong mask does is then orders
of magnitude above rounding.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import CLIPVisionConfig, LlamaConfig, LlavaNextVideoConfig, LlavaNextVideoForConditionalGeneration

VIDEO, IMAGE, BOS, EOS = 90, 91, 1, 2
D_VOCAB = 96
DECODER: dict[str, Any] = dict(
    vocab_size=264,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=512,
)
"""A tiny decoder with grouped-query attention, whose vocabulary is `byte_tokenizer`'s with eight special tokens."""


def tiny_config(*, text: dict[str, Any] | None = None, vision: dict[str, Any] | None = None, **overrides: Any) -> Any:
    """Configuration of a tiny LLaVA-NeXT-Video: 16 × 16 frames, 2 × 2 video tokens a frame, grouped-query attention."""
    text_settings = DECODER | dict(
        vocab_size=D_VOCAB,
        head_dim=8,
        max_position_embeddings=128,
        bos_token_id=BOS,
        eos_token_id=EOS,
        pad_token_id=0,
    )
    vision_settings = dict(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=16, patch_size=4
    )
    settings = dict(
        vision_config=CLIPVisionConfig(**(vision_settings | (vision or {}))),
        text_config=LlamaConfig(**(text_settings | (text or {}))),
        video_token_index=VIDEO,
        image_token_index=IMAGE,
    )
    return LlavaNextVideoConfig(**(settings | overrides))


def tiny_llava_next_video(
    directory: Path | str | None = None, *, seed: int = 0, scale: float = 0.35, **overrides: Any
) -> Any:
    """A random `LlavaNextVideoForConditionalGeneration`, written to `directory` if one is given.

    Args:
        directory: gets config.json and model.safetensors, no tokenizer and no preprocessor files.
        seed: of the weights.
        scale: standard deviation of the decoder's projection weights, in units where 0.02 is the usual initial value.
        overrides: `text={…}` and `vision={…}` change those configs, anything else the whole.
    """
    generator = torch.Generator().manual_seed(seed)
    model = LlavaNextVideoForConditionalGeneration(tiny_config(**overrides)).eval().float()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if "norm" in name:
                parameter.copy_(1 + 0.2 * noise if name.endswith("weight") else 0.1 * noise)
            elif name.endswith("bias"):
                parameter.copy_(0.1 * noise)
            else:
                parameter.copy_(scale * noise)
    if directory is not None:
        model.save_pretrained(directory)
    return model


def tiny_inputs(
    *, frames: int = 3, rows: int = 1, side: int = 16, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Ids with one placeholder per row, the same with one per video token, and pixels."""
    generator = torch.Generator().manual_seed(seed)
    before = torch.randint(3, VIDEO, (rows, 4), generator=generator)
    after = torch.randint(3, VIDEO, (rows, 9), generator=generator)
    before[:, 0] = BOS
    place = torch.full((rows, 1), VIDEO)
    pixels = torch.randn(rows, frames, 3, side, side, generator=generator)
    each = (side // 8) ** 2
    return (
        torch.cat([before, place, after], dim=1),
        torch.cat([before, place.expand(-1, frames * each), after], dim=1),
        pixels,
    )
