"""Qwen3-VL: a time before every pair of frames, features of the tower added after the decoder's first layers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
from PIL import Image
from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration
from transformers.models.glm4v.video_processing_glm4v import smart_resize
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.qwen3_vl.processing_qwen3_vl import Qwen3VLProcessor

from helpers.checkpoints import byte_tokenizer, randomise
from helpers.clips import clip
from helpers.families.case import HALF, Case, Variant, metadata
from helpers.families.qwen import (
    BLOCK,
    IDS,
    MERGE,
    PAIR,
    PATCH,
    SHARED,
    SPECIAL,
    VIDEO,
    flat_patches,
    inputs,
    of_blocks,
)
from helpers.models import DECODER
from helpers.parity import HuggingFaceReference
from videolens import Prompt, Question, Video
from videolens.model.transformer import HookedVideoTransformer
from videolens.prompt.known_templates import template_named

PREPROCESSOR = {
    "size": {"shortest_edge": 8 * BLOCK**2, "longest_edge": 48 * BLOCK**2},
    "patch_size": PATCH,
    "temporal_patch_size": PAIR,
    "merge_size": MERGE,
    **HALF,
    "video_processor_type": "Qwen3VLVideoProcessor",
}
TEXT: dict[str, Any] = DECODER | dict(
    head_dim=16,
    rms_norm_eps=1e-6,
    rope_theta=5000000.0,
    rope_scaling={"rope_type": "default", "mrope_section": [2, 3, 3], "mrope_interleaved": True},
    bos_token_id=IDS["<|endoftext|>"],
    eos_token_id=IDS["<|im_end|>"],
)
VISION: dict[str, Any] = dict(
    depth=4,
    num_heads=2,
    hidden_size=16,
    intermediate_size=24,
    out_hidden_size=32,
    patch_size=PATCH,
    spatial_merge_size=MERGE,
    temporal_patch_size=PAIR,
    num_position_embeddings=36,  # 6 × 6 places, which other shapes are resampled from
    deepstack_visual_indexes=[0, 2],
)


def tiny(*, text: dict[str, Any] | None = None, vision: dict[str, Any] | None = None, **more: Any) -> Any:
    """A random `Qwen3VLForConditionalGeneration` whose first two layers are given features."""
    config = Qwen3VLConfig(text_config=TEXT | (text or {}), vision_config=VISION | (vision or {}), **(SHARED | more))
    return randomise(Qwen3VLForConditionalGeneration(config))


def in_ids(frames: int, height: int, width: int) -> list[int]:
    """Every pair after other tokens, of unequal number, and between its tags."""
    tags, each = (IDS["<|vision_start|>"], IDS["<|vision_end|>"]), height // BLOCK * (width // BLOCK)
    found = []
    for pair in range(-(-frames // PAIR)):
        found += [7 + pair, *[9] * (pair % 2), tags[0], *[VIDEO] * each, tags[1]]
    return found


def written(prompt: Prompt) -> str:
    """As transformers' processor writes it, the times in its own words."""
    processor = object.__new__(Qwen3VLProcessor)
    processor.video_token, processor.vision_start_token, processor.vision_end_token = (
        "<|video_pad|>",
        "<|vision_start|>",
        "<|vision_end|>",
    )
    processor.video_processor = SimpleNamespace(merge_size=MERGE, temporal_patch_size=PAIR)
    return processor.replace_video_token(
        {"video_grid_thw": flat_patches(prompt.pixel_values)[1], "video_metadata": [metadata(prompt)]}, 0
    )


def sharing(said: dict[str, Any], frames: int) -> Callable[..., Any]:
    """Frames of the size that the original's own function gives them in a clip of so many, resized by PIL."""
    side, size = said["patch_size"] * said["merge_size"], said["size"]
    processor = Qwen2VLImageProcessorPil(**{**said, "size": {"shortest_edge": 1, "longest_edge": 2**30}})

    def prepare(images: list[Image.Image], **more: Any) -> Any:
        height, width = smart_resize(
            num_frames=frames,
            height=images[0].height,
            width=images[0].width,
            factor=side,
            temporal_factor=said["temporal_patch_size"],
            min_pixels=size["shortest_edge"],
            max_pixels=size["longest_edge"],
        )
        return processor([one.resize((width, height), Image.BICUBIC) for one in images], do_resize=False, **more)

    return prepare


TEMPLATE = template_named("vicuna").with_system("")  # short: there is room for few positions


def asked(ours: HookedVideoTransformer, *, frames: int = 4, brighter: int = 0) -> Prompt:
    """A question about a clip of so many frames, two a second."""
    shown = torch.cat([clip(40, 60, frames=4)] * 2)[:frames] + torch.tensor(brighter).byte()
    question = Question(Video.from_array(shown, fps=2.0), "What moves?", ["A ball", "A cube"], "A ball")
    return ours.prompt(question, template=TEMPLATE)


CASE = Case(
    original=tiny,
    reference=lambda module, step: HuggingFaceReference(module, partial(inputs, seconds_each=None)),
    # an odd number of frames, wider than high
    shape=(5, 2 * BLOCK, 3 * BLOCK),
    placeholder=VIDEO,
    in_ids=in_ids,
    written=written,
    tokenizer=lambda: byte_tokenizer(SPECIAL, eos="<|im_end|>", pad="<|endoftext|>"),
    before=5,
    preprocessor=PREPROCESSOR,
    preprocessor_file="video_preprocessor_config.json",
    published={
        "size": {"shortest_edge": 4096, "longest_edge": 32 * 32 * 200},
        "patch_size": 16,
        "temporal_patch_size": 2,
        "merge_size": 2,
        "resample": 3,
        **HALF,
    },
    image_processor=sharing,
    video_processor=("qwen3_vl", "Qwen3VLVideoProcessor"),
    head_norms=True,
    variants={
        "longer than wide": of_blocks(11, 1, 2),
        "one frame, higher than wide": of_blocks(1, 3, 1),
        "a token": of_blocks(2, 1, 1),
        "tied, a key head per head": Variant(
            {"text": {"tie_word_embeddings": True, "num_key_value_heads": 4}, "tie_word_embeddings": True}, tied=True
        ),
        "features after every layer, the last of the tower among them": Variant(
            {"vision": {"deepstack_visual_indexes": [1, 2, 3]}}
        ),
        "no features": Variant({"vision": {"deepstack_visual_indexes": []}}),
    },
    other_shapes={(2, 2 * BLOCK, 2 * BLOCK + 4): "blocks of 8 × 8"},
)
