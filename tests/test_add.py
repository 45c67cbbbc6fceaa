"""Steering: a direction added to the residual stream, by hand, in the engine, while generating, and what is refused."""

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
from videolens.errors import SelectionError, VideolensError
from videolens.interventions.protocol import described

DIRECTION = torch.randn(32, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module", params=list(FAMILIES))
def pair(request) -> tuple[vl.HookedVideoTransformer, vl.Prompt]:
    return random_pair(request.param)


@pytest.fixture(scope="module")
def one_pair() -> tuple[vl.HookedVideoTransformer, vl.Prompt]:
    return random_pair("grouped heads")


@pytest.mark.parametrize("site", ["resid_pre", "resid_mid", "resid_post"])
def test_the_stream_moves_by_the_direction_there_and_nowhere_else(one_pair, site) -> None:
    model, prompt = one_pair
    name = f"blocks.2.hook_{site}"
    add = vl.Add(DIRECTION, "stem | frame 1", 2, site=site, factor=-2.5)
    seen: list[torch.Tensor] = []

    def keep(value: torch.Tensor, hook: Any) -> None:
        seen.append(value.clone())

    model.run_with_hooks(prompt, fwd_hooks=[(name, keep), *add.hooks(prompt), (name, keep)])
    moved = (seen[1] - seen[0])[0]
    at = prompt.tokens["stem | frame 1"]
    torch.testing.assert_close(moved[at], (-2.5 * DIRECTION).expand(len(at), -1), rtol=1e-4, atol=1e-5)
    assert not moved[~torch.isin(torch.arange(len(moved)), at)].any()


def test_what_leaves_a_layer_enters_the_next(one_pair) -> None:
    model, prompt = one_pair
    several = [vl.Add(DIRECTION, "video", 1, site="resid_post"), vl.Add(DIRECTION, "video", 2)]
    found = vl.sweep(model, prompt, several)
    assert distance(found.logits[:1], found.logits[1:], found.base.std()) <= 1e-5
    assert distance(found.logits[:1], found.base[None], found.base.std()) > 1e-2


adds = st.builds(
    vl.Add,
    st.sampled_from((DIRECTION, DIRECTION.flip(0))),
    st.sampled_from(("video", "stem", "frame 2", "last", "all", "f1 r0 c1", (3, 7), 20)),
    st.sets(st.integers(0, 4), min_size=1, max_size=3),
    site=st.sampled_from(("resid_pre", "resid_mid", "resid_post")),
    factor=st.sampled_from((0.0, 1.0, -3.0)),
)


@settings(max_examples=15, deadline=None)
@given(some=st.lists(adds, min_size=1, max_size=5))
def test_the_engine_equals_plain_forwards(one_pair, some) -> None:
    model, prompt = one_pair
    found = vl.sweep(model, prompt, some)
    assert not any(found.in_full)
    assert distance(found.logits, plain_logits(model, prompt, some), found.base.std()).max() <= 1e-4


def test_it_is_swept_beside_others(pair) -> None:
    model, prompt = pair
    some = [vl.Add(DIRECTION, "stem", 1), vl.Add(DIRECTION, "stem", (1, 3)), vl.Knockout("video", "stem", 2)]
    some.append(vl.Scale("video", "stem", 2, 8.0))
    found = vl.sweep(model, prompt, [*some, [some[0], some[3]]], verify=True)
    plain = plain_logits(model, prompt, some)
    assert distance(found.logits[:4], plain, found.base.std()).max() <= 1e-4
    assert (distance(found.logits, found.base.expand_as(found.logits), found.base.std()) > 1e-2).all()


def test_what_is_the_same_is_computed_once(one_pair) -> None:
    model, prompt = one_pair
    several = [vl.Add(DIRECTION.clone(), "stem", (1, 3)), vl.Add(DIRECTION.clone(), "stem", 1)]
    assert several[0].hooks(prompt)[0][1] == several[1].hooks(prompt)[0][1]
    together, alone = vl.sweep(model, prompt, several), vl.sweep(model, prompt, several[:1])
    assert together.plan.passes[0].layer_runs == alone.plan.passes[0].layer_runs + 2  # they part in layer 3


def test_steering_goes_on_while_the_model_writes(one_pair) -> None:
    model, prompt = one_pair
    steps: dict[str, list[bool]] = {}
    for at in ("last", "stem", "response"):
        add, kept = vl.Add(DIRECTION, at, 2, factor=0.5), []

        def keep(value: torch.Tensor, hook: Any, kept: list[torch.Tensor] = kept) -> None:
            kept.append(value.clone())

        model.generate(
            prompt, 4, [("blocks.2.hook_resid_pre", keep), add, ("blocks.2.hook_resid_pre", keep)], stop_at_eos=False
        )
        steps[at] = [not torch.equal(before, after) for before, after in zip(kept[::2], kept[1::2], strict=True)]
    assert steps == {"last": [True] * 4, "stem": [True, False, False, False], "response": [False, True, True, True]}


def test_each_prompt_of_a_batch_is_steered_at_its_own_places(one_pair) -> None:
    model, prompt = one_pair
    ids, _, pixels = tiny_inputs()
    longer = model.prompt_from_ids(torch.cat([ids, torch.tensor([[33, 7, 41]])], 1), pixels, {"stem": range(18, 20)})
    batch, add = vl.Prompt.batch([prompt, longer]), vl.Add(DIRECTION, "stem | last", (1, 2))
    assert add.cone(batch) == (1, 18)
    together = model.run_with_hooks(batch, fwd_hooks=add)
    for row, single in enumerate([prompt, longer]):
        alone = model.run_with_hooks(single, fwd_hooks=add)[0, -1]
        assert (together[row, -1] - alone).abs().max() <= 1e-4 * alone.std()
    with pytest.raises(SelectionError, match=r"positions \(3,\) are other tokens in each prompt"):
        vl.Add(DIRECTION, 3, 1).hooks(batch)


def test_it_is_data_of_its_own(one_pair) -> None:
    model, prompt = one_pair
    vector = DIRECTION.clone()
    add = vl.Add(vector, "stem", (2, 1))
    vector.zero_()
    assert add == vl.Add(DIRECTION, "stem", [1, 2]) and hash(add) == hash(vl.Add(DIRECTION, "stem", [1, 2]))
    assert add != vl.Add(DIRECTION.flip(0), "stem", [1, 2]) and torch.equal(add.direction.vector, DIRECTION)
    assert described(add, 5) == "Add 1 × a direction to resid_pre of stem, layers 2–3"
    nothing = vl.Add(DIRECTION, "stem", 1, factor=0)
    assert nothing.hooks(prompt) == [] and nothing.cone(prompt) is None
    # of what is only generated later, the prompt's last position feels nothing
    assert vl.Add(DIRECTION, "response", 1).cone(prompt) is None
    found = vl.sweep(model, prompt, [nothing, vl.Add(DIRECTION, "response", 1)])
    assert torch.equal(found.logits, found.base.expand_as(found.logits))


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: vl.Add(torch.zeros(32), "stem", 1), "all zeros"),
        (lambda: vl.Add(DIRECTION / 0, "stem", 1), "not finite"),
        (lambda: vl.Add(DIRECTION[None], "stem", 1), r"\[1, 32\]"),
        (lambda: vl.Add(torch.ones(32, dtype=torch.int64), "stem", 1), "floating-point"),
        (lambda: vl.Add("up", "stem", 1), "'up'"),
        (lambda: vl.Add(DIRECTION, "stem", 1, factor=float("nan")), "factor"),
        (lambda: vl.Add(DIRECTION, "stem", 1, site="resid_pro"), "resid_pre"),
        (lambda: vl.Add(DIRECTION, "stem", ()), "layers are empty"),
        (lambda: vl.Add(DIRECTION, None, 1), "say where"),
        (lambda: vl.Add(DIRECTION, (-1,), 1), "negative"),
    ],
)
def test_what_means_nothing_is_refused(make, match, monkeypatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(VideolensError, match=match):
        make()


@pytest.mark.parametrize(
    ("add", "match"),
    [
        (vl.Add(DIRECTION, "stem", 5), "layer 5 is outside"),
        (vl.Add(DIRECTION, "stme", 1), "stme"),
        (vl.Add(DIRECTION, "newline", 1), "no positions of this prompt"),
        (vl.Add(DIRECTION, 25, 1), "position 25 is outside"),
        (vl.Add(DIRECTION[:16], "stem", 1), "16 wide, the residual stream 32"),
    ],
)
def test_what_does_not_fit_the_prompt_is_refused(one_pair, add, match) -> None:
    model, prompt = one_pair
    with pytest.raises(VideolensError, match=match):
        vl.sweep(model, prompt, [add])
