"""Perception-LM: a tower of timm, projected and averaged 2 × 2, Llama. No case where timm is not installed."""

from __future__ import annotations

from typing import Any

from transformers import PerceptionLMConfig, PerceptionLMForConditionalGeneration
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil
from transformers.models.perception_lm.processing_perception_lm import PerceptionLMProcessor

from helpers.checkpoints import byte_tokenizer, randomise, special_ids
from helpers.families.case import HALF, Case, Variant, by_processor, called_with, of_images
from helpers.models import DECODER

SPECIAL = ("<|begin_of_text|>", "<|eot_id|>", "<|image|>", "<|video|>")
IDS = special_ids(SPECIAL)
SIDE, PATCH = 64, 16  # 4 × 4 patches a frame, pooled to 2 × 2


def tiny(*, text: dict[str, Any] | None = None, tower: dict[str, Any] | None = None, **more: Any) -> Any:
    """A random `PerceptionLMForConditionalGeneration` with a Perception Encoder of two layers."""
    sizes = dict(embed_dim=32, depth=2, num_heads=2, img_size=[SIDE, SIDE], ref_feat_shape=[4, 4], global_pool="")
    settings = {"model_type": "llama", "bos_token_id": None, "eos_token_id": IDS["<|eot_id|>"]}
    config = PerceptionLMConfig(
        vision_config={
            "model_type": "timm_wrapper",
            "architecture": "vit_pe_core_tiny_patch16_384",
            "model_args": {**sizes, "use_post_transformer_norm": False, "init_values": 0.1, **(tower or {})},
        },
        text_config=DECODER | settings | {"max_position_embeddings": 1024} | (text or {}),
        image_token_id=IDS["<|image|>"],
        video_token_id=IDS["<|video|>"],
        **({"projector_pooling_ratio": 2, "vision_use_cls_token": True} | more),
    )
    return randomise(PerceptionLMForConditionalGeneration(config))


CASE = Case(
    original=tiny,
    reference=called_with("pixel_values_videos"),
    shape=(3, SIDE, SIDE),
    placeholder=IDS["<|video|>"],
    written=by_processor(PerceptionLMProcessor, patch_size=PATCH, pooling_ratio=2, video_token="<|video|>"),
    tokenizer=lambda: byte_tokenizer(SPECIAL, eos="<|eot_id|>"),
    preprocessor={"size": {"height": SIDE, "width": SIDE}, "resample": 3, **HALF},
    preprocessor_file="video_preprocessor_config.json",
    published={"size": {"height": 448, "width": 448}, "resample": 3, **HALF},
    image_processor=of_images(GotOcr2ImageProcessorPil, crop_to_patches=False),
    video_processor=("perception_lm", "PerceptionLMVideoProcessor"),
    patch=PATCH,
    variants={
        "tied": Variant({"text": {"tie_word_embeddings": True}, "tie_word_embeddings": True}, tied=True),
        "no pooling": Variant({"projector_pooling_ratio": 1}),
    },
    other_shapes={(3, SIDE, 32): r"frames of 64 × 64 pixels, got 64 × 32"},
)
