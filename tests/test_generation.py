"""Interventions hold while decoding: with a key/value cache and one row at a time, as on the grown prompt in full."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from helpers.engine import Lenient
from helpers.prompts import ROUNDING, tiny_model, tiny_prompt
from hypothesis import given, settings
from hypothesis import strategies as st

import videolens as vl
from videolens.errors import ModelError, VideolensError

N_NEW = 5
N_LAYERS, N_HEADS = 3, 4
MODEL = tiny_model()
SELECTIONS = ("video", "question", "stem", "last", "response", "video | response", "last | stem", "all", "suffix")


def grown(model: vl.HookedVideoTransformer, prompt: vl.Prompt, token: torch.Tensor) -> vl.Prompt:
    """The prompt with one more generated token after it."""
    position = torch.tensor([[prompt.shape[1]]])
    embedded = model.frontend.embed_text(token[:, None])
    tables = (table.expand(len(prompt), -1, -1) for table in model.frontend.rotary(embedded, position))
    return replace(
        prompt,
        input_ids=torch.cat([prompt.input_ids, token[:, None]], dim=1),
        tokens=prompt.tokens.with_response(1),
        residual=torch.cat([prompt.residual, embedded], dim=1),
        rotary=tuple(torch.cat(pair, dim=1) for pair in zip(prompt.rotary, tables, strict=True)),
    )


@torch.no_grad()
def step_by_step(
    model: vl.HookedVideoTransformer, prompt: vl.Prompt, hooks: Sequence[tuple[str, Any]]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens, and the logits that each of them was chosen from, by one plain forward of all that there is for each."""
    tokens, logits = [], []
    for _ in range(N_NEW):
        logits.append(model.run_with_hooks(prompt, fwd_hooks=hooks)[:, -1])
        tokens.append(logits[-1].argmax(-1))
        prompt = grown(model, prompt, tokens[-1])
    return torch.stack(tokens, 1), torch.stack(logits, 1)


