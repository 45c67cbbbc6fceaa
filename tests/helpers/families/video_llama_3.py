"""VideoLLaMA3 in the layout of transformers: frames of any shape, times and commas between them, Qwen2."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from transformers import VideoLlama3Config, VideoLlama3ForConditionalGeneration
from transformers.models.video_llama_3.image_processing_pil_video_llama_3 import VideoLlama3ImageProcessorPil
from transformers.models.video_llama_3.processing_video_llama_3 import VideoLlama3Processor

from helpers.checkpoints import byte_tokenizer, randomise, special_ids
from helpers.families.case import HALF, Case, Variant, metadata
from helpers.models import DECODER
from helpers.parity import HuggingFaceReference
from videolens import Prompt

SPECIAL = ("<|video_pad|>", "<|image_pad|>", "<|im_start|>", "<|im_end|>")
VIDEO = special_ids(SPECIAL)["<|video_pad|>"]
PATCH = 4
PREPROCESSOR: dict[str, Any] = {
    "video_processor_type": "VideoLlama3VideoProcessor",
    "size": {"shortest_edge": 2 * 64, "longest_edge": 24 * 64},
    "patch_size": PATCH,
    "merge_size": 2,
    "temporal_patch_size": 1,
    **HALF,
    "use_token_compression": True,
}


def tiny_config(**text: Any) -> VideoLlama3Config:
    """With grouped-query attention."""
    context = {"model_type": "qwen2", "max_position_embeddings": 2048, "rope_theta": 1e6}
    return VideoLlama3Config(
        text_config=DECODER | context | text,
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "patch_size": PATCH,
        },
        video_token_id=VIDEO,
        image_token_id=VIDEO + 1,
    )


def tiny(**text: Any) -> Any:
    """A random `VideoLlama3ForConditionalGeneration`."""
    return randomise(VideoLlama3ForConditionalGeneration(tiny_config(**text)))


def inputs(ids: Tensor, pixels: Tensor) -> dict[str, Tensor]:
    """What the original takes: patches in the order of transformers' video processor, every token kept."""
    clips, frames, channels, height, width = pixels.shape
    rows, columns = height // PATCH, width // PATCH
    blocks = pixels.reshape(clips, frames, channels, rows // 2, 2, PATCH, columns // 2, 2, PATCH)
    patches = blocks.permute(0, 1, 3, 6, 4, 7, 2, 5, 8).reshape(-1, channels * PATCH * PATCH)
    return {
        "input_ids": ids,
        "pixel_values_videos": patches,
        "video_grid_thw": torch.tensor([[frames, rows, columns]] * clips),
        "video_merge_sizes": torch.tensor([2] * clips),
        "video_compression_mask": torch.ones(clips * frames * rows * columns // 4, dtype=torch.bool),
    }


def between(placeholder: int, frames: int, height: int, width: int) -> list[int]:
    """Frames with other tokens before and between them."""
    frame = [5, 9, *[placeholder] * (height // (2 * PATCH) * (width // (2 * PATCH)))]
    return [*frame, *[7, *frame] * (frames - 1)]


def written(prompt: Prompt) -> str:
    """As transformers' processor writes it, the times in its own words."""
    frames, rows, columns = prompt.tokens.grid
    return VideoLlama3Processor.replace_video_token(
        SimpleNamespace(video_token="<|video_pad|>"),
        {
            "video_grid_thw": torch.tensor([[frames, 2 * rows, 2 * columns]]),
            "video_merge_sizes": torch.tensor([2]),
            "video_compression_mask": torch.ones(frames * rows * columns, dtype=torch.bool),
            "video_metadata": [metadata(prompt)],
        },
        0,
    )


def sharing(said: dict[str, Any], frames: int) -> VideoLlama3ImageProcessorPil:
    """Frames of one clip share its number of pixels; an image has it for itself."""
    size = said["size"] | {"longest_edge": said["size"]["longest_edge"] // frames}
    return VideoLlama3ImageProcessorPil(**{**said, "size": size})


CASE = Case(
    original=tiny,
    reference=lambda module, step: HuggingFaceReference(module, inputs, decoder="model.language_model"),
    shape=(3, 16, 24),
    placeholder=VIDEO,
    in_ids=lambda *shape: between(VIDEO, *shape),
    written=written,
    tokenizer=lambda: byte_tokenizer(SPECIAL, eos="<|im_end|>"),
    bos=1,
    preprocessor=PREPROCESSOR,
    preprocessor_file="video_preprocessor_config.json",
    published={
        "size": {"shortest_edge": 56 * 56, "longest_edge": 28 * 28 * 200},
        "patch_size": 14,
        "temporal_patch_size": 1,
        "merge_size": 2,
        "resample": 3,
        **HALF,
    },
    image_processor=sharing,
    video_processor=("video_llama_3", "VideoLlama3VideoProcessor"),
    variants={"tied": Variant({"tie_word_embeddings": True}, tied=True)},
    other_shapes={(3, 20, 24): r"20 × 24 .* 8 × 8"},
)
