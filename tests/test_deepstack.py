"""Features of the tower that are added after the decoder's first layers (Qwen3-VL), in every kind of run."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from helpers.clips import clip
from helpers.families import CASES
from helpers.families.qwen import VIDEO, flat_patches
from helpers.families.qwen3_vl import TEMPLATE, asked, in_ids

import videolens as vl
from videolens.engine import base as base_of
from videolens.engine import descent, planning
from videolens.errors import ModelError, PromptError, VideolensError
from videolens.experiments.search.judging import Judge
from videolens.experiments.search.keeping import Keeping
from videolens.interventions.partition import Unit
from videolens.interventions.protocol import as_interventions
from videolens.interventions.route_pathway import SEARCHED, RoutePathway

CASE = CASES["qwen3_vl"]
STACKED = ["blocks.0.hook_deepstack", "blocks.1.hook_deepstack"]


@pytest.fixture(scope="module")
def ours() -> vl.HookedVideoTransformer:
    return CASE.load()


@pytest.fixture(scope="module")
def prompt(ours: vl.HookedVideoTransformer) -> vl.Prompt:
    return CASE.prompts(ours)[0]


# -- what is added


@torch.no_grad()
def test_what_is_added_is_what_the_original_adds(ours, prompt) -> None:
    patches, grids = flat_patches(prompt.pixel_values)
    theirs = CASE.plain.model.visual(patches, grid_thw=grids).deepstack_features
    video = prompt.tokens["video"]
    assert [name for name in ours.hook_dict if "deepstack" in name] == STACKED and len(theirs) == 2
    streams = ("hook_deepstack", "hook_resid_pre", "hook_resid_post")
    _, cache = ours.run_with_cache(prompt, names_filter=lambda name: name.endswith(streams))
    for layer, wanted in enumerate(theirs):
        added = cache[f"blocks.{layer}.hook_deepstack"]
        assert torch.equal(cache["resid_post", layer] + added, cache["resid_pre", layer + 1])
        assert (added[0, video] - wanted).abs().max() <= 1e-5 * wanted.std()
        others = torch.ones(prompt.shape[1], dtype=torch.bool)
        others[video] = False
        assert not added[0, others].any() and added[0, video].std() > 0.1
        assert torch.equal(ours(prompt, stop_at_layer=layer + 1), cache["resid_pre", layer + 1])


@torch.no_grad()
def test_without_it_the_answer_is_another(ours, prompt) -> None:
    whole = ours(prompt)
    nothing = [(name, lambda value, hook: torch.zeros_like(value)) for name in STACKED]
    without = ours.run_with_hooks(prompt, fwd_hooks=nothing)
    assert (without - whole).abs().max() > 0.1 * whole.std()
    assert torch.equal(without, ours(replace(prompt, deepstack=())))
    for i, name in enumerate(STACKED):
        one = ours.run_with_hooks(prompt, fwd_hooks=[(name, nothing[i][1])])
        assert (one - whole)[0, -1].abs().max() > 1e-3 * whole.std()


@torch.no_grad()
def test_text_has_nothing_added(ours, prompt) -> None:
    ids = torch.randint(3, 200, (2, 9))
    expected = CASE.plain(input_ids=ids).logits
    assert (ours(ids) - expected).abs().max() <= 1e-4 * expected.std()
    _, cache = ours.run_with_cache(ids)
    assert not cache[STACKED[0]].any() and cache[STACKED[0]].shape == cache["resid_post", 0].shape
    # a prompt of text alone, beside one with a video
    text = ours.prompt_from_ids(ids[:1], None)
    batch = vl.Prompt.batch([text, prompt])
    for one, row in zip((text, prompt), ours(batch), strict=True):
        assert (row[-one.shape[1] :] - ours(one)[0]).abs().max() <= 1e-4 * row.std()


@torch.no_grad()
def test_components_sum_to_the_stream(ours, prompt) -> None:
    ours.set_use_attn_result(True)
    try:
        logits, cache = ours.run_with_cache(prompt)
    finally:
        ours.set_use_attn_result(False)
    for layer in range(ours.cfg.n_layers):
        found, labels = cache.decompose_resid(layer, return_labels=True)
        assert labels[len(labels) - min(layer, 2) :] == [f"{i}_deepstack" for i in range(min(layer, 2))]
        torch.testing.assert_close(found.sum(0), cache["resid_pre", layer], rtol=0, atol=2e-4)
        whole = cache.get_full_resid_decomposition(layer, expand_neurons=False, mlp_input=True)
        torch.testing.assert_close(whole.sum(0), cache["resid_mid", layer], rtol=0, atol=2e-4)
    parts = cache.decompose_resid(apply_ln=True, pos_slice=-1)
    direction = ours.tokens_to_residual_directions(10)
    assert float((parts @ direction).sum(0)) == pytest.approx(float(logits[0, -1, 10]), abs=1e-3)
    on_it = cache.get_full_resid_decomposition(
        apply_ln=True, expand_neurons=False, pos_slice=-1, project_output_onto=direction
    )
    assert float(on_it.sum()) == pytest.approx(float(logits[0, -1, 10]), abs=1e-3)
    # in a video token the features are a part of it
    first = int(prompt.tokens["video"][0])
    assert cache.decompose_resid(pos_slice=first)[-1].abs().max() > 0.1
    assert len(cache.decompose_resid(mode="mlp")) == ours.cfg.n_layers + 1


# -- every kind of run


def acting(ours: vl.HookedVideoTransformer, prompt: vl.Prompt, other: vl.Prompt) -> list[Any]:
    """Interventions that begin before, where and after features are added, on rows before and inside the video."""
    source = vl.SourceRun.record(ours, other, ["resid_pre", "resid_post", "mlp_out", "video_tokens"])
    added = vl.SourceRun.record(ours, other, "deepstack", [0, 1])
    found: list[Any] = [
        vl.Knockout.route(route, layers=layers)
        for route in ("cross-frame", "video -> last", "video -> question", "last -> last")
        for layers in ([0], [1], [2], [0, 1, 2])
    ]
    found += [vl.Patch("deepstack", layer, where, source=added) for layer in (0, 1) for where in ("frame 1", "video")]
    found += [vl.Patch(site, 1, "frame 1", source=source) for site in ("resid_pre", "resid_post", "mlp_out")]
    return [*found, vl.Patch("video_tokens", positions="frame 1", source=source), [found[0], found[-1]]]


@pytest.mark.parametrize("kept", [False, True])
def test_a_sweep_equals_plain_forwards(ours, kept: bool) -> None:
    prompt, other = asked(ours), asked(ours, brighter=90)
    some = acting(ours, prompt, other)
    base = base_of(ours, prompt) if kept else None
    found = vl.sweep(ours, prompt, some, base=base, verify=True)
    assert not any(found.in_full) and found.forwards < len(some)
    listed = [as_interventions(one, ours.cfg, called="one") for one in some]
    for logits, each in zip(found.logits, listed, strict=True):
        plain = ours.run_with_hooks(prompt, fwd_hooks=[hook for one in each for hook in one.hooks(prompt)])[0, -1]
        assert (logits - plain).abs().max() <= 1e-4 * plain.std()
    moved = (found.logits - found.base).abs().amax(-1) / found.base.std()
    # in the last layer the video is read by the last token alone
    nothing = [i for i, one in enumerate(some) if getattr(one, "layers", ()) == (2,) and one.target != "last"]
    assert [i for i, one in enumerate(moved.tolist()) if one < 1e-3] == nothing and len(nothing) == 2


def test_in_little_memory_and_followed_to_their_ends(ours, monkeypatch) -> None:
    prompt = asked(ours, frames=8)
    some = acting(ours, prompt, asked(ours, frames=8, brighter=90))
    whole = vl.sweep(ours, prompt, some)
    monkeypatch.setattr(planning, "_ROWS_PER_CALL", {"cpu": 1})
    alone = vl.sweep(ours, prompt, some)
    short = vl.sweep(ours, prompt, some, max_memory=alone.plan.peak_bytes * 3 // 4)
    monkeypatch.setattr(descent, "_FEW", 0)
    deep = vl.sweep(ours, prompt, some, verify=True)
    assert alone.plan.rounds < short.plan.rounds and deep.plan.peak_bytes < alone.plan.peak_bytes
    for found in (alone, short, deep):
        assert (found.logits - whole.logits).abs().max() <= 1e-4 * whole.base.std()


def test_features_of_the_tower_that_are_edited_are_added_as_edited(ours, prompt) -> None:
    """The engine's branches share what is added, so that this one runs in full, and says so."""

    def brighter(value: torch.Tensor, hook: Any) -> torch.Tensor:
        value[:, 1] += torch.linspace(-1, 1, value.shape[-1])
        return value

    hooks = [("frontend.hook_video_features", brighter)]
    with ours.hooks(hooks):
        _, cache = ours.run_with_cache(prompt, names_filter=[*STACKED, "hook_embed"])
    frame, others = prompt.tokens["frame 1"], prompt.tokens["frame 0 | frame 2"]
    for name, before in zip([*STACKED, "hook_embed"], [*prompt.deepstack, prompt.residual], strict=True):
        moved = (cache[name] - before).abs().amax((0, -1))
        assert (moved[frame] > 1e-3).all() and not moved[others].any()

    class Declared:
        def check(self, **model: int) -> None:
            """Fits any model."""

        def hooks(self, prompt: vl.Prompt) -> list[Any]:
            return hooks

        def cone(self, prompt: vl.Prompt) -> tuple[int, int]:
            return 0, int(prompt.tokens["frame 1"][0])

    found = vl.sweep(ours, prompt, [Declared(), vl.Knockout("video", "last", layers=[1])])
    assert found.in_full == (True, False)
    plain = ours.run_with_hooks(prompt, fwd_hooks=hooks)[0, -1]
    assert (found.logits[0] - plain).abs().max() <= 1e-4 * plain.std()
    assert (plain - found.base).abs().max() > 1e-3 * plain.std()