def decoded(
    model: vl.HookedVideoTransformer, prompt: vl.Prompt, interventions: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens and logits from `generate`."""
    seen: list[torch.Tensor] = []
    with model.hooks(fwd_hooks=[("ln_final.hook_normalized", lambda value, hook: seen.append(value[:, -1:]))]):
        tokens = model.generate(prompt, N_NEW, interventions, stop_at_eos=False).tokens
    return tokens, model.unembed(torch.cat(seen, 1) * model.ln_final.w)


def assert_same(model: vl.HookedVideoTransformer, prompt: vl.Prompt, interventions: Sequence[Any]) -> torch.Tensor:
    hooks = [hook for each in interventions for hook in (each.hooks(prompt) if hasattr(each, "hooks") else [each])]
    tokens, logits = decoded(model, prompt, interventions)
    expected_tokens, expected = step_by_step(model, prompt, hooks)
    assert torch.equal(tokens, expected_tokens)
    assert (logits - expected).abs().max() <= ROUNDING * expected.std()
    return expected


# --- the same as without a cache --------------------------------------------------------------------------------------


@pytest.mark.parametrize("layers", [range(N_LAYERS), [0], [1, 2]], ids=str)
@pytest.mark.parametrize("route", vl.ROUTES)
def test_every_route_holds_while_decoding(model, prompt, route: str, layers: Sequence[int]) -> None:
    assert_same(model, prompt, [vl.Knockout.route(route, layers=layers)])


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("video", "response"),
        ("response", "last"),
        ("response", "response"),
        ("question", "last | response"),
        ("last", "last"),
        ("all", "all"),
    ],
)
@pytest.mark.parametrize("heads", [None, [0], [1, 3]], ids=str)
def test_routes_of_generated_tokens_hold_and_matter(model, prompt, source: str, target: str, heads: Any) -> None:
    plain = step_by_step(model, prompt, [])[1]
    cut = assert_same(model, prompt, [vl.Knockout(source, target, range(N_LAYERS), heads)])
    # with the cut, some step after the first comes out otherwise: it reaches beyond the prompt
    assert (cut - plain)[:, 1:].abs().max() > 1e-3 * plain.std()


@settings(max_examples=15)
@given(data=st.data())
def test_unions_of_selections_layers_and_heads_hold(data: st.DataObject) -> None:
    model = MODEL
    prompt = tiny_prompt(model, seed=data.draw(st.integers(0, 3)))
    selection = st.lists(st.sampled_from(SELECTIONS), min_size=1, max_size=2, unique=True).map(" | ".join)
    layers = st.sets(st.integers(0, N_LAYERS - 1), min_size=1)
    heads = st.none() | st.sets(st.integers(0, N_HEADS - 1), min_size=1)
    cut = st.builds(Lenient, selection, selection, layers, heads)
    assert_same(model, prompt, data.draw(st.lists(cut, min_size=1, max_size=3)))


def test_a_batch_of_prompts(model) -> None:
    prompts = tiny_prompt(model, rows=2)
    cuts = [vl.Knockout.route("video -> last", layers=[1, 2]), vl.Knockout("video", "response", [0], heads=[2])]
    assert_same(model, prompts, cuts)
    both = model.generate(prompts, N_NEW, cuts, stop_at_eos=False).tokens
    for i, single in enumerate(prompts):
        assert torch.equal(model.generate(single, N_NEW, cuts, stop_at_eos=False).tokens[0], both[i])


def test_hook_functions_by_name_and_other_objects(model, prompt) -> None:
    plain = model.generate(prompt, N_NEW, stop_at_eos=False).tokens
    steer = ("blocks.1.hook_resid_post", lambda value, hook: value + 5 * model.W_E[7])
    assert_same(model, prompt, [steer])
    assert_same(model, prompt, [steer, vl.Knockout("video", "last", 2)])

    class Steering:
        """No more than what is asked of an intervention."""

        def hooks(self, prompt: vl.Prompt) -> list[tuple[str, Any]]:
            assert prompt.tokens["stem"].tolist() == [18, 19]
            return [steer]

    steered = model.generate(prompt, N_NEW, [steer], stop_at_eos=False).tokens
    assert torch.equal(model.generate(prompt, N_NEW, interventions=Steering(), stop_at_eos=False).tokens, steered)
    assert not torch.equal(steered, plain)
    ids = torch.tensor([[1, 20, 21, 22]])
    assert not torch.equal(
        model.generate(ids, N_NEW, [steer], stop_at_eos=False).tokens,
        model.generate(ids, N_NEW, stop_at_eos=False).tokens,
    )


def test_hooks_that_are_there_already_stay(model, prompt) -> None:
    cut = vl.Knockout("video", "last", range(N_LAYERS))
    both = [*vl.Knockout("stem", "last", [1]).hooks(prompt), *cut.hooks(prompt)]
    expected = step_by_step(model, prompt, both)[0]
    with model.hooks(fwd_hooks=both[:1]):
        assert torch.equal(model.generate(prompt, N_NEW, cut, stop_at_eos=False).tokens, expected)
        assert sum(len(point.fwd_hooks) for point in model.hook_dict.values()) == 1


# --- checked first, and gone afterwards -------------------------------------------------------------------------------


def listeners(model: vl.HookedVideoTransformer) -> int:
    return sum(len(point._forward_hooks) for point in model.hook_dict.values())


def test_nothing_is_left_behind(model, prompt) -> None:
    plain = model.generate(prompt, N_NEW, stop_at_eos=False).tokens
    cut = vl.Knockout("video", "last | response", range(N_LAYERS))
    assert not torch.equal(model.generate(prompt, N_NEW, [cut], stop_at_eos=False).tokens, plain)
    assert listeners(model) == 0
    calls = []

    def breaks(value: torch.Tensor, hook: Any) -> torch.Tensor:
        calls.append(hook.ctx["rows"].tolist())
        if len(calls) == 3:
            raise RuntimeError("in the third step")
        return value

    with pytest.raises(RuntimeError, match="third step"):
        model.generate(prompt, N_NEW, [cut, ("blocks.2.hook_resid_pre", breaks)], stop_at_eos=False)
    assert calls == [list(range(25)), [25], [26]] and listeners(model) == 0
    assert torch.equal(model.generate(prompt, N_NEW, stop_at_eos=False).tokens, plain)


@pytest.mark.parametrize(
    ("interventions", "error", "said"),
    [
        ([vl.Knockout("video", "last", 3)], VideolensError, "layer 3 .*0 … 2"),
        ([vl.Knockout("video", "last", 1, heads=4)], VideolensError, "head 4 .*0 … 3"),
        ([vl.Knockout("video", "stme", 1)], VideolensError, "did you mean 'stem'"),
        ([("blocks.1.hook_rsid_pre", lambda value, hook: value)], ModelError, "did you mean 'blocks.1.hook_resid_pre'"),
        (["video -> last"], ModelError, "'video -> last' is no intervention"),
        ("video -> last", ModelError, "'video -> last' is no intervention"),
        ([None], ModelError, "None is no intervention"),
        (None, ModelError, "None is no intervention"),
        ([("blocks.1.hook_resid_pre", 3)], ModelError, "is no intervention: give objects with .hooks"),
    ],
)
def test_bad_interventions_are_refused_before_anything_runs(
    model, prompt, monkeypatch: pytest.MonkeyPatch, interventions: Any, error: type[Exception], said: str
) -> None:
    monkeypatch.setattr(type(model), "run_layers", lambda *args, **kwargs: pytest.fail("a layer has run"))
    with pytest.raises(error, match=said):
        model.generate(prompt, N_NEW, interventions)
    assert listeners(model) == 0


def test_a_knockout_needs_a_prompt(model) -> None:
    with pytest.raises(ModelError, match="make a prompt"):
        model.generate(torch.tensor([[1, 20, 21]]), 2, [vl.Knockout("video", "last", 1)])
