"""Scaled attention: against the definition on patterns, the knockout at 0, and the engine against plain forwards."""

from __future__ import annotations

from typing import Any

import jaxtyping
import pytest
import torch
from helpers.engine import FAMILIES, distance, plain_logits, random_pair
from helpers.models import tiny_inputs
from hypothesis import given, settings
from hypothesis import strategies as st

import videolens as vl
from videolens.engine import plan
from videolens.errors import ModelError, SelectionError, VideolensError
from videolens.interventions.protocol import as_interventions, described

ROUNDING = 1e-4
ROUTES = ("cross-frame", "video -> question", "question -> last", "last -> last", "system -> video", "video -> all")


@pytest.fixture(scope="module", params=list(FAMILIES))
def pair(request) -> tuple[vl.HookedVideoTransformer, vl.Prompt]:
    return random_pair(request.param)


@pytest.fixture(scope="module")
def one_pair() -> tuple[vl.HookedVideoTransformer, vl.Prompt]:
    return random_pair("grouped heads")


def pattern(model: Any, prompt: Any, interventions: Any = ()) -> torch.Tensor:
    name = "blocks.0.attn.hook_pattern"
    with model.hooks([pair for each in interventions for pair in each.hooks(prompt)]):
        return model.run_with_cache(prompt, names_filter=name)[1][name]


@pytest.mark.parametrize("factor", [0.0, 0.25, 2.0, 50.0])
@pytest.mark.parametrize("heads", [None, (1, 3)])
def test_weights_are_multiplied_before_they_are_normalised(one_pair, factor, heads) -> None:
    model, prompt = one_pair
    clean, found = pattern(model, prompt), pattern(model, prompt, [vl.Scale("video", "stem", 0, factor, heads)])
    rows, keys = prompt.tokens["stem"], prompt.tokens["video"]
    expected = clean.clone()
    for head in range(4) if heads is None else heads:
        part = expected[:, head, rows]
        part[..., keys] *= factor
        expected[:, head, rows] = part / part.sum(-1, keepdim=True)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    assert (found - clean).abs().max() > 0.01


def test_fused_and_eager_attention_agree(pair) -> None:
    model, prompt = pair
    for scaled in (
        vl.Scale.route("cross-frame", layers=(1, 3), factor=3.0),
        vl.Scale("video", "stem", 2, 0.3, heads=2),
    ):
        fused = model.run_with_hooks(prompt, fwd_hooks=scaled)
        with model.attention_path("eager"):
            eager = model.run_with_hooks(prompt, fwd_hooks=scaled)
        assert (fused - eager).abs().max() <= ROUNDING * fused.std()
        assert (fused - model(prompt)).abs().max() > 100 * ROUNDING * fused.std()


def test_0_is_the_knockout_and_1_is_nothing(one_pair) -> None:
    model, prompt = one_pair
    some = [vl.Scale.route("video -> question", layers=(1, 2), factor=factor) for factor in (0, 1, 1e-9)]
    cut = vl.Knockout.route("video -> question", layers=(1, 2))
    assert some[0].hooks(prompt) == cut.hooks(prompt) and some[0].cone(prompt) == cut.cone(prompt)
    assert some[1].hooks(prompt) == [] and some[1].cone(prompt) is None
    found = vl.sweep(model, prompt, [cut, *some])
    assert torch.equal(found.logits[0], found.logits[1]) and torch.equal(found.logits[2], found.base)
    assert distance(found.logits[3:], found.logits[:1], found.base.std()) <= 1e-4  # as good as cut


def test_rows_that_are_not_scaled_stay_as_they_were(one_pair) -> None:
    model, prompt = one_pair
    name = "blocks.1.hook_attn_out"
    clean = model.run_with_cache(prompt, names_filter=name)[1][name]
    with model.hooks(vl.Scale("video", "stem", 1, 2.0).hooks(prompt)):
        scaled = model.run_with_cache(prompt, names_filter=name)[1][name]
    changed = (clean != scaled).any(-1)[0].nonzero().flatten()
    assert torch.equal(changed, prompt.tokens["stem"])


