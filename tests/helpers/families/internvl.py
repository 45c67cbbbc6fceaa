"""InternVL in transformers' layout: InternViT, pixel shuffle, each frame framed, Qwen2 or Qwen3."""

from __future__ import annotations

from typing import Any

from transformers import (
    InternVLConfig,
    InternVLForConditionalGeneration,
    InternVLVisionConfig,
    Qwen2Config,
    Qwen3Config,
)
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil

from helpers.checkpoints import byte_tokenizer, randomise, special_ids
from helpers.families.case import IMAGENET, Case, Variant, called_with, of_images
from helpers.models import DECODER
from videolens import Prompt

SPECIAL = ("<|im_start|>", "<|im_end|>", "<img>", "</img>", "<IMG_CONTEXT>")
IDS = special_ids(SPECIAL)
CONTEXT = IDS["<IMG_CONTEXT>"]
SIDE, BLOCK = 16, 8  # 4 × 4 patches a frame, shuffled to 2 × 2
PREPROCESSOR = {
    "do_resize": True,
    "size": {"height": SIDE, "width": SIDE},
    "resample": 3,
    **IMAGENET,
    "video_processor_type": "InternVLVideoProcessor",
}
TEXT = DECODER | dict(bos_token_id=None, eos_token_id=IDS["<|im_end|>"], tie_word_embeddings=False)
VISION = dict(hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, patch_size=4)
EARLIER = {
    "vision": {"attention_bias": True, "use_qk_norm": True, "norm_type": "rms_norm"},
    "vision_feature_layer": -2,
}
REFUSED = r"{} × {} pixels .* prepare square frames"


def tiny(*, text: dict[str, Any] | None = None, vision: dict[str, Any] | None = None, **rest: Any) -> Any:
    """A random `InternVLForConditionalGeneration`."""
    settings = TEXT | (text or {})
    kind = Qwen3Config if settings.pop("model_type", "qwen2") == "qwen3" else Qwen2Config
    config = InternVLConfig(
        text_config=kind(**settings),
        vision_config=InternVLVisionConfig(image_size=SIDE, **(VISION | (vision or {}))),
        image_token_id=CONTEXT,
        **({"tie_word_embeddings": False} | rest),
    )
    return randomise(InternVLForConditionalGeneration(config))


def in_ids(frames: int, height: int, width: int) -> list[int]:
    """Every frame between its tags."""
    each = height // BLOCK * (width // BLOCK)
    return [IDS["<img>"], *[CONTEXT] * each, IDS["</img>"], 10] * frames


def written(prompt: Prompt) -> str:
    """As `replace_video_token` of transformers' InternVLProcessor."""
    frames, rows, columns = prompt.tokens.grid
    one = "<img>" + "<IMG_CONTEXT>" * (rows * columns) + "</img>"
    return "\n".join(f"Frame{i + 1}: {one}" for i in range(frames))


CASE = Case(
    original=tiny,
    reference=called_with("pixel_values", images=True),
    shape=(3, SIDE, SIDE),
    placeholder=CONTEXT,
    in_ids=in_ids,
    written=written,
    tokenizer=lambda: byte_tokenizer(SPECIAL, eos="<|im_end|>"),
    preprocessor=PREPROCESSOR,
    preprocessor_file="video_preprocessor_config.json",
    published={"size": {"height": 448, "width": 448}, "resample": 3, **IMAGENET},
    image_processor=of_images(GotOcr2ImageProcessorPil, crop_to_patches=False),
    video_processor=("internvl", "InternVLVideoProcessor"),
    variants={
        "Qwen2, tied": Variant({"text": {"tie_word_embeddings": True}, "tie_word_embeddings": True}, tied=True),
        "Qwen3, norms of heads wider than the model": Variant(
            {"text": {"model_type": "qwen3", "head_dim": 16}}, head_norms=True
        ),
        "tower with norms and biases, an earlier layer": Variant(EARLIER),
        "larger frames have interpolated places": Variant(shape=(3, 24, 24)),
    },
    other_shapes={(3, *size): REFUSED.format(*size) for size in ((16, 20), (12, 12), (4, 4))},
)
