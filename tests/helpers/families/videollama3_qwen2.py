"""VideoLLaMA3 in its original layout; the original in plain torch."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers.models.video_llama_3.image_processing_pil_video_llama_3 import VideoLlama3ImageProcessorPil

from helpers.checkpoints import byte_tokenizer, randomise
from helpers.families.case import HALF, Case, Variant, relaid
from helpers.families.plain_videollama3 import CONFIG, IMAGE, PATCH, SPECIAL, Original
from helpers.families.video_llama_3 import between, sharing
from helpers.parity import PlainReference
from videolens import Prompt

PREPROCESSOR = {**HALF, "patch_size": PATCH, "min_tokens": 2, "max_tokens": 36, "resample": 3}


def wrapped_twice(original: Original) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The keys that the authors' training code writes; tied weights once."""
    state = relaid(original.state_dict(), ("model.vision_encoder.", "model.vision_encoder.vision_encoder."))
    del state["lm_head.weight"]
    assert any(key.startswith("model.vision_encoder.vision_encoder.encoder.layers.0.") for key in state)
    return state, CONFIG | {"tie_word_embeddings": True}


def written(prompt: Prompt) -> str:
    """Its times, and commas between the frames."""
    _, rows, columns = prompt.tokens.grid
    each = "<image>" * (rows * columns)
    return ",".join(f"Time {float(second):.1f}s:{each}" for second in prompt.question.video.nominal_seconds)


def in_tokens(said: dict[str, Any], frames: int) -> VideoLlama3ImageProcessorPil:
    """The budget of the layout of transformers, counted in video tokens of 2 × 2 patches."""
    block = (2 * said["patch_size"]) ** 2
    size = {"shortest_edge": said["min_tokens"] * block, "longest_edge": said["max_tokens"] * block}
    return sharing({"size": size, "merge_size": 2, **{key: said[key] for key in said if "tokens" not in key}}, frames)


CASE = Case(
    original=lambda **settings: randomise(Original(**settings)),
    reference=lambda module, step: PlainReference(module, module.model.layers),
    shape=(3, 16, 24),
    placeholder=IMAGE,
    in_ids=lambda *shape: between(IMAGE, *shape),
    written=written,
    tokenizer=lambda: byte_tokenizer(SPECIAL, eos="<|im_end|>"),
    layout=lambda original: (original.state_dict(), CONFIG),
    bos=1,
    preprocessor=PREPROCESSOR,
    files={"processor_config.json": {"fps": 1, "video_merge_size": 2}},
    published={"min_tokens": 4, "max_tokens": 200, "patch_size": 14, "resample": 3, **HALF},
    image_processor=in_tokens,
    variants={"tied, a tower that is wrapped twice": Variant({"tied": True}, layout=wrapped_twice, tied=True)},
    other_configs=(
        ({"vision_encoder_config": None, "vision_encoder": "DAMO-NLP-SG/SigLIP-NaViT"}, "SigLIP-NaViT.*hidden_size"),
        ({"mm_projector_type": "linear"}, "mm_projector_type 'linear'"),
        ({"image_token_index": -1}, "image_token_index -1.*<image>"),
    ),
)
