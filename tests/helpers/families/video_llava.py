"""Video-LLaVA: every position of a CLIP tower, its class tokens too, Llama."""

from __future__ import annotations

from typing import Any

from transformers import VideoLlavaConfig, VideoLlavaForConditionalGeneration
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.video_llava.processing_video_llava import VideoLlavaProcessor

from helpers.checkpoints import randomise
from helpers.families.case import CLIP, Case, Variant, by_processor, called_with, of_images
from helpers.models import BOS, DECODER, VIDEO
from helpers.tokenizer import tiny_tokenizer

SIDE, PATCH = 16, 4
VISION: dict[str, Any] = dict(
    model_type="clip_vision_model",
    hidden_size=16,
    intermediate_size=32,
    num_hidden_layers=3,
    num_attention_heads=2,
    image_size=SIDE,
    patch_size=PATCH,
    projection_dim=16,
)


def tiny(*, text: dict[str, Any] | None = None, vision: dict[str, Any] | None = None, **more: Any) -> Any:
    """A random `VideoLlavaForConditionalGeneration`, whose towers for images and videos differ."""
    sizes = {"model_type": "llama", "vocab_size": 96, "max_position_embeddings": 1024}
    config = VideoLlavaConfig(
        text_config=DECODER | sizes | (text or {}),
        vision_config=VISION | (vision or {}),
        image_token_index=VIDEO - 1,
        video_token_index=VIDEO,
        **more,
    )
    return randomise(VideoLlavaForConditionalGeneration(config))


CASE = Case(
    original=tiny,
    reference=called_with("pixel_values_videos"),
    shape=(3, SIDE, SIDE),
    placeholder=VIDEO,
    written=by_processor(VideoLlavaProcessor, patch_size=PATCH, num_additional_image_tokens=1, video_token="<video>"),
    tokenizer=tiny_tokenizer,
    bos=BOS,
    preprocessor={"size": {"shortest_edge": SIDE}, "crop_size": {"height": SIDE, "width": SIDE}},
    published={
        "size": {"shortest_edge": 224},
        "crop_size": {"height": 224, "width": 224},
        "resample": 3,
        **CLIP,
    },
    image_processor=of_images(CLIPImageProcessorPil),
    video_processor=("video_llava", "VideoLlavaVideoProcessor"),
    cell=lambda row, column, rows, columns: (0, 1 + row * columns + column),
    variants={
        "tied, one key head": Variant(
            {"text": {"num_key_value_heads": 1, "tie_word_embeddings": True}, "tie_word_embeddings": True}, tied=True
        ),
        "two vision layers, a strategy that videos do not follow": Variant(
            {"vision_feature_layer": [-2, -1], "vision_feature_select_strategy": "full"}
        ),
    },
    other_shapes={(3, SIDE, 20): r"frames of 16 × 16 pixels, got 16 × 20"},
)
