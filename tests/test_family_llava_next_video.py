"""LLaVA-NeXT-Video is converted as transformers runs it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers.models import BOS, VIDEO, tiny_config
from helpers.parity import STORAGES, HuggingFaceReference, ids_around, prove, randomise, rounded, write_module
from transformers import LlavaNextVideoForConditionalGeneration

from videolens import Prompt
from videolens.model.transformer import HookedVideoTransformer

VARIANTS: dict[str, dict[str, Any]] = {
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


def tiny(**overrides: Any) -> Any:
    return randomise(LlavaNextVideoForConditionalGeneration(tiny_config(**overrides)))


def reference(module: Any) -> HuggingFaceReference:
    return HuggingFaceReference(module, lambda ids, pixels: {"input_ids": ids, "pixel_values_videos": pixels})


def two_prompts(ours: HookedVideoTransformer, *, side: int = 16) -> list[Prompt]:
    return [
        ours.prompt_from_ids(ids_around([VIDEO], after=n, bos=BOS, seed=n), torch.randn(1, 3, 3, side, side))
        for n in (9, 14)
    ]


@pytest.mark.parametrize("storage", STORAGES.values(), ids=STORAGES)
def test_parity(storage, tmp_path) -> None:
    original = tiny()
    write_module(tmp_path, original, storage)
    ours = HookedVideoTransformer.from_pretrained(tmp_path, dtype=torch.float32)
    prove(ours, reference(rounded(original, storage)), two_prompts(ours))


@pytest.mark.parametrize("variant", list(VARIANTS)[1:])
def test_parity_of_variants(variant, tmp_path) -> None:
    overrides = VARIANTS[variant]
    original = tiny(**overrides)
    write_module(tmp_path, original)
    ours = HookedVideoTransformer.from_pretrained(tmp_path)
    prove(ours, reference(original), two_prompts(ours, side=overrides.get("vision", {}).get("image_size", 16)))


def test_a_proof_fails_where_a_weight_is_wrong(tmp_path) -> None:
    original = tiny()
    write_module(tmp_path, original)
    ours = HookedVideoTransformer.from_pretrained(tmp_path)
    prompts = two_prompts(ours)
    with torch.no_grad():
        original.model.language_model.layers[1].mlp.down_proj.weight[3, 5] += 0.05
    with pytest.raises(AssertionError, match="differs by"):
        prove(ours, reference(original), prompts)