scalings = st.builds(
    vl.Scale.route,
    st.sampled_from(ROUTES),
    layers=st.sets(st.integers(0, 4), min_size=1, max_size=3),
    factor=st.sampled_from((0.0, 0.5, 1.0, 2.0, 8.0)),
    heads=st.none() | st.sets(st.integers(0, 3), min_size=1, max_size=3),
)
cuts = st.builds(vl.Knockout.route, st.sampled_from(ROUTES), layers=st.sets(st.integers(0, 4), min_size=1, max_size=3))


@settings(max_examples=15, deadline=None)
@given(some=st.lists(scalings | st.lists(scalings | cuts, min_size=1, max_size=3), min_size=1, max_size=4))
def test_the_engine_equals_plain_forwards(one_pair, some) -> None:
    model, prompt = one_pair
    found = vl.sweep(model, prompt, some)
    assert not any(found.in_full)
    together = [each if isinstance(each, list) else [each] for each in some]
    plain = torch.stack(
        [
            model.run_with_hooks(prompt, fwd_hooks=[pair for one in each for pair in one.hooks(prompt)])[0, -1]
            for each in together
        ]
    )
    assert distance(found.logits, plain, found.base.std()).max() <= ROUNDING


def test_every_kind_of_heads_is_swept_exactly(pair) -> None:
    model, prompt = pair
    some = [vl.Scale("video", "stem | options", layer, 4.0, heads) for layer in (1, 3) for heads in (None, (0, 3))]
    found = vl.sweep(model, prompt, some, verify=True)
    assert distance(found.logits, plain_logits(model, prompt, some), found.base.std()).max() <= ROUNDING
    assert (distance(found.logits, found.base.expand_as(found.logits), found.base.std()) > 1e-2).all()


def test_a_plan_counts_the_bytes_of_gates(one_pair) -> None:
    model, prompt = one_pair
    every = vl.Scale.route("cross-frame", layers=2, factor=2.0, heads=range(4))
    peaks = [plan(model, prompt, [one]).peak_bytes for one in (every, every.knockout)]
    rows = len(range(8, 25))
    assert peaks[0] >= 4 * 4 * rows * 25 * 4 > 0 and peaks[0] > peaks[1]


def test_scales_multiply_and_what_is_cut_stays_cut(one_pair) -> None:
    model, prompt = one_pair
    doubled, cut = vl.Scale("video", "stem", 2, 2.0), vl.Knockout("frame 1", "stem", 2)
    found = vl.sweep(
        model, prompt, [[doubled, doubled], vl.Scale("video", "stem", 2, 4.0), [doubled, cut], [cut, doubled]]
    )
    spread = found.base.std()
    assert distance(found.logits[:1], found.logits[1:2], spread) <= ROUNDING
    assert torch.equal(found.logits[2], found.logits[3])
    one_left = [vl.Scale("frame 0 | frame 2", "stem", 2, 2.0), cut]
    assert distance(vl.sweep(model, prompt, [one_left]).logits, found.logits[2:3], spread) <= ROUNDING


@pytest.mark.parametrize(
    "scaled",
    [
        vl.Scale("video", "last | response", range(5), 0.2),
        vl.Scale("response", "response", range(5), 40.0, heads=(0, 1, 2)),
    ],
    ids=["video to the answer", "the answer to itself, in three heads"],
)
def test_generation_is_scaled_at_every_step(one_pair, scaled) -> None:
    model, prompt = one_pair
    written = model.generate(prompt, 5, scaled, stop_at_eos=False).tokens[0]
    assert not torch.equal(written, model.generate(prompt, 5, stop_at_eos=False).tokens[0])
    # the plain way: everything so far in one forward, whose gates are those of the prompt and of what was written
    for n in range(5):
        assert int(_next(model, prompt, written[:n], scaled).argmax()) == int(written[n])


def _next(model: Any, prompt: vl.Prompt, written: torch.Tensor, each: Any) -> torch.Tensor:
    """Logits after the prompt and what was written, in one forward of all of it."""
    residual = torch.cat([prompt.residual, model.frontend.embed_text(written[None])], dim=1)
    at = torch.arange(residual.shape[1])
    cos, sin = model.frontend.rotary(residual, at[None])
    longer = vl.Prompt(
        torch.cat([prompt.input_ids, written[None]], dim=1),
        prompt.tokens.with_response(len(written)),
        residual,
        (cos, sin),
        made_by=prompt.made_by,
    )
    return model.run_with_hooks(longer, fwd_hooks=each.hooks(prompt))[0, -1]