@torch.no_grad()
def test_a_resumed_run_is_the_run(ours, prompt) -> None:
    clean = ours.run_clean(prompt)
    row = int(prompt.tokens["frame 1"][0])
    for layer in range(ours.cfg.n_layers):

        def double(value: torch.Tensor, hook: Any) -> torch.Tensor:
            value[:, torch.isin(hook.ctx["rows"], prompt.tokens["frame 1"])] *= 2
            return value

        for point in ("hook_resid_pre", "hook_attn_out", "hook_resid_post"):
            hooks = [(f"blocks.{layer}.{point}", double)]
            found = ours.resume(clean, layer=layer, row=row, fwd_hooks=hooks, rows="last | frame 2")
            asked_for = prompt.tokens["last | frame 2"]
            plain = ours.run_with_hooks(prompt, fwd_hooks=hooks)[:, asked_for]
            assert (found - plain).abs().max() <= 1e-4 * plain.std()


def test_compiled_and_generated(ours) -> None:
    prompts = [asked(ours), asked(ours, brighter=90)]
    pathways = [
        vl.Pathway.closed(n_layers=3, cross_frame=[0, 1], video_to_question=[1, 2], question_to_last=[2]),
        vl.Pathway.closed(n_layers=3, cross_frame=[0], video_to_question=[0], question_to_last=[1, 2]),
    ]
    for pathway in pathways:
        fast = ours.compile(pathway)
        for one in (*prompts, vl.Prompt.batch(prompts)):
            masked = ours.run_with_hooks(one, fwd_hooks=pathway)[:, -1:]
            assert (fast(one) - masked).abs().max() <= 1e-4 * masked.std()
            assert fast.generate(one, 6).tokens.tolist() == ours.generate(one, 6, pathway).tokens.tolist()
        # the question reads the video before anything is added to it, or after
        nothing = replace(prompts[0], deepstack=())
        moved = (fast(nothing) - fast(prompts[0])).abs().max() / fast(nothing).std()
        assert moved > 1e-2 if pathway is pathways[0] else moved == 0


