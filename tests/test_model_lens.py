"""What TransformerLens 4.3 asks of a model, one test per thing, run through its own code where it has some."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import transformer_lens
from helpers.models import D_VOCAB, tiny_inputs, tiny_llava_next_video
from helpers.prompts import tiny_model
from helpers.tokenizer import tiny_tokenizer
from transformer_lens import ActivationCache, HookedRootModule
from transformer_lens.model_protocol import TransformerLensModelWithWeights
from transformers import AutoTokenizer, LlamaForCausalLM

from videolens.errors import ModelError
from videolens.model.transformer import HookedVideoTransformer

pytestmark = pytest.mark.filterwarnings("ignore")
N_LAYERS, N_HEADS, D_MODEL = 3, 4, 32


@pytest.fixture(scope="module")
def model() -> HookedVideoTransformer:
    return tiny_model(tokenizer=tiny_tokenizer())


# -- 1: a hooked root module, set up and in evaluation mode


def test_it_is_a_hooked_root_module_in_evaluation_mode(model) -> None:
    assert isinstance(model, HookedRootModule)
    assert isinstance(model, TransformerLensModelWithWeights)
    assert not any(module.training for module in model.modules())
    assert all(point.name == name for name, point in model.hook_dict.items())


# -- 2: cfg


def test_cfg_is_a_dataclass_on_transformer_lens_config(model) -> None:
    cfg = model.cfg
    assert dataclasses.is_dataclass(cfg)
    assert isinstance(cfg, transformer_lens.config.TransformerLensConfig)
    sizes = (
        cfg.n_layers,
        cfg.n_heads,
        cfg.n_key_value_heads,
        cfg.d_model,
        cfg.d_head,
        cfg.d_mlp,
        cfg.n_ctx,
        cfg.d_vocab,
    )
    assert sizes == (3, 4, 2, 32, 8, 48, 128, 96)
    assert (cfg.normalization_type, cfg.attn_only, cfg.dtype, cfg.device) == ("RMS", False, torch.float32, "cpu")


def test_cfg_follows_the_model_to_another_device_and_dtype() -> None:
    model = HookedVideoTransformer.from_hugging_face(tiny_llava_next_video())
    assert model.to(torch.float64) is model
    assert model.cfg.dtype == torch.float64
    assert model.to("meta").cfg.device == "meta"


# -- 3: caches


def test_run_with_cache_gives_an_activation_cache_with_the_usual_names_and_shapes(run, prompt) -> None:
    logits, cache = run
    n = prompt.shape[1]
    assert isinstance(cache, ActivationCache)
    assert logits.shape == (1, n, D_VOCAB)
    shapes = {
        "hook_embed": (1, n, 32),
        "ln_final.hook_scale": (1, n, 1),
        "ln_final.hook_normalized": (1, n, 32),
        "frontend.hook_video_features": (1, 3, 16, 16),
        "frontend.hook_video_tokens": (1, 12, 32),
    }
    for name in ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out"):
        shapes[f"blocks.1.hook_{name}"] = (1, n, 32)
    for name in ("ln1.hook_scale", "ln2.hook_scale"):
        shapes[f"blocks.1.{name}"] = (1, n, 1)
    for name in ("ln1.hook_normalized", "ln2.hook_normalized"):
        shapes[f"blocks.1.{name}"] = (1, n, 32)
    for name in ("q", "rot_q", "z"):
        shapes[f"blocks.1.attn.hook_{name}"] = (1, n, 4, 8)
    for name in ("k", "v", "rot_k"):
        shapes[f"blocks.1.attn.hook_{name}"] = (1, n, 2, 8)
    for name in ("attn_scores", "pattern"):
        shapes[f"blocks.1.attn.hook_{name}"] = (1, 4, n, n)
    shapes["blocks.1.attn.hook_mask"] = shapes["blocks.1.attn.hook_gate"] = (1, 1, n, n)
    for name in ("pre", "pre_linear", "post"):
        shapes[f"blocks.1.mlp.hook_{name}"] = (1, n, 48)
    assert {name: tuple(cache[name].shape) for name in shapes} == shapes
    inside = [name for name in cache if not name.startswith("blocks.") or name.startswith("blocks.1.")]
    assert sorted(inside) == sorted(shapes)
    assert cache["blocks.1.attn.hook_mask"].dtype == torch.bool
    assert "hook_pos_embed" not in cache


def test_remove_batch_dim_only_for_a_batch_of_one(model, prompt, run) -> None:
    _, cache = model.run_with_cache(prompt, remove_batch_dim=True)
    assert cache["pattern", 0].shape == (4, prompt.shape[1], prompt.shape[1])
    assert torch.equal(cache["resid_post", 2], run[1]["resid_post", 2][0])
    one, _, pixels = tiny_inputs(frames=2, rows=2)
    with pytest.raises(ModelError, match="batch of 2"):
        model.run_with_cache(model.prompt_from_ids(one, pixels), remove_batch_dim=True)


def test_a_plain_dict_and_a_slice_of_positions_on_request(model, prompt, run) -> None:
    _, cache = model.run_with_cache(
        prompt, names_filter="blocks.0.hook_resid_post", return_cache_object=False, pos_slice=-1
    )
    assert type(cache) is dict
    # the whole cache listened to patterns, so it was made without fused attention: equal to rounding only
    torch.testing.assert_close(cache["blocks.0.hook_resid_post"], run[1]["resid_post", 0][:, -1:])


def test_gradients_with_incl_bwd(model, prompt) -> None:
    loss, cache = model.run_with_cache(prompt, incl_bwd=True, return_type="loss")
    assert loss.shape == ()
    for name in ("hook_embed", "frontend.hook_video_tokens", "blocks.1.attn.hook_z", "blocks.1.ln1.hook_scale"):
        assert cache[f"{name}_grad"].shape == cache[name].shape, name
    assert cache["hook_embed_grad"].abs().sum() > 0
    assert not model.list_hooks()
    assert not model(prompt).requires_grad


# -- 4: tokens, directions, weights


def test_to_tokens(model) -> None:
    assert model.to_tokens("red ball").tolist() == [[1, 10, 11]]
    assert model.to_tokens("red ball", prepend_bos=False).tolist() == [[10, 11]]
    assert model.to_tokens(["red", "red ball"], padding_side="left").tolist() == [[0, 1, 10], [1, 10, 11]]
    assert model.to_tokens(["red", "red ball"], padding_side="right").tolist() == [[1, 10, 0], [1, 10, 11]]
    assert model.to_tokens(" ".join(["red"] * 300)).shape == (1, model.cfg.n_ctx)
    assert model.to_str_tokens("red ball") == ["<s>", "red", "ball"]
    assert model.to_string(torch.tensor([10, 11])) == "red ball"
    assert model(["red", "red"]).shape == (2, 2, D_VOCAB)


def test_to_single_token(model) -> None:
    assert model.to_single_token("red") == 10
    with pytest.raises(ModelError, match="2 tokens"):
        model.to_single_token("red ball")


def test_a_model_without_a_tokenizer_says_so() -> None:
    model = HookedVideoTransformer.from_hugging_face(tiny_llava_next_video())
    with pytest.raises(ModelError, match="no tokenizer"):
        model.to_tokens("red")


def test_logit_attributions_sum_to_the_logit(model, run) -> None:
    logits, cache = run
    parts = cache.decompose_resid(layer=-1)
    for token in (10, torch.tensor([11]), "red"):
        index = model.to_single_token(token) if isinstance(token, str) else int(token)
        total = cache.logit_attrs(parts, token).sum(0)
        assert (total - logits[..., index]).abs().max() <= 1e-4 * logits.std()
    difference = cache.logit_attrs(parts, 10, incorrect_tokens=11).sum(0)
    assert (difference - (logits[..., 10] - logits[..., 11])).abs().max() <= 1e-4 * logits.std()


def test_tokens_to_residual_directions_hold_the_final_norm(model) -> None:
    directions = model.tokens_to_residual_directions(torch.tensor([[3, 4], [5, 6]]))
    assert directions.shape == (2, 2, D_MODEL)
    assert torch.equal(directions[1, 0], model.W_U[:, 5] * model.ln_final.w)
    assert model.tokens_to_residual_directions("red").shape == (D_MODEL,)


def test_head_results_and_neurons_decompose_the_stream(model, run) -> None:
    _, cache = run
    components, labels = cache.get_full_resid_decomposition(expand_neurons=False, return_labels=True)
    assert labels[0] == "L0H0"
    torch.testing.assert_close(components.sum(0), cache["resid_post", 2], rtol=0, atol=2e-4)
    neurons = cache.stack_neuron_results(layer=3, incl_remainder=True)
    torch.testing.assert_close(neurons.sum(0), cache["resid_post", 2], rtol=0, atol=2e-4)


def test_accumulated_bias_is_zero_without_biases_and_their_sum_with_them(model) -> None:
    assert model.accumulated_bias(3).tolist() == [0.0] * D_MODEL
    biased = HookedVideoTransformer.from_hugging_face(
        tiny_llava_next_video(text={"attention_bias": True, "mlp_bias": True})
    )
    expected = sum(block.attn.o.bias + block.mlp.down.bias for block in biased.blocks[:2])
    torch.testing.assert_close(biased.accumulated_bias(2), expected)
    one, _, pixels = tiny_inputs()
    _, cache = biased.run_with_cache(biased.prompt_from_ids(one, pixels))
    components = cache.get_full_resid_decomposition(expand_neurons=False)
    torch.testing.assert_close(components.sum(0), cache["resid_post", 2], rtol=0, atol=2e-4)


def test_weights_by_their_usual_names(model) -> None:
    shapes = {
        "W_E": (96, 32),
        "W_U": (32, 96),
        "b_U": (96,),
        "W_Q": (3, 4, 32, 8),
        "W_K": (3, 2, 32, 8),
        "W_V": (3, 2, 32, 8),
        "W_O": (3, 4, 8, 32),
        "W_gate": (3, 32, 48),
        "W_in": (3, 32, 48),
        "W_out": (3, 48, 32),
    }
    assert {name: tuple(getattr(model, name).shape) for name in shapes} == shapes
    assert not model.b_U.any()
    assert model.blocks[0].attn.W_O.shape == (4, 8, 32)
    assert all(block.hook_out_is_single_residual_stream for block in model.blocks)


def test_unembed_and_ln_final_read_out_the_stream(model, run) -> None:
    logits, cache = run
    assert torch.equal(model.unembed(model.ln_final(cache["resid_post", 2])), logits)


# -- 5: hook_embed is the whole layer-0 residual


def test_hook_embed_is_the_whole_layer_0_residual(prompt, run) -> None:
    _, cache = run
    assert torch.equal(cache["hook_embed"], prompt.residual)
    assert torch.equal(cache["hook_embed"], cache["resid_pre", 0])
    torch.testing.assert_close(cache.decompose_resid().sum(0), cache["resid_post", 2], rtol=0, atol=2e-4)
    assert cache.accumulated_resid().shape == (4, 1, prompt.shape[1], D_MODEL)


# -- the text tower, against TransformerLens' own bridge


def test_text_tower_against_the_bridge(tmp_path) -> None:
    from transformer_lens.model_bridge import TransformerBridge

    original = tiny_llava_next_video()
    ours = HookedVideoTransformer.from_hugging_face(original)
    text = LlamaForCausalLM(original.config.text_config).eval()
    text.model.load_state_dict(original.model.language_model.state_dict())
    text.lm_head.load_state_dict(original.lm_head.state_dict())
    tiny_tokenizer().save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    bridge = TransformerBridge.boot_transformers(str(tmp_path), hf_model=text, tokenizer=tokenizer, device="cpu")
    ids = torch.randint(3, 90, (1, 12))
    with torch.no_grad():
        theirs_logits, theirs = bridge.run_with_cache(ids)
        logits, cache = ours.run_with_cache(ids)
    torch.testing.assert_close(logits, theirs_logits, rtol=0, atol=1e-4)
    skipped = {"attn_scores"}  # masked entries differ by convention: ours are −inf
    shared = [name for name in cache if name in theirs and name.rsplit("hook_", 1)[-1] not in skipped]
    for name in shared:
        assert cache[name].shape == theirs[name].shape, name
        torch.testing.assert_close(cache[name], theirs[name], rtol=0, atol=1e-4)
    assert len(shared) >= 50
