"""A patch copies exactly its positions and heads from the source run, in any rows; an empty one changes nothing."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from helpers.models import tiny_inputs
from helpers.prompts import SPANS, tiny_model, tiny_prompt
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import videolens as vl
from videolens.engine import evaluate
from videolens.errors import ModelError, PromptError, SelectionError, VideolensError
from videolens.interventions.patch import Patch
from videolens.interventions.sites import SITES, named_site
from videolens.interventions.source import SourceRun, check_same_layout

N_LAYERS, N_HEADS, N_KV, N_POS = 3, 4, 2, 25
SWITCHED = {
    "result": "use_attn_result",
    "attn_in": "use_attn_in",
    "q_input": "use_split_qkv_input",
    "k_input": "use_split_qkv_input",
    "v_input": "use_split_qkv_input",
    "mlp_in": "use_hook_mlp_in",
}
PLAIN = [name for name in SITES if name not in (*SWITCHED, "deepstack")]  # which this model lacks: test_deepstack.py
WITH_HEADS = [name for name in PLAIN if SITES[name].heads is not None]


@pytest.fixture(scope="module")
def source(model: vl.HookedVideoTransformer, clean: vl.Prompt) -> SourceRun:
    return SourceRun.record(model, clean, PLAIN)


def layers_of(site: str) -> int | None:
    return 1 if SITES[site].layered else None


def run(model: vl.HookedVideoTransformer, prompt: vl.Prompt, *patches: Patch) -> Tensor:
    hooks = [hook for patch in patches for hook in patch.hooks(prompt)]
    with torch.no_grad(), model.attention_path("eager"):
        return model.run_with_hooks(prompt, fwd_hooks=hooks)


# -- what it copies


@pytest.mark.parametrize("site", PLAIN)
def test_a_patch_is_the_hook_one_would_write_by_hand(model, corrupted, source, site) -> None:
    """Frame 1 is positions 8 … 11, the 4th to 7th video token."""
    name = named_site(site).names([1])[0]
    cached = source.activations[name]

    def by_hand(value, hook):
        value = value.clone()
        if site == "video_tokens":
            value[:, 4:8] = cached[:, 4:8]
        elif site in ("pattern", "attn_scores"):
            value[:, :, 8:12] = cached[:, :, 8:12]
        else:
            value[:, 8:12] = cached[:, 8:12]
        return value

    patched = run(model, corrupted, Patch(site, layers_of(site), "frame 1", source=source))
    with torch.no_grad(), model.attention_path("eager"):
        expected = model.run_with_hooks(corrupted, fwd_hooks=[(name, by_hand)])
    assert torch.equal(patched, expected)
    # rows before the first patched one are as they were, and the patch matters
    plain = run(model, corrupted)
    # (where the scale is edited, the norm divides, which rounds differently)
    assert torch.allclose(patched[:, :8], plain[:, :8], atol=1e-4 if "scale" in site else 0.0, rtol=0)
    assert (patched - plain).abs().max() > 1e-2


@pytest.mark.parametrize("site", WITH_HEADS)
def test_heads_are_patched_alone(model, corrupted, source, site) -> None:
    name, heads = f"blocks.1.attn.hook_{site}", [0, 1] if site in ("k", "v", "rot_k") else [0, 3]
    cached = source.activations[name]
    places = torch.tensor(heads)[:, None], torch.tensor([4, 24])[None]

    def by_hand(value, hook):
        value = value.clone()
        for head in heads:
            for position in (4, 24):
                if value.shape[1] == N_POS:
                    value[:, position, head] = cached[:, position, head]
                else:
                    value[:, head, position] = cached[:, head, position]
        return value

    patch = Patch(site, 1, [24, 4], source=source, heads=heads)
    _, cache = run_cached(model, corrupted, patch, name)
    with torch.no_grad(), model.attention_path("eager"):
        expected = model.run_with_hooks(corrupted, fwd_hooks=[(name, by_hand)])
    assert torch.equal(run(model, corrupted, patch), expected)
    # seen from inside: those entries are the source's, all others the target's own
    own = run_cached(model, corrupted, None, name)[1]
    if site in ("pattern", "attn_scores"):
        cache, own, cached = (value.transpose(1, 2) for value in (cache, own, cached))
    index = (slice(None), places[1].T, places[0].T)
    assert torch.equal(cache[index], cached[index])
    rest = torch.ones_like(cache, dtype=torch.bool)
    rest[index] = False
    assert torch.equal(cache[rest], own[rest])


def run_cached(model, prompt, patch, name) -> tuple[Tensor, Tensor]:
    """Logits, and what the hook point gave after the patch."""
    with torch.no_grad(), model.attention_path("eager"), model.hooks(fwd_hooks=patch.hooks(prompt) if patch else []):
        logits, cache = model.run_with_cache(prompt, names_filter=[name])
    return logits, cache[name]


@pytest.mark.parametrize("site", SWITCHED)
def test_sites_behind_a_switch(model, clean, corrupted, site) -> None:
    with pytest.raises(ModelError, match=f"set_{SWITCHED[site]}"):
        SourceRun.record(model, clean, site)
    getattr(model, f"set_{SWITCHED[site]}")(True)
    try:
        patch = Patch(site, [1], "frame 0", source=SourceRun.record(model, clean, site, layers=1))
        assert (run(model, corrupted, patch) - run(model, corrupted)).abs().max() > 1e-2
    finally:
        getattr(model, f"set_{SWITCHED[site]}")(False)


def test_patching_everything_that_enters_layer_0_is_running_the_source(model, clean, corrupted, source) -> None:
    expected = run(model, clean)
    assert (expected - run(model, corrupted)).abs().max() > 0.1
    assert torch.equal(run(model, corrupted, Patch("resid_pre", 0, source=source)), expected)
    # both clips are asked in the same words here: then the video is all there is
    ids, _, _ = tiny_inputs(seed=0)
    other = model.prompt_from_ids(ids, tiny_inputs(seed=1)[2], SPANS)
    assert torch.equal(run(model, other, Patch("video_tokens", source=source)), expected)
    assert torch.equal(run(model, other, Patch("resid_pre", 0, "video", source=source)), expected)


def test_frames_in_another_order_at_layer_0_are_the_clip_in_that_order(model, clean) -> None:
    """Video tokens know their place by where they stand only, so their order is all that a reversal changes."""
    ids, pixels = tiny_inputs(seed=0)[0], tiny_inputs(seed=0)[2]
    backwards = model.prompt_from_ids(ids, pixels.flip(1), SPANS)
    expected, plain = run(model, backwards), run(model, clean)
    assert (expected - plain).abs().max() > 1e-3
    with model.attention_path("eager"):
        own = SourceRun.record(model, clean, ["resid_pre", "video_tokens"]).reordered([2, 1, 0])
    for patch in (Patch("resid_pre", 0, "video", source=own), Patch("video_tokens", source=own)):
        assert torch.allclose(run(model, clean, patch), expected, atol=1e-6)
    there_and_back = own.reordered([2, 1, 0]).reordered(range(3))
    assert torch.equal(run(model, clean, Patch("resid_pre", 1, "video", source=there_and_back)), plain)


@pytest.mark.parametrize("site", ["resid_pre", "z", "k", "mlp_out"])
def test_only_video_tokens_change_places(model, clean, source, site) -> None:
    name = named_site(site).names([1])[0]
    kept, moved = source.activations[name], SourceRun(clean, {name: source.activations[name]}).reordered([1, 1, 0])
    by_hand = kept.clone()
    by_hand[:, 4:8], by_hand[:, 8:12], by_hand[:, 12:16] = kept[:, 8:12], kept[:, 8:12], kept[:, 4:8]
    assert torch.equal(moved.activations[name], by_hand) and not torch.equal(kept, by_hand)


@pytest.mark.parametrize("frames", [[0, 1], [0, 1, 3], [0, 1, -1], [0, 1, True], range(4)])
def test_an_order_that_is_none_is_one_clear_error(model, clean, frames) -> None:
    with pytest.raises(SelectionError, match=r"give one of 0 … 2 for each of the prompt's 3 places"):
        SourceRun.record(model, clean, "resid_pre").reordered(frames)


def test_what_has_keys_or_no_place_is_not_reordered(model, clean, source) -> None:
    with pytest.raises(VideolensError, match=r"holds a value for every key.*such as 'resid_pre'"):
        source.reordered([2, 1, 0])
    with pytest.raises(ModelError, match="unknown hook point to patch 'mine'"):
        SourceRun(clean, {"mine": torch.zeros(1)}).reordered([2, 1, 0])


def test_an_empty_patch_changes_nothing(model, corrupted, source) -> None:
    plain = model(corrupted)
    patch = Patch("pattern", 1, "separator", source=source)
    assert patch.cone(corrupted) is None
    assert torch.equal(model.run_with_hooks(corrupted, fwd_hooks=patch.hooks(corrupted)), plain)


def test_the_source_and_the_target_are_left_as_they_were(model, clean, corrupted, source) -> None:
    kept = {name: value.clone() for name, value in source.activations.items()}
    stored = corrupted.residual.clone()
    for site in PLAIN:
        run(model, corrupted, Patch(site, layers_of(site), "video", source=source))
    assert all(torch.equal(source.activations[name], value) for name, value in kept.items())
    assert torch.equal(corrupted.residual, stored)


def test_a_cache_of_any_making_will_do(model, clean, corrupted, source) -> None:
    expected = run(model, corrupted, Patch("z", 1, "stem", source=source))
    for options in ({}, {"remove_batch_dim": True}, {"return_cache_object": False}):
        _, cache = model.run_with_cache(clean, **options)
        assert torch.allclose(run(model, corrupted, Patch("z", 1, "stem", source=SourceRun(clean, cache))), expected)
    zeros = SourceRun(clean, {"blocks.1.attn.hook_z": torch.zeros(1, N_POS, N_HEADS, 8)})
    by_hand = [("blocks.1.attn.hook_z", lambda value, hook: value.index_fill(1, torch.tensor([18, 19]), 0.0))]
    with torch.no_grad(), model.attention_path("eager"):
        expected = model.run_with_hooks(corrupted, fwd_hooks=by_hand)
    assert torch.equal(run(model, corrupted, Patch("attn.hook_z", 1, "stem", source=zeros)), expected)


def test_a_question_is_recorded_like_its_prompt_and_only_what_was_asked_for(model, clean) -> None:
    source = SourceRun.record(model, clean, ["resid_pre", "value"], layers=[2, 0])
    assert set(source.activations) == {
        f"blocks.{i}.{name}" for i in (0, 2) for name in ("hook_resid_pre", "attn.hook_v")
    }
    assert repr(source) == "SourceRun(25 positions, 'resid_pre' of layers 0, 2; 'v' of layers 0, 2)"
    assert not source.activations["blocks.0.hook_resid_pre"].requires_grad


def test_while_decoding_generated_tokens_are_left_alone(model, corrupted, source) -> None:
    patch = Patch("resid_post", 1, "last", source=source)
    with model.hooks(fwd_hooks=patch.hooks(corrupted)):
        tokens = model.generate(corrupted, 3, stop_at_eos=False).tokens
    first = int(run(model, corrupted, patch)[0, -1].argmax())
    assert tokens.flatten()[0] == first


# -- rows, keys, cones


@given(st.sampled_from(PLAIN), st.data())
def test_a_few_rows_give_the_same_part(site: str, data: st.DataObject) -> None:
    """The function on some rows (and keys) of a value is those rows of the function on the whole."""
    source = invented_source(site)
    prompt, where = source.prompt, named_site(site)
    value = torch.randn(source.activations[where.names([1])[0]].shape, generator=torch.Generator().manual_seed(1))
    rows = prompt.tokens["video"] if where.video else torch.arange(N_POS)
    some = st.lists(st.integers(0, len(rows) - 1), min_size=1, unique=True).map(lambda x: torch.tensor(sorted(x)))
    positions = data.draw(st.sampled_from(["frame 0", "frame 1 | frame 2", "f2 r1 c0", None]))
    heads = data.draw(st.sampled_from([None, [0], [0, 1]])) if where.heads is not None else None
    patch = Patch(site, 1 if where.layered else None, positions, source=source, heads=heads)
    ((_, function),) = patch.hooks(prompt)
    keys = torch.arange(N_POS)
    whole = function(value, hook_at(where, rows, keys))
    of_rows, of_keys = data.draw(some), keys
    part = value.index_select(where.rows, of_rows)
    if where.square:
        of_keys = data.draw(some)
        part, whole = part.index_select(3, of_keys), whole.index_select(3, of_keys)
    given_part = part.clone()
    assert torch.equal(function(part, hook_at(where, rows[of_rows], of_keys)), whole.index_select(where.rows, of_rows))
    assert torch.equal(part, given_part), "nothing is edited in place"


@given(st.sampled_from(PLAIN), st.data())
def test_disjoint_patches_together_are_the_union(site: str, data: st.DataObject) -> None:
    source, where = invented_source(site), named_site(site)
    allowed = source.prompt.tokens["video" if where.video else "all"].tolist()
    positions = data.draw(st.lists(st.sampled_from(allowed), min_size=2, unique=True))
    cut = data.draw(st.integers(1, len(positions) - 1))
    layers = 1 if where.layered else None
    value = torch.randn(source.activations[where.names([1])[0]].shape, generator=torch.Generator().manual_seed(1))
    rows = source.prompt.tokens["video"] if where.video else torch.arange(N_POS)
    hook = hook_at(where, rows, torch.arange(N_POS))

    def apply(value: Tensor, part: list[int]) -> Tensor:
        ((_, function),) = Patch(site, layers, part, source=source).hooks(source.prompt)
        return function(value, hook)

    assert torch.equal(apply(apply(value, positions[:cut]), positions[cut:]), apply(value, positions))


_PROMPT = tiny_prompt(tiny_model())
_SIZES = {"batch": 1, "pos": N_POS, "key": N_POS, "video": 12, "width": 5, "head": 2}


def invented_source(site: str) -> SourceRun:
    where = named_site(site)
    shape = [_SIZES[axis] for axis in where.axes]
    return SourceRun(_PROMPT, {where.names([1])[0]: torch.randn(shape, generator=torch.Generator().manual_seed(0))})


def hook_at(where, rows: Tensor, keys: Tensor) -> SimpleNamespace:
    return SimpleNamespace(name=where.names([1])[0], ctx={"rows": rows, "keys": keys})


@pytest.mark.parametrize("site", PLAIN)
def test_nothing_changes_outside_the_cone(model, corrupted, source, site) -> None:
    patch = Patch(site, layers_of(site), "frame 1 | f2 r1 c1", source=source)
    layer, row = patch.cone(corrupted)
    assert (layer, row) == (1 if SITES[site].layered else 0, 8)
    _, before = model.run_with_cache(corrupted, names_filter=lambda name: name.endswith("hook_resid_post"))
    with model.hooks(fwd_hooks=patch.hooks(corrupted)):
        _, after = model.run_with_cache(corrupted, names_filter=lambda name: name.endswith("hook_resid_post"))
    for l in range(N_LAYERS):  # noqa: E741
        changed = (before["resid_post", l] - after["resid_post", l]).abs().amax(dim=(0, 2)) > 1e-4
        assert not changed[:row].any()
        assert bool(changed.any()) == (l >= layer)


def test_evaluated_side_by_side_each_sees_its_own(model, corrupted, source) -> None:
    """Through the engine: every site, several layers and selections in one call, equal to one hooked forward each."""
    patches = [
        Patch(site, layers if SITES[site].layered else None, positions, source=source)
        for site in PLAIN
        for layers in (0, 2, [0, 1])
        for positions in ("frame 0", "f1 r1 c1 | frame 2")
    ]
    together = evaluate(model, corrupted, patches)
    for patch, logits in zip(patches, together, strict=True):
        with torch.no_grad():
            alone = model.run_with_hooks(corrupted, fwd_hooks=patch.hooks(corrupted))[0, -1]
        torch.testing.assert_close(logits, alone, rtol=0, atol=1e-4)


def test_functions_that_do_the_same_are_equal(corrupted, source) -> None:
    def function(*args, **options):
        return Patch(*args, **options, source=source).hooks(corrupted)[0][1]

    assert function("resid_pre", 1, "frame 0") == function("resid_pre", [1, 2], [4, 5, 6, 7])
    assert hash(function("resid_pre", 1, "frame 0")) == hash(function("resid_pre", 1, [7, 6, 5, 4]))
    assert function("resid_pre", 1, "frame 0") != function("resid_pre", 1, "frame 1")
    assert function("z", 1, "frame 0") != function("z", 1, "frame 0", heads=[0])


def test_a_patch_is_data(corrupted, source) -> None:
    patch = Patch("value", [2, 1, 1], torch.tensor([20, 4]), source=source, heads=1)
    assert (patch.site, patch.layers, patch.positions, patch.heads) == ("v", (1, 2), (4, 20), (1,))
    assert patch.where(corrupted).tolist() == [4, 20] and patch.cone(corrupted) == (1, 4)
    assert patch == replace_by_hand(patch) and hash(patch) == hash(replace_by_hand(patch))
    assert Patch("blocks.{layer}.attn.hook_z", 0, source=source).site == "z"
    assert Patch("frontend.hook_video_tokens", source=source).where(corrupted).tolist() == list(range(4, 16))


def replace_by_hand(patch: Patch) -> Patch:
    return Patch(patch.site, patch.layers, patch.positions, source=patch.source, heads=patch.heads)


# -- misuse


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        (("resid_prre", 1), ModelError, r"unknown hook point to patch 'resid_prre'; did you mean 'resid_pre'"),
        (("attn.hook_patern", 1), ModelError, "did you mean"),
        (("video_features",), VideolensError, r"\[batch frame patch d_vision\].*patch 'video_tokens'"),
        (("frontend.hook_video_features",), VideolensError, "cannot be patched position by position"),
        (("attn.hook_mask", 1), VideolensError, "cut attention with a Knockout"),
        (("resid_pre",), VideolensError, "once in every layer: say in which"),
        (("video_tokens", 1), VideolensError, "belongs to no layer, so leave layers out"),
        (("resid_pre", 3), VideolensError, r"has no blocks\.3\.hook_resid_pre; it has .*'resid_pre' of layers 0 … 2"),
        (("resid_pre", -1), VideolensError, "layer -1 is negative"),
        (("z", 1, None, 4), VideolensError, "head 4 is outside the model: its heads are 0 … 3"),
        (("k", 1, None, 2), VideolensError, "head 2 is outside the model: its heads are 0 … 1"),
        (("resid_pre", 1, None, 0), VideolensError, "'resid_pre' does not tell heads apart"),
        (("resid_pre", 1, [-1]), SelectionError, "position -1 is negative.*or name a selection"),
    ],
)
def test_misuse_is_one_clear_error_when_it_is_made(source, arguments, error, says) -> None:
    *arguments, heads = arguments if len(arguments) == 4 else (*arguments, None)
    with pytest.raises(error, match=says):
        Patch(*arguments, source=source, heads=heads)


@pytest.mark.parametrize(
    ("positions", "says"),
    [
        ([3, 25], r"position 25 is outside the prompt: its positions are 0 … 24"),
        ("fram 1", "did you mean 'frame 1'"),
        ("frame 3", "unknown selection 'frame 3'"),
        ("f0 r2 c0", "outside the grid of 3 frames × 2 rows × 2 columns"),
    ],
)
def test_positions_outside_the_prompt(corrupted, source, positions, says) -> None:
    patch = Patch("resid_pre", 1, positions, source=source)
    for ask in (patch.where, patch.hooks, patch.cone):
        with pytest.raises(SelectionError, match=says):
            ask(corrupted)


def test_only_video_tokens_are_at_the_front_end(corrupted, source) -> None:
    with pytest.raises(SelectionError, match=r"position 18 \(stem\) is no video token"):
        Patch("video_tokens", None, "frame 0 | stem", source=source).hooks(corrupted)


def test_a_source_that_lacks_what_is_copied(model, clean, source) -> None:
    little = SourceRun.record(model, clean, "z", layers=1)
    with pytest.raises(VideolensError, match=r"no blocks\.1\.attn\.hook_q; it has 'z' of layers 1\. Record it"):
        Patch("q", 1, source=little)
    _, part = model.run_with_cache(clean, pos_slice=slice(0, 5))
    with pytest.raises(VideolensError, match=r"shape \[1, 5, 4, 8\], but \[batch pos head width\] with .* 25 pos"):
        Patch("z", 1, source=SourceRun(clean, part))
    with pytest.raises(VideolensError, match="layer 3 is outside the model: its layers are 0 … 2"):
        SourceRun.record(model, clean, "z", layers=3)
    with pytest.raises(VideolensError, match="layers are empty: name at least one of 0 … 2"):
        SourceRun.record(model, clean, "z", layers=[])
    with pytest.raises(
        PromptError, match=r"a source run needs a single prompt, got a batch of 2: take one, prompt\[0\]"
    ):
        SourceRun.record(model, tiny_prompt(model, rows=2), "z")
    with pytest.raises(VideolensError, match="layer 2 is outside the model"):
        Patch("z", 2, source=source).check(n_layers=2, n_heads=4)


def test_unequal_token_maps_are_refused_before_anything_runs(model, clean, source, monkeypatch) -> None:
    def prompt(spans=SPANS, **options):
        ids, _, pixels = tiny_inputs(**options)
        return model.prompt_from_ids(ids, pixels, spans)

    longer = {name: range(at.start + 4, at.stop + 4) for name, at in SPANS.items()}
    cases = {
        r"has 25 positions, the prompt that is patched 29 \(frame 3: 0 and 4\)": prompt(longer, frames=4),
        "role of position 23 is 'option' in the source run's prompt and 'suffix' in": prompt(
            {**SPANS, "option B": [22]}
        ),
        "option of position 22 is 1 in the source run's prompt and 0 in": prompt(
            {**SPANS, "option A": range(20, 23), "option B": [23]}
        ),
    }
    monkeypatch.setattr(type(model), "forward", lambda *a, **k: pytest.fail("the model ran"))
    patch = Patch("resid_pre", 1, source=source)
    for says, other in cases.items():
        with pytest.raises(PromptError, match=says + ".*one layout"):
            patch.hooks(other)
        with pytest.raises(PromptError, match="one layout"):
            evaluate(model, other, [patch])


def test_the_grid_is_compared(model, clean) -> None:
    cells = torch.arange(12)
    other = replace(
        clean.tokens,
        grid=(1, 3, 4),
        frame=clean.tokens.frame.clamp(max=0),
        row=clean.tokens.row.index_copy(0, torch.arange(4, 16), cells // 4),
        column=clean.tokens.column.index_copy(0, torch.arange(4, 16), cells % 4),
    )
    with pytest.raises(PromptError, match=r"grid of 3 × 2 × 2 \(frames × rows × columns\), the other one of 1 × 3 × 4"):
        check_same_layout(clean, replace(clean, tokens=other))


def test_another_answer_and_other_words_are_the_same_layout(clean, corrupted) -> None:
    assert clean.tokens.answer != corrupted.tokens.answer
    check_same_layout(clean, corrupted)
    narrow = replace(corrupted, residual=corrupted.residual[..., :16])
    with pytest.raises(PromptError, match="32 wide, the other 16: one model must make both"):
        check_same_layout(clean, narrow)


def test_a_source_run_of_another_model_is_refused(model, clean, corrupted) -> None:
    source = SourceRun(clean, {"blocks.1.attn.hook_z": torch.zeros(1, N_POS, 4, 6)})
    with pytest.raises(ModelError, match=r"holds \[2, 4, 8\] at the patched positions, the source run \[2, 4, 6\]"):
        run(model, corrupted, Patch("z", 1, "stem", source=source))
