"""PLLaVA in its published layout: CLIP, pooled over space and time, Llama; the original in plain torch."""

from __future__ import annotations

from typing import Any

from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from helpers.checkpoints import byte_tokenizer, randomise
from helpers.families.case import CLIP, Case, Variant, of_images
from helpers.families.plain_pllava import CONFIG, FRAMES, IMAGE, SPECIAL, VIDEO, PlainPllava
from helpers.parity import PlainReference

PREPROCESSOR = {
    "crop_size": {"height": IMAGE, "width": IMAGE},
    "do_center_crop": True,
    "do_convert_rgb": True,
    "image_processor_type": "CLIPImageProcessor",
    "resample": 3,
    "size": {"shortest_edge": IMAGE},
    **CLIP,
}
DEFAULTS = ("vision_feature_layer", "vision_feature_select_strategy", "pooling_method", "projector_hidden_act")
NOT_POOLED = rf"{{}} frames cannot be pooled to the {FRAMES} .* a multiple of {FRAMES}"


def with_defaults(original: Any) -> tuple[Any, dict[str, Any]]:
    """A config.json that leaves out what is as published."""
    return original.state_dict(), {name: value for name, value in CONFIG.items() if name not in DEFAULTS}


CASE = Case(
    original=lambda: randomise(PlainPllava()),
    reference=lambda module, step: PlainReference(module, list(module.language_model.model.layers)),
    shape=(FRAMES, IMAGE, IMAGE),
    placeholder=VIDEO,
    written=lambda prompt: "<image>" * len(prompt.tokens["video"]),
    tokenizer=lambda: byte_tokenizer(SPECIAL, bos="<s>", eos="</s>", prepend_bos=True),
    layout=lambda original: (original.state_dict(), CONFIG),
    bos=1,
    step=FRAMES,
    preprocessor=PREPROCESSOR,
    published={
        "size": {"shortest_edge": 336},
        "crop_size": {"height": 336, "width": 336},
        "do_center_crop": True,
        "resample": 3,
        **CLIP,
    },
    image_processor=of_images(CLIPImageProcessorPil),
    variants={
        "merged frames": Variant(shape=(2 * FRAMES, IMAGE, IMAGE)),
        "what config.json leaves out is as published": Variant(layout=with_defaults),
    },
    other_shapes={(n, IMAGE, IMAGE): NOT_POOLED.format(n) for n in (1, FRAMES - 1, FRAMES + 1)},
    other_configs=(
        (
            {"architectures": ["LlavaForConditionalGeneration"]},
            r"known with architectures \['LlavaQwen.*'Pllava.*not with \['LlavaForConditional",
        ),
        ({"pooling_method": "max"}, "pooling_method 'max'"),
        ({"pooling_shape": [2, 2]}, r"pooling_shape \[2, 2\]"),
        ({"vision_feature_layer": -5}, "vision_feature_layer -5; the tower has 4"),
        ({"vision_feature_select_strategy": "full"}, "'full'"),
        ({"text_config": CONFIG["text_config"] | {"model_type": "mistral"}}, r"text_config\.model_type 'mistral'"),
    ),
)
