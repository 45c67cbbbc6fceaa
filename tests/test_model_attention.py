"""Masks, paths and caches: what a layer may look at, and that every way of computing it agrees."""

from __future__ import annotations

import pytest
import torch
from helpers.models import VIDEO, tiny_inputs, tiny_llava_next_video

from videolens.errors import ModelError
from videolens.model.decoder.rows import KeyValues, Rows
from videolens.model.transformer import HookedVideoTransformer

LAYERS = range(3)


@pytest.fixture(scope="module")
def model():
    return HookedVideoTransformer.from_hugging_face(tiny_llava_next_video())


@pytest.fixture(scope="module")
def prompt(model):
    one, _, pixels = tiny_inputs(frames=3, rows=2)
    return model.prompt_from_ids(one, pixels)


def masks(fn, layers=LAYERS):
    return [(f"blocks.{layer}.attn.hook_mask", fn) for layer in layers]


def cut_video(mask, hook):
    """Rows from 18 on may not look at positions 4 … 11."""
    late = hook.ctx["rows"] >= 18
    seen = (hook.ctx["keys"] >= 4) & (hook.ctx["keys"] < 12)
    mask &= ~(late[:, None] & seen)
    return mask


def test_the_mask_is_fresh_boolean_causal_and_says_where_it_is(model, prompt) -> None:
    n, seen = prompt.shape[1], []

    def look(mask, hook):
        assert mask.dtype == torch.bool
        assert mask.shape == (1, 1, n, n)
        assert torch.equal(mask[0, 0], torch.ones(n, n, dtype=torch.bool).tril())
        assert hook.ctx["rows"].tolist() == hook.ctx["keys"].tolist() == list(range(n))
        seen.append(hook.layer())
        mask[:] = False  # in place, returned by nobody, and must not reach the next layer

    def other(value, hook):
        assert hook.ctx["rows"].tolist() == list(range(n))

    model.run_with_hooks(prompt, fwd_hooks=[*masks(look), ("blocks.1.attn.hook_q", other), ("hook_embed", other)])
    assert seen == list(LAYERS)


@pytest.mark.parametrize("path", ["auto", "eager"])
def test_an_empty_hook_changes_no_bit(model, prompt, path) -> None:
    with model.attention_path(path):
        expected = model(prompt)
        for nothing in (lambda mask, hook: mask, lambda mask, hook: None, lambda mask, hook: mask.clone()):
            assert torch.equal(model.run_with_hooks(prompt, fwd_hooks=masks(nothing)), expected)
        everything = [
            (name, lambda value, hook: value) for name in model.hook_dict if name.endswith(("resid_pre", "z"))
        ]
        assert torch.equal(model.run_with_hooks(prompt, fwd_hooks=everything), expected)


def test_no_mask_is_built_when_nobody_listens(model, prompt, monkeypatch) -> None:
    def refuse(self):
        raise AssertionError("a dense mask was built")

    expected = model.generate(prompt, 3, stop_at_eos=False).tokens
    monkeypatch.setattr(Rows, "causal", property(refuse))
    model(prompt)
    assert torch.equal(model.generate(prompt, 3, stop_at_eos=False).tokens, expected)
    with pytest.raises(AssertionError, match="dense mask"):
        model.run_with_hooks(prompt, fwd_hooks=masks(lambda mask, hook: mask))


def test_fused_attention_unless_somebody_listens_to_scores_or_patterns(model, prompt, monkeypatch) -> None:
    calls = []
    fused = torch.nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(
        torch.nn.functional,
        "scaled_dot_product_attention",
        lambda *args, **options: (calls.append(options), fused(*args, **options))[1],
    )
    model(prompt)
    assert [(call.get("attn_mask"), call["is_causal"]) for call in calls] == [(None, True)] * 3
    calls.clear()
    model.run_with_cache(prompt, names_filter="blocks.1.attn.hook_pattern")
    assert len(calls) == 2
    calls.clear()
    model.run_with_cache(prompt)
    assert not calls


def test_eager_and_fused_agree(model, prompt) -> None:
    fused = model(prompt)
    with model.attention_path("eager"):
        eager = model(prompt)
        cut_eager = model.run_with_hooks(prompt, fwd_hooks=masks(cut_video))
    cut_fused = model.run_with_hooks(prompt, fwd_hooks=masks(cut_video))
    assert (eager - fused).abs().max() <= 1e-4 * fused.std()
    assert (cut_eager - cut_fused).abs().max() <= 1e-4 * fused.std()
    assert (cut_fused - fused).abs().max() >= 0.1 * fused.std()


