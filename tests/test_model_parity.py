"""Our model against the original: batches of one layout, storage, dtypes. test_family_parity.py proves each family."""

from __future__ import annotations

import pytest
import torch
from helpers.families.llava_next_video import SETTINGS
from helpers.models import BOS, D_VOCAB, VIDEO, tiny_inputs, tiny_llava_next_video
from helpers.parity import TOLERANCE
from transformers import LlamaForCausalLM

from videolens.model.transformer import HookedVideoTransformer


@pytest.fixture(scope="module", params=list(SETTINGS))
def pair(request, tmp_path_factory):
    """(original, ours, prompt, inputs of the original)"""
    directory = tmp_path_factory.mktemp("tiny")
    overrides = SETTINGS[request.param]
    original = tiny_llava_next_video(directory, **overrides)
    ours = HookedVideoTransformer.from_pretrained(directory)
    side = overrides.get("vision", {}).get("image_size", 16)
    one, each, pixels = tiny_inputs(frames=3, rows=2, side=side)
    return original, ours, ours.prompt_from_ids(one, pixels), {"input_ids": each, "pixel_values_videos": pixels}


@torch.no_grad()
def test_logits_and_the_residual_after_every_layer(pair) -> None:
    original, ours, prompt, inputs = pair
    original.set_attn_implementation("sdpa")
    expected = original(**inputs, output_hidden_states=True)
    std = expected.logits.std()
    assert (ours(prompt) - expected.logits).abs().max() <= TOLERANCE * std
    _, cache = ours.run_with_cache(prompt, names_filter=lambda name: "resid" in name or name == "hook_embed")
    assert (cache["hook_embed"] - expected.hidden_states[0]).abs().max() == 0
    for layer in range(1, ours.cfg.n_layers):
        wanted = expected.hidden_states[layer]
        assert (cache["resid_post", layer - 1] - wanted).abs().max() <= TOLERANCE * wanted.std()
    # the original's last hidden state is after the final norm
    final = ours.ln_final(cache["resid_post", ours.cfg.n_layers - 1])
    assert (final - expected.hidden_states[-1]).abs().max() <= TOLERANCE * expected.hidden_states[-1].std()


def test_weights_share_their_storage(pair) -> None:
    original, _, _, _ = pair
    ours = HookedVideoTransformer.from_hugging_face(original)
    decoder, n_q = original.model.language_model, ours.cfg.n_heads * ours.cfg.d_head
    for block, layer in zip(ours.blocks, decoder.layers, strict=True):
        views = {
            layer.self_attn.q_proj: block.attn.W_Q,
            layer.self_attn.k_proj: block.attn.W_K,
            layer.self_attn.v_proj: block.attn.W_V,
            layer.self_attn.o_proj: block.attn.W_O,
            layer.mlp.gate_proj: block.mlp.W_gate,
            layer.mlp.up_proj: block.mlp.W_in,
            layer.mlp.down_proj: block.mlp.W_out,
        }
        for theirs, view in views.items():
            assert view.data_ptr() == theirs.weight.data_ptr()
            assert view.numel() == theirs.weight.numel()
    assert ours.W_E.data_ptr() == decoder.embed_tokens.weight.data_ptr()
    assert ours.W_U.data_ptr() == original.lm_head.weight.data_ptr()
    assert ours.frontend.parts["tower"] is original.model.vision_tower
    x = torch.randn(1, 5, ours.cfg.d_model)
    flat = torch.einsum("bpm,hmd->bphd", x, ours.blocks[0].attn.W_Q).flatten(2) + ours.blocks[0].attn.b_Q.flatten()
    assert flat.shape[-1] == n_q
    torch.testing.assert_close(flat, decoder.layers[0].self_attn.q_proj(x))


def test_tied_embeddings_stay_one_tensor() -> None:
    tied = SETTINGS["a head per key, biases, tied embeddings"]
    ours = HookedVideoTransformer.from_hugging_face(tiny_llava_next_video(**tied))
    assert ours.unembed.weight is ours.frontend.embed.weight
    ours.to(torch.float64)
    assert ours.unembed.weight is ours.frontend.embed.weight


@torch.no_grad()
def test_text_alone_is_the_language_model() -> None:
    original = tiny_llava_next_video()
    ours = HookedVideoTransformer.from_hugging_face(original)
    text = LlamaForCausalLM(original.config.text_config).eval()
    text.model, text.lm_head = original.model.language_model, original.lm_head
    ids = torch.randint(3, VIDEO, (2, 17))
    ids[:, 0] = BOS
    expected = text(ids).logits
    assert (ours(ids) - expected).abs().max() <= TOLERANCE * expected.std()
    assert ours(ids).shape == (2, 17, D_VOCAB)


@torch.no_grad()
def test_bfloat16_equals_the_original_in_bfloat16(tmp_path) -> None:
    # both in one dtype and on one path: the same operations in the same order
    tiny_llava_next_video().to(torch.bfloat16).save_pretrained(tmp_path)
    ours = HookedVideoTransformer.from_pretrained(tmp_path)
    assert ours.cfg.dtype == ours.frontend.dtype == torch.bfloat16
    original = type(tiny_llava_next_video()).from_pretrained(tmp_path).eval()
    assert original.dtype == torch.bfloat16
    one, each, pixels = tiny_inputs()
    expected = original(input_ids=each, pixel_values_videos=pixels.bfloat16()).logits
    logits = ours(ours.prompt_from_ids(one, pixels))
    assert logits.dtype == torch.bfloat16
    assert (logits - expected).float().abs().max() <= 0.02 * expected.float().std()


@torch.no_grad()
def test_rotary_frequencies_stay_exact_in_bfloat16() -> None:
    ours = HookedVideoTransformer.from_hugging_face(tiny_llava_next_video())
    before = ours.frontend.rotary.module.inv_freq.clone()
    ours.to(torch.bfloat16)
    after = ours.frontend.rotary.module.inv_freq
    assert after.dtype == torch.float32
    assert torch.equal(after, before)
    cos, _ = ours.frontend.rotary(torch.zeros((), dtype=torch.float32), torch.tensor([[1000]]))
    assert torch.equal(cos[0, 0, : len(before)], torch.cos(1000 * before))
