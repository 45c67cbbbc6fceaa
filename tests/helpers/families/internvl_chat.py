"""InternVLChat in its published layout: InternViT, the clip as one image, Phi-3; the original in plain torch."""

from __future__ import annotations

from typing import Any

from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from helpers.checkpoints import byte_tokenizer, randomise
from helpers.families.case import IMAGENET, Case, Variant, of_images
from helpers.families.plain_internvl_chat import CONFIG, IDS, IMAGE, SPECIAL, VISION, PlainInternVLChat
from helpers.parity import PlainReference

CONTEXT = IDS["<IMG_CONTEXT>"]
PREPROCESSOR = {
    "crop_size": IMAGE,
    "do_center_crop": True,
    "do_normalize": True,
    "do_resize": True,
    "feature_extractor_type": "CLIPFeatureExtractor",
    "resample": 3,
    "size": IMAGE,
    **IMAGENET,
}
EACH = 4  # video tokens of a frame
SHORT, LONG = (9, 14), (60, 71)  # words after the video: prompts of 27 and 32, of 78 and 89 tokens
NORMS = {"norm_type": "rms_norm", "qk_normalization": True, "qkv_bias": False}


def tiny(**vision: Any) -> PlainInternVLChat:
    """A random original; keyword arguments change the config of its tower."""
    return randomise(PlainInternVLChat(VISION | vision, context=CONTEXT))


CASE = Case(
    original=tiny,
    reference=lambda module, step: PlainReference(module, list(module.language_model.model.layers)),
    shape=(3, IMAGE, IMAGE),
    placeholder=CONTEXT,
    in_ids=lambda frames, height, width: [IDS["<img>"], *[CONTEXT] * (frames * EACH), IDS["</img>"]],
    written=lambda prompt: "<img>" + "<IMG_CONTEXT>" * len(prompt.tokens["video"]) + "</img>",
    tokenizer=lambda: byte_tokenizer(SPECIAL, bos="<s>", eos="<|end|>", prepend_bos=True),
    layout=lambda original: (original.state_dict(), CONFIG),
    bare=False,
    bos=1,
    preprocessor=PREPROCESSOR,
    published={"size": 448, "crop_size": 448, "do_center_crop": True, "resample": 3, **IMAGENET},
    image_processor=of_images(CLIPImageProcessorPil),
    variants={
        "long prompts turn by the long factors": Variant(words=LONG),
        "each prompt of a batch has its own factors": Variant(words=(SHORT[0], LONG[0])),
        "a tower with norms of queries and keys": Variant(NORMS, config={"vision_config": VISION | NORMS}),
    },
    other_configs=(
        (
            {"llm_config": CONFIG["llm_config"] | {"model_type": "internlm2"}},
            r"llm_config\.model_type is 'internlm2'",
        ),
        ({"ps_version": "v1"}, "ps_version 'v1'"),
    ),
)
