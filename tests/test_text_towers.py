"""The decoder alone, one architecture of text models at a time, against TransformerLens' own bridge: same name, same
tensor."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from helpers.models import DECODER
from helpers.parity import TOLERANCE, randomise
from helpers.tokenizer import tiny_tokenizer
from transformers import (
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from videolens.model.checkpoints.convert import convert
from videolens.model.families import LLAMA, PHI3, family_of
from videolens.model.transformer import HookedVideoTransformer

TEXT = DECODER | dict(
    vocab_size=96,
    max_position_embeddings=128,
    bos_token_id=1,
    eos_token_id=2,
    pad_token_id=0,
    tie_word_embeddings=False,
)
# Half as many frequencies as a head is wide; prompts here stay below the original context, where the short ones count.
LONG = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0, 1.1, 1.3, 1.6],
    "long_factor": [1.0, 2.0, 4.0, 8.0],
    "original_max_position_embeddings": 64,
}
TOWERS: dict[str, tuple[Any, Any, Any]] = {
    "Llama": (LlamaForCausalLM, LlamaConfig(**TEXT), LLAMA),
    "Qwen2": (Qwen2ForCausalLM, Qwen2Config(**TEXT), LLAMA),
    "Phi-3": (Phi3ForCausalLM, Phi3Config(**TEXT, original_max_position_embeddings=64, rope_parameters=LONG), PHI3),
}
UNLIKE = ("attn_scores",)  # masked entries differ by convention: ours are −inf


@pytest.mark.parametrize("name", list(TOWERS))
@torch.no_grad()
def test_same_hook_name_same_tensor(name, tmp_path) -> None:
    from transformer_lens.model_bridge import TransformerBridge

    architecture, config, layer = TOWERS[name]
    text = randomise(architecture(config))
    # a decoder is converted as part of a VideoLLM; this one has no front end
    family = replace(
        family_of("llava_next_video"),
        decoder="model",
        unembed="lm_head",
        parts={},
        layer=layer,
        video_token=lambda config: 90,
    )
    ours = HookedVideoTransformer(convert(text, family, name=name))
    tiny_tokenizer().save_pretrained(tmp_path)
    config.save_pretrained(tmp_path)
    bridge = TransformerBridge.boot_transformers(
        str(tmp_path), hf_model=text, tokenizer=AutoTokenizer.from_pretrained(tmp_path), device="cpu"
    )
    ids = torch.randint(3, 90, (1, 14))
    expected, theirs = bridge.run_with_cache(ids)
    logits, cache = ours.run_with_cache(ids)
    assert (logits - expected).abs().max() <= TOLERANCE * expected.std()
    shared = [key for key in cache if key in theirs and not key.endswith(UNLIKE)]
    for key in shared:
        wanted = theirs[key]
        assert cache[key].shape == wanted.shape, key
        assert (cache[key] - wanted).abs().max() <= TOLERANCE * wanted.std(), key
    assert len(shared) >= 50
    per_layer = ("attn.hook_q", "attn.hook_k", "attn.hook_v", "attn.hook_pattern", "attn.hook_z", "mlp.hook_post")
    for layer_index in range(config.num_hidden_layers):
        for part in (*per_layer, "hook_resid_pre", "hook_resid_mid", "hook_resid_post", "hook_attn_out"):
            assert f"blocks.{layer_index}.{part}" in shared, (layer_index, part)