def test_each_prompt_of_a_batch_is_scaled_at_its_own_places(one_pair) -> None:
    model, prompt = one_pair
    ids, _, pixels = tiny_inputs()
    longer = model.prompt_from_ids(torch.cat([ids, torch.tensor([[33, 7, 41]])], 1), pixels, {"stem": range(18, 20)})
    batch, scaled = vl.Prompt.batch([prompt, longer]), vl.Scale("video", "stem | last", (1, 2), 3.0)
    together = model.run_with_hooks(batch, fwd_hooks=scaled)
    for row, single in enumerate([prompt, longer]):
        alone = model.run_with_hooks(single, fwd_hooks=scaled)[0, -1]
        assert (together[row, -1] - alone).abs().max() <= ROUNDING * alone.std()


def test_gates_have_gradients(one_pair) -> None:
    """d/d(gate) at 1 of a sum of logits: as a small change of the factor says."""
    model, prompt = one_pair
    gates: dict[str, torch.Tensor] = {}

    def watch(value: torch.Tensor, hook: Any) -> torch.Tensor:
        gates[hook.name] = value.clone().requires_grad_()
        return gates[hook.name]

    with torch.enable_grad():
        model.run_with_hooks(prompt, fwd_hooks=[("blocks.1.attn.hook_gate", watch)])[0, -1, :5].sum().backward()
    rows, keys = prompt.tokens["stem"], prompt.tokens["video"]
    slope = gates["blocks.1.attn.hook_gate"].grad[0, 0][rows][:, keys].sum()
    ends = [
        model.run_with_hooks(prompt, fwd_hooks=vl.Scale("video", "stem", 1, f))[0, -1, :5].sum() for f in (0.99, 1.01)
    ]
    assert float(slope) == pytest.approx(float(ends[1] - ends[0]) / 0.02, rel=0.02)


@pytest.mark.parametrize("factor", [-0.5, float("nan"), float("inf"), True, "2", None])
def test_factors_that_mean_nothing_are_refused(factor, monkeypatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(VideolensError, match=r"factor of a scaling.*0 cuts"):
        vl.Scale("video", "stem", 1, factor)


def test_other_errors(one_pair) -> None:
    model, prompt = one_pair
    for given_, error, match in (
        (vl.Scale("video", "stem", 5, 2.0), VideolensError, "layer 5 is outside"),
        (vl.Scale("video", "stem", 1, 2.0, heads=4), VideolensError, "head 4 is outside"),
        (vl.Scale("vidoe", "stem", 1, 2.0), SelectionError, "vidoe"),
        (vl.Scale("stem", "video", 1, 1.0), SelectionError, "cuts nothing"),
        (vl.Scale("response", "response", 1, 2.0), SelectionError, "the scaling 'response -> response'"),
    ):
        with pytest.raises(error, match=match):
            vl.sweep(model, prompt, [given_])
    for wrong, match in (
        (lambda value, hook: value - 2, "between -1.0 and -1.0"),
        (lambda value, hook: value * torch.nan, "finite"),
        (lambda value, hook: value > 0, "floating-point gates"),
        (lambda value, hook: value[..., 1:], "floating-point gates"),
        (lambda value, hook: value.expand(1, 3, -1, -1), "4 heads"),
    ):
        with pytest.raises(ModelError, match=match):
            model.run_with_hooks(prompt, fwd_hooks=[("blocks.1.attn.hook_gate", wrong)])


def test_as_plain_data_and_in_words(one_pair) -> None:
    model, _ = one_pair
    data = {"route": "cross-frame", "layers": [2, 3], "factor": 2, "heads": [1]}
    [made] = as_interventions(data, model.cfg)
    assert made == vl.Scale("video", "video", (2, 3), 2.0, 1, earlier_frames=True) and hash(made) == hash(made)
    assert described(made, 5) == "Scale video → video of later frames × 2, layers 3–4, heads 1 (from 0)"
