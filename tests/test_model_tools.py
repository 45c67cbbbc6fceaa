"""TransformerLens' own tools and hook management, run on our model with our prompts."""

from __future__ import annotations

import pytest
import torch
from transformer_lens import patching
from transformer_lens.head_detector import detect_head

from videolens.errors import ModelError

pytestmark = pytest.mark.filterwarnings("ignore")
N_LAYERS, N_HEADS, D_MODEL = 3, 4, 32


# -- 6: prompts in TransformerLens' own tools


def test_patching_functions_take_a_prompt(model, prompt, corrupted) -> None:
    _, clean = model.run_with_cache(prompt)
    metric = lambda logits: logits[0, -1, 10]  # noqa: E731
    clean_value, corrupted_value = float(metric(model(prompt))), float(metric(model(corrupted)))
    stored = corrupted.residual.clone()
    patched = patching.get_act_patch_resid_pre(model, corrupted, clean, metric)
    assert patched.shape == (N_LAYERS, prompt.shape[1])

    # patching every position before layer 0 is running the clean prompt; patching one by hand is what the tool does
    def by_hand(resid, hook):
        resid[:, 6] = clean["resid_pre", 1][:, 6]
        return resid

    value = metric(model.run_with_hooks(corrupted, fwd_hooks=[("blocks.1.hook_resid_pre", by_hand)]))
    assert float(patched[1, 6]) == pytest.approx(float(value), abs=1e-6)
    assert abs(clean_value - corrupted_value) > 0.1
    # the tool patches in place: the prompt's own residual must not feel it
    assert torch.equal(corrupted.residual, stored)
    for tool in ("head_out", "head_q", "head_pattern"):
        by_head = getattr(patching, f"get_act_patch_attn_{tool}_all_pos")(model, corrupted, clean, metric)
        assert by_head.shape == (N_LAYERS, N_HEADS), tool
    assert patching.get_act_patch_attn_head_v_all_pos(model, corrupted, clean, metric).shape == (N_LAYERS, 2)


def test_direct_path_patching(model, prompt, corrupted) -> None:
    _, clean = model.run_with_cache(prompt)
    _, of_corrupted = model.run_with_cache(corrupted)
    metric = lambda logits: logits[0, -1, 10]  # noqa: E731
    caches = (clean, of_corrupted)
    result = patching.get_act_patch_direct_path(model, corrupted, *caches, metric, 0, 1, "q", verbose=False)
    assert result.shape == (N_LAYERS, N_HEADS)
    assert (result[1:] - metric(model(corrupted))).abs().max() > 1e-4
    assert not model.cfg.use_split_qkv_input


@pytest.mark.parametrize("switch", ["use_split_qkv_input", "use_attn_in", "use_attn_result", "use_hook_mlp_in"])
def test_switches_fire_more_hook_points_and_change_nothing(model, prompt, run, switch) -> None:
    logits, _ = run
    getattr(model, f"set_{switch}")(True)
    try:
        again, cache = model.run_with_cache(prompt)
    finally:
        getattr(model, f"set_{switch}")(False)
    n = prompt.shape[1]
    more = {
        "use_split_qkv_input": {"q_input": (1, n, 4, 32), "k_input": (1, n, 2, 32), "v_input": (1, n, 2, 32)},
        "use_attn_in": {"attn_in": (1, n, 4, 32)},
        "use_attn_result": {"result": (1, n, 4, 32)},
        "use_hook_mlp_in": {},
    }[switch]
    expected = {f"blocks.0.attn.hook_{name}": shape for name, shape in more.items()} or {
        "blocks.0.hook_mlp_in": (1, n, 32)
    }
    new = {name for name in cache if name.startswith("blocks.0.")} - set(model.run_with_cache(prompt)[1])
    assert {name: tuple(cache[name].shape) for name in new} == expected
    torch.testing.assert_close(again, logits, rtol=0, atol=1e-4)