def test_the_path_can_be_fixed_and_is_given_back(model, prompt) -> None:
    with pytest.raises(ModelError, match="path is fixed to 'sdpa'"), model.attention_path("sdpa"):
        model.run_with_cache(prompt, names_filter="blocks.1.attn.hook_pattern")
    assert model.cfg.attention_path == "auto"
    with pytest.raises(ModelError, match=r"unknown attention path 'egger'.*'eager'"), model.attention_path("egger"):
        pass


def test_a_cut_zeroes_exactly_its_entries(model, prompt) -> None:
    name = "blocks.1.attn.hook_pattern"
    _, plain = model.run_with_cache(prompt, names_filter=name)
    with model.hooks(fwd_hooks=masks(cut_video, [1])):
        _, cut = model.run_with_cache(prompt, names_filter=name)
    before, after = plain[name], cut[name]
    blocked = torch.zeros_like(before, dtype=torch.bool)
    blocked[..., 18:, 4:12] = True
    assert not after[blocked].any()
    # rows that lose nothing do not change by a bit, and the rest of a row that does keeps its proportions
    assert torch.equal(after[..., :18, :], before[..., :18, :])
    left = before.masked_fill(blocked, 0.0)
    torch.testing.assert_close(after, left / left.sum(-1, keepdim=True), rtol=1e-4, atol=1e-6)
    assert torch.equal(after == 0, (before == 0) | blocked)


@pytest.mark.parametrize("path", ["sdpa", "eager"])
@pytest.mark.parametrize("shape", [(1, 1), (2, 1), (1, 4), (2, 4)])
def test_a_row_with_no_key_left_gives_z_0(model, prompt, path, shape) -> None:
    n = prompt.shape[1]

    def blind(mask, hook):
        mask = mask.expand(*shape, n, n).clone()
        mask[-1, -1, 7] = False
        return mask

    names = [f"blocks.1.attn.hook_{name}" for name in (["z", "pattern"] if path == "eager" else ["z"])]
    with model.attention_path(path), model.hooks(fwd_hooks=masks(blind, [1])):
        logits, cache = model.run_with_cache(prompt, names_filter=names)
    assert logits.isfinite().all()
    z = cache["z", 1]
    dead = torch.zeros(2, n, 4, dtype=torch.bool)
    dead[-1 if shape[0] == 2 else slice(None), 7, -1 if shape[1] == 4 else slice(None)] = True
    assert torch.equal((z == 0).all(-1), dead)
    if path == "eager":
        assert torch.equal((cache["pattern", 1] == 0).all(-1).transpose(1, 2), dead)


def test_a_row_whose_scores_are_all_minus_infinity_gives_z_0(model, prompt) -> None:
    def erase(scores, hook):
        scores[:, :, 7] = -torch.inf
        return scores

    with model.hooks(fwd_hooks=[("blocks.1.attn.hook_attn_scores", erase)]):
        logits, cache = model.run_with_cache(prompt, names_filter="blocks.1.attn.hook_z")
    assert logits.isfinite().all()
    assert not cache["z", 1][:, 7].any()


@pytest.mark.parametrize(
    "wrong",
    [
        lambda mask, hook: mask.float(),
        lambda mask, hook: mask[0],
        lambda mask, hook: mask[..., :-1],
        lambda mask, hook: mask.expand(1, 3, -1, -1),
    ],
    ids=["not boolean", "too few dimensions", "a key is missing", "3 of 4 heads"],
)
def test_a_wrong_mask_is_one_clear_error(model, prompt, wrong) -> None:
    with pytest.raises(ModelError, match=r"boolean mask \[batch\|1 head\|1 25 25\]"):
        model.run_with_hooks(prompt, fwd_hooks=masks(wrong, [0]))


# -- one code path for prefill, decoding and resumed runs