def test_runs_that_are_kept_while_a_pathway_is_searched(ours) -> None:
    judge = Judge(ours, [asked(ours), asked(ours, brighter=90), asked(ours, brighter=40)])
    keeping = Keeping(judge, 0.0)
    keeping.needed = -1e9
    walk = [
        {Unit(1, None, SEARCHED[0])},
        {Unit(0, None, one) for one in SEARCHED[:3]},
        {Unit(2, 1, SEARCHED[1])},
        set(),
    ]
    for units in walk:
        pathway = RoutePathway.of_units(3, frozenset(units))
        assert keeping.test(pathway, 0)
        assert torch.allclose(keeping.margins, judge.judge(pathway).margins, atol=1e-4)
    assert keeping.effort.operations > 0


def test_questions_side_by_side(ours) -> None:
    shown = [torch.cat([clip(40, 60, frames=4)]) + torch.tensor(more).byte() for more in (0, 40, 90)]
    questions = [
        vl.Question(vl.Video.from_array(one, fps=2.0), "What moves?", ["A ball", "A cube"], "A ball") for one in shown
    ]
    kept = ours.template
    try:
        ours.template = TEMPLATE
        together, alone = (
            vl.measure_accuracy(ours, questions, conditions=["as is"], max_batch=n, progress=False) for n in (3, 1)
        )
    finally:
        ours.template = kept
    for column in together.to_dataframe().select_dtypes("number"):
        assert together.to_dataframe()[column].tolist() == pytest.approx(
            alone.to_dataframe()[column].tolist(), abs=1e-4
        )


