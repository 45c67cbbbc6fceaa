"""SmolVLM2: square frames, pixel shuffle, a time before each frame, Llama."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import torch
from transformers import SmolVLMConfig, SmolVLMForConditionalGeneration
from transformers.models.smolvlm import processing_smolvlm
from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil

from helpers.checkpoints import byte_tokenizer, randomise, special_ids
from helpers.families.case import HALF, Case, Variant, called_with, metadata
from helpers.models import DECODER
from videolens import Prompt

SPECIAL = ("<|im_start|>", "<end_of_utterance>", "<fake_token_around_image>", "<global-img>", "<image>")
IDS = special_ids(SPECIAL)
IMAGE, AROUND = IDS["<image>"], IDS["<fake_token_around_image>"]
SIDE, BLOCK = 16, 8  # 4 × 4 patches a frame, shuffled to 2 × 2
PREPROCESSOR: dict[str, Any] = {
    "size": {"longest_edge": 4 * SIDE},
    "max_image_size": {"longest_edge": SIDE},
    "video_sampling": {"fps": 1, "max_frames": 64, "video_size": {"longest_edge": SIDE}},
    "resample": 1,
    "do_image_splitting": True,
    "do_pad": True,
    **HALF,
}
REFUSED = r"{} × {} pixels .* prepare square frames"
WORDS = {1: "one", 2: "two", 3: "three"}
"""What the package num2words says, which the original's processor needs."""


def tiny(*, text: dict[str, Any] | None = None, vision: dict[str, Any] | None = None, **more: Any) -> Any:
    """A random `SmolVLMForConditionalGeneration`."""
    sizes = dict(hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, patch_size=4)
    settings = {"model_type": "llama", "bos_token_id": None, "eos_token_id": IDS["<end_of_utterance>"]}
    config = SmolVLMConfig(
        text_config=DECODER | settings | {"max_position_embeddings": 1024} | (text or {}),
        vision_config={"image_size": SIDE, **sizes, **(vision or {})},
        image_token_id=IMAGE,
        **more,
    )
    return randomise(SmolVLMForConditionalGeneration(config))


def in_ids(frames: int, height: int, width: int) -> list[int]:
    """Every frame after other tokens, and between its tags."""
    each = height // BLOCK * (width // BLOCK)
    return [5, *[7, 9, AROUND, IDS["<global-img>"], *[IMAGE] * each, AROUND] * frames]


def written(prompt: Prompt) -> str:
    """As transformers' processor writes it, of the whole file that the frames are sampled from."""
    processor = object.__new__(processing_smolvlm.SmolVLMProcessor)
    processor.fake_image_token, processor.global_image_token = "<fake_token_around_image>", "<global-img>"
    processor.image_token, processor.image_seq_len = "<image>", prompt.tokens.grid[1] * prompt.tokens.grid[2]
    with patch.object(processing_smolvlm, "num2words", WORDS.__getitem__):
        return processor.replace_video_token(
            {"pixel_values": prompt.pixel_values, "video_metadata": [metadata(prompt)]}, 0
        )


def unsplit(said: dict[str, Any], frames: int) -> Any:
    """Single images that are not cut into tiles: what a frame of a video is."""
    settings = {**said, "size": said["video_sampling"]["video_size"], "do_image_splitting": False}
    del settings["video_sampling"]
    processor = SmolVLMImageProcessorPil(**settings)

    def prepare(images: list[Any], **more: Any) -> dict[str, torch.Tensor]:
        return {"pixel_values": processor([images], **more)["pixel_values"][0]}

    return prepare


CASE = Case(
    original=tiny,
    reference=called_with("pixel_values", decoder="model.text_model"),
    shape=(3, SIDE, SIDE),
    placeholder=IMAGE,
    in_ids=in_ids,
    written=written,
    tokenizer=lambda: byte_tokenizer(SPECIAL, eos="<end_of_utterance>"),
    preprocessor=PREPROCESSOR,
    published={
        **PREPROCESSOR,
        "max_image_size": {"longest_edge": 96},
        "video_sampling": {"fps": 1, "max_frames": 64, "video_size": {"longest_edge": 96}},
    },
    image_processor=unsplit,
    video_processor=("smolvlm", "SmolVLMVideoProcessor"),
    variants={
        "tied": Variant({"text": {"tie_word_embeddings": True}, "tie_word_embeddings": True}, tied=True),
        "shuffled 4 × 4": Variant({"scale_factor": 4, "vision": {"patch_size": 2}}),
        "smaller frames": Variant(shape=(3, 8, 8)),
    },
    other_shapes={(3, *size): REFUSED.format(*size) for size in ((16, 20), (12, 12))},
)