@pytest.mark.parametrize(("layer", "row"), [(0, 0), (1, 9), (2, 24), (0, 24)])
@pytest.mark.parametrize("path", ["sdpa", "eager"])
def test_a_resumed_run_equals_the_full_one(model, prompt, layer, row, path) -> None:
    with model.attention_path(path), torch.no_grad():
        past = KeyValues()
        residual, at = model.enter(prompt, past=past)
        clean = []
        for index in LAYERS:
            clean.append(residual)
            residual = model.run_layers(residual, at, start=index, stop=index + 1)
        later = Rows(at.rows[row:], at.keys, at.cos[:, row:], at.sin[:, row:], past=past.before(row))

        def cut(mask, hook):
            mask &= ~((hook.ctx["rows"] >= max(row, 5))[:, None] & (hook.ctx["keys"] == 3))
            return mask

        with model.hooks(fwd_hooks=masks(cut, range(layer, 3))):
            full = model(prompt)
            resumed = model.read_out(model.run_layers(clean[layer][:, row:], later, start=layer), later)
        assert (resumed - full[:, row:]).abs().max() <= 1e-5 * full.std()
        assert (full - model(prompt)).abs().max() > 1e-3 * full.std()


@pytest.mark.parametrize("hooked", [False, True])
def test_decoding_with_a_cache_equals_running_the_growing_prompt(model, hooked) -> None:
    one, _, pixels = tiny_inputs(frames=3)
    prompt = model.prompt_from_ids(one, pixels)
    hooks = masks(cut_video) if hooked else []
    with model.hooks(fwd_hooks=hooks):
        written = model.generate(prompt, 6, stop_at_eos=False).tokens
    ids = one.clone()
    with model.hooks(fwd_hooks=hooks), torch.no_grad():
        for _ in range(6):
            newest = model(model.prompt_from_ids(ids, pixels))[:, -1].argmax(-1)
            ids = torch.cat([ids, newest[:, None]], dim=1)
    assert written.tolist() == ids[:, one.shape[1] :].tolist()
    if hooked:
        assert written.tolist() != model.generate(prompt, 6, stop_at_eos=False).tokens.tolist()


def test_while_decoding_hooks_see_one_row_and_all_keys(model) -> None:
    one, _, pixels = tiny_inputs(frames=3)
    prompt = model.prompt_from_ids(one, pixels)
    seen = []

    def look(mask, hook):
        seen.append((tuple(mask.shape), hook.ctx["rows"].tolist()[-1], len(hook.ctx["keys"])))

    with model.hooks(fwd_hooks=masks(look, [2])):
        model.generate(prompt, 3, stop_at_eos=False)
    assert seen == [((1, 1, 25, 25), 24, 25), ((1, 1, 1, 26), 25, 26), ((1, 1, 1, 27), 26, 27)]


def test_generation_stops_at_the_end_and_checks_the_context(model) -> None:
    one, _, pixels = tiny_inputs(frames=3)
    prompt = model.prompt_from_ids(one, pixels)
    free = model.generate(prompt, 6, stop_at_eos=False)
    assert free.text == ""
    model.frontend.config.text_config.eos_token_id = int(free.tokens[0, 2])
    try:
        assert model.generate(prompt, 6).tokens.tolist() == free.tokens[:, :3].tolist()
    finally:
        model.frontend.config.text_config.eos_token_id = 2
    with pytest.raises(ModelError, match="context of 128"):
        model.generate(prompt, 104)
    with pytest.raises(ModelError, match="from 1 on"):
        model.generate(prompt, 0)


def test_text_and_its_limits(model) -> None:
    with pytest.raises(ModelError, match="128"):
        model(torch.full((1, 129), 5))
    with pytest.raises(ModelError, match="placeholder"):
        model(torch.tensor([[1, VIDEO, 5]]))
    with pytest.raises(ModelError, match="outside the vocabulary"):
        model(torch.tensor([[1, 5000]]))


def test_stopping_early_and_the_loss(model, prompt) -> None:
    _, cache = model.run_with_cache(prompt, names_filter=lambda name: "resid" in name)
    assert torch.equal(model(prompt, stop_at_layer=0), cache["resid_pre", 0])
    assert torch.equal(model(prompt, stop_at_layer=2), cache["resid_pre", 2])
    assert torch.equal(model(prompt, stop_at_layer=-1), cache["resid_pre", 2])
    assert model(prompt, return_type=None) is None
    with pytest.raises(ModelError, match="stop_at_layer = 4: give a whole number from -3 to 3"):
        model(prompt, stop_at_layer=4)
    ids = torch.randint(3, 90, (2, 9))
    expected = torch.nn.functional.cross_entropy(model(ids)[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    torch.testing.assert_close(model(ids, return_type="loss"), expected)
