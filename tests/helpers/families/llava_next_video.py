"""LLaVA-NeXT-Video: CLIP, every frame pooled 2 × 2, Llama."""

from __future__ import annotations

from typing import Any

from transformers import LlavaNextVideoForConditionalGeneration
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from helpers.checkpoints import randomise
from helpers.families.case import CLIP, Case, Variant, called_with, of_images
from helpers.models import BOS, VIDEO, tiny_config
from helpers.tokenizer import tiny_tokenizer

SETTINGS: dict[str, dict[str, Any]] = {
    "grouped heads": {},
    "a head per key, biases, tied embeddings": {
        "text": {"num_key_value_heads": 4, "attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True},
        "tie_word_embeddings": True,
    },
    "one key head, max pooling, two vision layers": {
        "text": {"num_key_value_heads": 1},
        "spatial_pool_mode": "max",
        "vision_feature_layer": [-2, -1],
    },
    "scaled rotary, wide heads": {
        "text": {
            "head_dim": 16,
            "rope_parameters": {
                "rope_type": "llama3",
                "rope_theta": 10000.0,
                "factor": 4.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 16,
            },
        }
    },
    "learned pooling, 4 × 4 places a frame": {"spatial_pool_mode": "conv", "vision": {"image_size": 32}},
}
"""Settings of `tiny_config`."""


def tiny(**settings: Any) -> Any:
    """A random `LlavaNextVideoForConditionalGeneration` with settings of `tiny_config`."""
    return randomise(LlavaNextVideoForConditionalGeneration(tiny_config(**settings)))


def roomy(*, text: dict[str, Any] | None = None, **settings: Any) -> Any:
    """The same with room for whole questions, and 4 × 4 places a frame if nothing else is said."""
    context = {"max_position_embeddings": 1024}
    return tiny(text=context | (text or {}), **({"vision": {"image_size": 32}} | settings))


CASE = Case(
    original=roomy,
    reference=called_with("pixel_values_videos"),
    shape=(3, 32, 32),
    placeholder=VIDEO,
    written=lambda prompt: "<video>" * len(prompt.tokens["video"]),
    tokenizer=tiny_tokenizer,
    bos=BOS,
    preprocessor={"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}},
    published={
        "size": {"shortest_edge": 336},
        "crop_size": {"height": 336, "width": 336},
        "resample": 3,
        **CLIP,
    },
    image_processor=of_images(CLIPImageProcessorPil),
    video_processor=("llava_next_video", "LlavaNextVideoVideoProcessor"),
    variants={
        name: Variant(
            {"vision": {"image_size": 16}} | settings,
            shape=None if "vision" in settings else (3, 16, 16),
            tied="tie_word_embeddings" in settings,
        )
        for name, settings in SETTINGS.items()
    },
)
