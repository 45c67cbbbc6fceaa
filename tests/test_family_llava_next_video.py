"""LLaVA-NeXT-Video is converted as transformers runs it."""

from __future__ import annotations

import pytest
import torch
from helpers_models import BOS, VIDEO, tiny_config
from helpers_parity import STORAGES, HuggingFaceReference, ids_around, prove, randomise, rounded, write_module
from transformers import LlavaNextVideoForConditionalGeneration

from videolens.model import HookedVideoTransformer


def inputs(ids: torch.Tensor, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
    return {"input_ids": ids, "pixel_values_videos": pixels}


@pytest.mark.parametrize("storage", STORAGES.values(), ids=STORAGES)
def test_parity(storage, tmp_path) -> None:
    original = randomise(LlavaNextVideoForConditionalGeneration(tiny_config()))
    write_module(tmp_path, original, storage)
    ours = HookedVideoTransformer.from_pretrained(tmp_path, dtype=torch.float32)
    reference = HuggingFaceReference(rounded(original, storage), inputs)
    prompts = [
        ours.prompt_from_ids(ids_around([VIDEO], after=n, bos=BOS, seed=n), torch.randn(1, 3, 3, 16, 16))
        for n in (9, 14)
    ]
    prove(ours, reference, prompts)


def test_tied_embeddings(tmp_path) -> None:
    config = tiny_config(text={"tie_word_embeddings": True}, tie_word_embeddings=True)
    original = randomise(LlavaNextVideoForConditionalGeneration(config))
    write_module(tmp_path, original)
    ours = HookedVideoTransformer.from_pretrained(tmp_path)
    prompts = [
        ours.prompt_from_ids(ids_around([VIDEO], after=n, bos=BOS, seed=n), torch.randn(1, 3, 3, 16, 16))
        for n in (9, 14)
    ]
    prove(ours, HuggingFaceReference(original, inputs), prompts)