@pytest.mark.parametrize("layers", [[0, 2], [1, 2, 3]])
def test_attribution_in_the_last_layer_is_exact(layers: list[int]) -> None:
    """Also where features are added after that layer, and the last position is a video token."""
    model = vl.HookedVideoTransformer.from_hugging_face(CASE.original(vision={"deepstack_visual_indexes": layers}))
    ids = torch.tensor([[3, 4, 5, *in_ids(*CASE.shape)[:-1]]])
    for end in ([], [8, 9, 10]):
        given = torch.cat([ids, torch.tensor([end], dtype=torch.int64)], dim=1)
        spans = {"stem": range(ids.shape[1], ids.shape[1] + 2)} if end else {}
        prompt = model.prompt_from_ids(given, torch.randn(1, 5, 3, *CASE.shape[1:]), spans)
        assert (prompt.input_ids[0, -1] == VIDEO) == (not end)
        prompt = replace(prompt, option_tokens=(5, 6, 7), answer_token=5)
        found = vl.attribute(model, prompt, verify="all", progress=False).table
        last = found[found["layer"] == model.cfg.n_layers - 1]
        assert last["score"].to_numpy() == pytest.approx(last["exact"].to_numpy(), abs=2e-4)
        assert last["exact"].abs().max() > 1e-3


def test_gradients_reach_the_pixels_through_what_is_added(ours, prompt) -> None:
    pixels = prompt.pixel_values.clone().requires_grad_()
    with torch.enable_grad():
        shown = ours.frontend.shown(prompt, pixels)
        assert all(one.requires_grad for one in shown.deepstack)
        logit = ours(replace(shown, residual=shown.residual.detach()))[0, -1, 10]
        (slope,) = torch.autograd.grad(logit, pixels)
    assert bool((slope.abs().amax((0, 2, 3, 4)) > 0).all()), "every frame is felt in what is added alone"
    at = int(slope.abs().argmax())
    logits = []
    for step in (-1e-2, 1e-2):
        moved = prompt.pixel_values.clone()
        moved.view(-1)[at] += step
        with torch.no_grad():
            shown = ours.frontend.shown(prompt, moved)
            logits.append(float(ours(replace(shown, residual=prompt.residual))[0, -1, 10]))
    assert (logits[1] - logits[0]) / 2e-2 == pytest.approx(float(slope.view(-1)[at]), rel=0.02)


def test_more_layers_than_there_are_is_an_error() -> None:
    with pytest.raises(ModelError, match=r"features of 4 layers .* of which there are 3"):
        vl.HookedVideoTransformer.from_hugging_face(CASE.original(vision={"deepstack_visual_indexes": [0, 1, 2, 3]}))


def test_prompts_of_another_depth_are_no_batch(prompt) -> None:
    with pytest.raises(PromptError, match=r"\[0, 2\] layers"):
        vl.Prompt.batch([prompt, replace(prompt, deepstack=())])


def test_a_patch_where_nothing_is_added_is_refused(ours, prompt) -> None:
    source = vl.SourceRun.record(ours, prompt, "deepstack", [0, 1])
    with pytest.raises(VideolensError, match=r"blocks\.2\.hook_deepstack"):
        ours.run_with_hooks(prompt, fwd_hooks=vl.Patch("deepstack", 2, "video", source=source).hooks(prompt))
