"""Qwen2-VL and Qwen2.5-VL: frames in pairs, of any shape; positions along three axes; windows in the second's tower."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from transformers import (
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
)
from transformers.models.qwen2_5_vl.processing_qwen2_5_vl import Qwen2_5_VLProcessor
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.qwen2_vl.processing_qwen2_vl import Qwen2VLProcessor

from helpers.checkpoints import byte_tokenizer, randomise, special_ids
from helpers.families.case import CLIP, Case, Variant, of_images, relaid
from helpers.models import DECODER
from helpers.parity import HuggingFaceReference
from videolens import Prompt

SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|video_pad|>",
    "<|image_pad|>",
)
IDS = special_ids(SPECIAL)
VIDEO = IDS["<|video_pad|>"]
PATCH, MERGE, PAIR = 4, 2, 2
BLOCK = PATCH * MERGE
PREPROCESSOR = {
    "min_pixels": 4 * BLOCK**2,
    "max_pixels": 12 * BLOCK**2,
    "patch_size": PATCH,
    "temporal_patch_size": PAIR,
    "merge_size": MERGE,
    **CLIP,
    "image_processor_type": "Qwen2VLImageProcessor",
}
PUBLISHED = {
    "size": {"shortest_edge": 56 * 56, "longest_edge": 28 * 28 * 60},
    "patch_size": 14,
    "temporal_patch_size": 2,
    "merge_size": 2,
    "resample": 3,
    **CLIP,
}
TEXT: dict[str, Any] = DECODER | dict(
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


def tiny_qwen2_vl(*, text: dict[str, Any] | None = None, **more: Any) -> Any:
    """A random `Qwen2VLForConditionalGeneration`."""
    config = Qwen2VLConfig(text_config=TEXT | (text or {}), vision_config=VISION_2, **(SHARED | more))
    return randomise(Qwen2VLForConditionalGeneration(config))


def tiny_qwen2_5_vl(*, text: dict[str, Any] | None = None, **more: Any) -> Any:
    """A random `Qwen2_5_VLForConditionalGeneration` with windows in its tower."""
    config = Qwen2_5_VLConfig(text_config=TEXT | (text or {}), vision_config=VISION_2_5, **(SHARED | more))
    return randomise(Qwen2_5_VLForConditionalGeneration(config))


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


def inputs(ids: Tensor, pixels: Tensor, *, seconds_each: float | None) -> dict[str, Any]:
    """What the originals take; `seconds_each`: from one pair of frames to the next."""
    patches, grids = flat_patches(pixels)
    more = {} if seconds_each is None else {"second_per_grid_ts": torch.tensor([seconds_each] * len(grids))}
    return {
        "input_ids": ids,
        "pixel_values_videos": patches,
        "video_grid_thw": grids,
        "mm_token_type_ids": 2 * (ids == VIDEO).int(),
        **more,
    }


def written(prompt: Prompt, *, kind: type) -> str:
    """Transformers' own expansion; its video processor itself needs torchvision."""
    processor = object.__new__(kind)
    processor.video_token, processor.video_processor = "<|video_pad|>", SimpleNamespace(merge_size=MERGE)
    return processor.replace_video_token({"video_grid_thw": flat_patches(prompt.pixel_values)[1]}, 0)


def on_the_hub(original: Any, *, vision: dict[str, Any]) -> tuple[Mapping[str, Tensor], dict[str, Any]]:
    """config.json without a part for the text, keys as of transformers 4.4x."""
    names = (("model.visual.", "visual."), ("model.language_model.", "model."))
    state = relaid(original.state_dict(), *names)
    assert {key.split(".")[0] for key in state} == {"visual", "model", "lm_head"}
    config = {
        "architectures": [type(original).__name__],
        "model_type": original.config.model_type,
        "tie_word_embeddings": False,
        "vision_config": {"model_type": original.config.model_type, **vision},
        **SHARED,
        **TEXT,
    }
    return state, config


def case(
    original: Callable[..., Any], vision: dict[str, Any], kind: type, clips: dict[str, Variant], *, timed: bool
) -> Case:
    """What both are, but for their clips; `timed`: the original takes seconds."""

    def reference(module: Any, step: float | None) -> HuggingFaceReference:
        seconds = None if step is None or not timed else PAIR * step
        return HuggingFaceReference(module, partial(inputs, seconds_each=seconds))

    tied = {
        f"tied, {what}": Variant(
            {"text": {"tie_word_embeddings": True, "num_key_value_heads": keys}, "tie_word_embeddings": True},
            shape=(3, 3 * BLOCK, BLOCK),
            tied=True,
        )
        for what, keys in (("one key head", 1), ("a key head per head", 4))
    }
    hub = Variant(layout=partial(on_the_hub, vision=vision), shape=(4, BLOCK, 2 * BLOCK))
    return Case(
        original=original,
        reference=reference,
        # three blocks wide, two high: windows of unequal size; an odd number of frames
        shape=(5, 2 * BLOCK, 3 * BLOCK),
        placeholder=VIDEO,
        written=partial(written, kind=kind),
        tokenizer=lambda: byte_tokenizer(SPECIAL, eos="<|im_end|>", pad="<|endoftext|>"),
        before=5,
        preprocessor=PREPROCESSOR,
        published=PUBLISHED,
        image_processor=of_images(Qwen2VLImageProcessorPil),
        video_processor=("qwen2_vl", "Qwen2VLVideoProcessor"),
        variants={**clips, **tied, "the layout that the hub has": hub},
        other_shapes={(2, 2 * BLOCK, 2 * BLOCK + 4): "blocks of 8 × 8"},
    )


def of_blocks(frames: int, rows: int, columns: int, *, step: float | None = None) -> Variant:
    """A clip of so many blocks."""
    return Variant(shape=(frames, rows * BLOCK, columns * BLOCK), step=step)


QWEN2_VL = case(
    tiny_qwen2_vl,
    VISION_2,
    Qwen2VLProcessor,
    {"longer than wide": of_blocks(11, 1, 2), "one frame": of_blocks(1, 3, 1), "a token": of_blocks(2, 1, 1)},
    timed=False,
)
QWEN2_5_VL = case(
    tiny_qwen2_5_vl,
    VISION_2_5,
    Qwen2_5_VLProcessor,
    {
        "higher than wide, 0.5 s": of_blocks(4, 5, 3, step=0.5),
        "one row, 0.37 s": of_blocks(7, 1, 4, step=0.37),
        "square, 1 s": of_blocks(3, 3, 3, step=1.0),
        "one column, 2.5 s": of_blocks(12, 2, 1, step=2.5),
        "one frame, 1 s": of_blocks(1, 2, 2, step=1.0),
    },
    timed=True,
)