def test_switches_that_exclude_each_other(model) -> None:
    model.set_use_attn_in(True)
    try:
        with pytest.raises(ModelError, match="exclude each other"):
            model.set_use_split_qkv_input(True)
    finally:
        model.set_use_attn_in(False)


def test_a_hook_point_that_cannot_fire_is_an_error(model, prompt) -> None:
    with pytest.raises(ModelError, match="set_use_split_qkv_input"):
        model.run_with_hooks(prompt, fwd_hooks=[("blocks.0.attn.hook_q_input", lambda value, hook: value)])


def test_logit_lens(model, prompt, run) -> None:
    from transformer_lens.tools.analysis.logit_lens import logit_lens

    logits, cache = run
    for result in (logit_lens(model, prompt, positions=None), cache.logit_lens(positions=None)):
        torch.testing.assert_close(result.readout.values[-1], logits, rtol=0, atol=1e-4)


def test_attribution_patching_gets_its_gradients(model, prompt) -> None:
    from transformer_lens.tools.analysis.attribution_patching import cache_activation_and_gradient

    gradients = cache_activation_and_gradient(model, prompt, lambda logits: logits[0, -1, 10])
    assert gradients.gradients["blocks.0.attn.hook_z"].abs().sum() > 0


def test_head_detector_sees_video_tokens_apart(model, prompt) -> None:
    ids = model.to_tokens(prompt)
    video = prompt.tokens["video"]
    assert len(ids[0, video].unique()) == len(video)
    assert torch.equal(ids[0, prompt.tokens["stem"]], prompt.input_ids[0, prompt.tokens["stem"]])
    _, cache = model.run_with_cache(prompt, remove_batch_dim=True)
    scores = detect_head(model, prompt, "previous_token_head", cache=cache)
    assert scores.shape == (N_LAYERS, N_HEADS)
    with pytest.raises(ModelError, match="only name positions"):
        model(ids)


# -- hooks: names, exceptions


@pytest.mark.parametrize("how", ["run_with_hooks", "hooks", "add_hook", "run_with_cache", "list"])
def test_misspelt_hook_names_list_near_ones(model, prompt, how) -> None:
    wrong = "blocks.1.attn.hook_patern"
    nothing = lambda value, hook: value  # noqa: E731
    with pytest.raises(ModelError, match=r"blocks\.1\.attn\.hook_pattern"):
        if how == "run_with_hooks":
            model.run_with_hooks(prompt, fwd_hooks=[(wrong, nothing)])
        elif how == "hooks":
            with model.hooks(fwd_hooks=[(wrong, nothing)]):
                pass
        elif how == "add_hook":
            model.add_hook(wrong, nothing)
        else:
            model.run_with_cache(prompt, names_filter=wrong if how == "run_with_cache" else ["hook_embed", wrong])
    assert not model.list_hooks()


def test_a_filter_that_matches_nothing_is_an_error(model, prompt) -> None:
    with pytest.raises(ModelError, match="matches none"):
        model.run_with_cache(prompt, names_filter=lambda name: name.endswith("hook_patern"))
    with pytest.raises(ModelError, match="matches none"):
        model.run_with_hooks(prompt, fwd_hooks=[(lambda name: "patern" in name, lambda value, hook: value)])


def test_hooks_are_gone_after_an_exception(model, prompt) -> None:
    def fails(value, hook):
        raise RuntimeError("on purpose")

    before = model(prompt)
    with pytest.raises(RuntimeError, match="on purpose"):
        model.run_with_hooks(prompt, fwd_hooks=[("blocks.1.hook_resid_pre", fails)])
    assert not model.list_hooks()
    with pytest.raises(RuntimeError, match="on purpose"), model.hooks(fwd_hooks=[("blocks.0.attn.hook_mask", fails)]):
        model.run_with_cache(prompt)
    assert not model.list_hooks()
    with pytest.raises(RuntimeError, match="on purpose"), model.hooks(fwd_hooks=[("blocks.0.hook_mlp_out", fails)]):
        model.generate(prompt, 2)
    assert not model.list_hooks()
    assert torch.equal(model(prompt), before)
