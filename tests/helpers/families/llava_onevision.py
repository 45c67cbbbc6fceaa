"""LLaVA-OneVision: SigLIP, projected, pooled, one newline after the video, Qwen2."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from transformers import LlavaOnevisionConfig, LlavaOnevisionForConditionalGeneration, Qwen2Config, SiglipVisionConfig
from transformers.models.llava_onevision.processing_llava_onevision import LlavaOnevisionProcessor
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from helpers.checkpoints import byte_tokenizer, randomise, special_ids
from helpers.families.case import HALF, Case, Variant, by_processor, called_with, of_images, relaid
from helpers.models import DECODER

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<image>", "<video>")
VIDEO = special_ids(SPECIAL)["<video>"]
SIZE, PATCH = 20, 4  # 5 × 5 patches, pooled to 3 × 3
PREPROCESSOR = {
    "do_resize": True,
    "size": {"height": SIZE, "width": SIZE},
    "resample": 3,
    "rescale_factor": 1 / 255,
    **HALF,
    "image_processor_type": "LlavaOnevisionImageProcessor",
}


def tiny(*, text: dict[str, Any] | None = None, **more: Any) -> Any:
    """A random `LlavaOnevisionForConditionalGeneration`."""
    vision = SiglipVisionConfig(
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=3,
        num_attention_heads=2,
        image_size=SIZE,
        patch_size=PATCH,
        vision_use_head=False,
    )
    config = LlavaOnevisionConfig(
        text_config=Qwen2Config(**(DECODER | (text or {}))),
        vision_config=vision,
        video_token_index=VIDEO,
        image_token_index=VIDEO - 1,
        **more,
    )
    return randomise(LlavaOnevisionForConditionalGeneration(config))


def on_the_hub(original: Any) -> tuple[Mapping[str, Tensor], dict[str, Any]]:
    """Keys as of transformers 4.4x."""
    state = relaid(
        original.state_dict(),
        ("model.language_model.", "language_model.model."),
        ("lm_head.", "language_model.lm_head."),
        ("model.vision_tower.", "vision_tower.vision_model."),
        ("model.", ""),
    )
    roots = {key.split(".")[0] for key in state}
    assert roots == {"language_model", "vision_tower", "multi_modal_projector", "image_newline"}
    return state, original.config.to_dict() | {"architectures": [type(original).__name__]}


CASE = Case(
    original=tiny,
    reference=called_with("pixel_values_videos"),
    shape=(3, SIZE, SIZE),
    placeholder=VIDEO,
    written=by_processor(LlavaOnevisionProcessor, video_token="<video>", num_image_tokens=(SIZE // PATCH) ** 2),
    tokenizer=lambda: byte_tokenizer(SPECIAL, eos="<|im_end|>"),
    before=5,
    spread=1,
    preprocessor=PREPROCESSOR,
    published={"size": {"height": 384, "width": 384}, "resample": 3, **HALF},
    image_processor=of_images(SiglipImageProcessorPil),
    video_processor=("llava_onevision", "LlavaOnevisionVideoProcessor"),
    variants={
        "second to last layer": Variant({"vision_feature_layer": -2}, shape=(1, SIZE, SIZE)),
        "two layers": Variant({"vision_feature_layer": [-2, -1]}, shape=(1, SIZE, SIZE)),
        "tied, one key head": Variant(
            {"text": {"tie_word_embeddings": True, "num_key_value_heads": 1}, "tie_word_embeddings": True},
            shape=(1, SIZE, SIZE),
            tied=True,
        ),
        "no projector bias, wide heads": Variant(
            {"multimodal_projector_bias": False, "text": {"num_key_value_heads": 4, "head_dim": 16}},
            shape=(1, SIZE, SIZE),
        ),
        "the layout that the hub has": Variant(layout=on_the_hub, shape=(2, SIZE, SIZE)),
    },
    other_shapes={(2, 24, 20): "20 × 20 pixels, got 24 × 20"},
)
