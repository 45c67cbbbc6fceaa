"""Tiny Qwen2-VL and Qwen2.5-VL: random originals, their inputs, and the oddities that both have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import (
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
)

from helpers.parity import HuggingFaceReference, byte_tokenizer, ids_around, randomise, special_ids, write_module
from videolens import Prompt
from videolens.model.transformer import HookedVideoTransformer

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|video_pad|>")
IDS = special_ids((*SPECIAL, "<|image_pad|>"))
VIDEO = IDS["<|video_pad|>"]
D_VOCAB = 264
PATCH, MERGE, PAIR = 4, 2, 2
BLOCK = PATCH * MERGE
PREPROCESSOR = {
    "min_pixels": 4 * BLOCK**2,
    "max_pixels": 12 * BLOCK**2,
    "patch_size": PATCH,
    "temporal_patch_size": PAIR,
    "merge_size": MERGE,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "image_processor_type": "Qwen2VLImageProcessor",
}

TEXT: dict[str, Any] = dict(
    vocab_size=D_VOCAB,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=512,
    rms_norm_eps=1e-6,
    rope_theta=1000000.0,
    rope_scaling={"type": "mrope", "mrope_section": [1, 1, 2]},
    bos_token_id=IDS["<|endoftext|>"],
    eos_token_id=IDS["<|im_end|>"],
)
SHARED: dict[str, Any] = dict(
    video_token_id=VIDEO,
    image_token_id=IDS["<|image_pad|>"],
    vision_start_token_id=IDS["<|vision_start|>"],
    vision_end_token_id=IDS["<|vision_end|>"],
)
VISION: dict[str, Any] = dict(
    depth=2, num_heads=2, patch_size=PATCH, spatial_merge_size=MERGE, temporal_patch_size=PAIR, in_channels=3
)
VISION_2 = VISION | dict(embed_dim=16, hidden_size=32, mlp_ratio=2)
# windows of 2 × 2 blocks in the first layer, whole frames in the second
VISION_2_5 = VISION | dict(
    hidden_size=16,
    intermediate_size=24,
    out_hidden_size=32,
    window_size=2 * BLOCK,
    fullatt_block_indexes=[1],
    tokens_per_second=2,
)


def tiny_qwen2_vl(*, text: dict[str, Any] | None = None, vision: dict[str, Any] | None = None, **more: Any) -> Any:
    """A random `Qwen2VLForConditionalGeneration` with grouped-query attention."""
    config = Qwen2VLConfig(text_config=TEXT | (text or {}), vision_config=VISION_2 | (vision or {}), **(SHARED | more))
    return randomise(Qwen2VLForConditionalGeneration(config))


def tiny_qwen2_5_vl(*, text: dict[str, Any] | None = None, vision: dict[str, Any] | None = None, **more: Any) -> Any:
    """A random `Qwen2_5_VLForConditionalGeneration` with windows in its tower."""
    config = Qwen2_5_VLConfig(
        text_config=TEXT | (text or {}), vision_config=VISION_2_5 | (vision or {}), **(SHARED | more)
    )
    return randomise(Qwen2_5_VLForConditionalGeneration(config))


def tokenizer() -> Any:
    """With Qwen's special tokens."""
    return byte_tokenizer((*SPECIAL, "<|image_pad|>"), eos="<|im_end|>", pad="<|endoftext|>")


def flat_patches(pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Frames [clip frame channel height width] as transformers' video processor flattens them, and their grids.

    Written with loops, patch by patch.
    """
    rows, grids = [], []
    for clip in pixels:
        while len(clip) % PAIR:
            clip = torch.cat([clip, clip[-1:]])
        n, _, height, width = clip.shape
        grids.append([n // PAIR, height // PATCH, width // PATCH])
        for t in range(0, n, PAIR):
            for y in range(0, height, BLOCK):
                for x in range(0, width, BLOCK):
                    for dy in range(0, BLOCK, PATCH):
                        for dx in range(0, BLOCK, PATCH):
                            patch = clip[t : t + PAIR, :, y + dy : y + dy + PATCH, x + dx : x + dx + PATCH]
                            rows.append(patch.transpose(0, 1).flatten())
    return torch.stack(rows), torch.tensor(grids)


def reference(module: Any, *, seconds_each: float | None = None) -> HuggingFaceReference:
    """The original; `seconds_each`: from one pair of frames to the next."""

    def inputs(ids: Tensor, pixels: Tensor) -> dict[str, Any]:
        patches, grids = flat_patches(pixels)
        more = {} if seconds_each is None else {"second_per_grid_ts": torch.tensor([seconds_each] * len(grids))}
        return {
            "input_ids": ids,
            "pixel_values_videos": patches,
            "video_grid_thw": grids,
            "mm_token_type_ids": 2 * (ids == VIDEO).int(),
            **more,
        }

    return HuggingFaceReference(module, inputs)


def two_prompts(
    ours: HookedVideoTransformer, *, frames: int, height: int, width: int, step: float | None = None
) -> list[Prompt]:
    """Questions of unequal length about two clips."""
    seconds = None if step is None else [3.0 + step * i for i in range(frames)]
    return [
        ours.prompt_from_ids(
            ids_around([VIDEO], before=5, after=n, bos=None, seed=n),
            torch.randn(1, frames, 3, height, width),
            seconds=seconds,
        )
        for n in (9, 14)
    ]


def through_disk(original: torch.nn.Module, directory: Path) -> HookedVideoTransformer:
    """The original written as a checkpoint with tokenizer and preprocessor, and read back as ours."""
    write_module(directory, original, files={"preprocessor_config.json": PREPROCESSOR})
    tokenizer().save_pretrained(directory)
    return HookedVideoTransformer.from_pretrained(directory)
