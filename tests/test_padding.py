"""Batches of unequal prompts: padding sees nothing and is not seen, whatever is done to the batch."""

from __future__ import annotations

import pytest
import torch
from helpers.models import tiny_inputs, tiny_llava_next_video
from helpers.prompts import ROUNDING

import videolens as vl
from videolens import HookedVideoTransformer, Knockout, Prompt
from videolens.errors import PromptError, SelectionError


@pytest.fixture(scope="module")
def model() -> HookedVideoTransformer:
    return HookedVideoTransformer.from_hugging_face(tiny_llava_next_video())


@pytest.fixture(scope="module")
def singles(model: HookedVideoTransformer) -> list[Prompt]:
    ids, _, pixels = tiny_inputs(frames=3)
    longer = torch.cat([ids, torch.tensor([[33, 7, 41, 12, 9]])], dim=1)
    return [
        model.prompt_from_ids(ids, pixels),
        model.prompt_from_ids(longer, pixels),
        model.prompt_from_ids(ids, pixels),
    ]


@pytest.fixture(scope="module")
def batch(singles: list[Prompt]) -> Prompt:
    return Prompt.batch(singles)


def test_every_prompt_gets_the_logits_it_has_alone(model, singles, batch) -> None:
    assert batch.shape == (3, singles[1].shape[1]) and batch.padding == (5, 0, 5)
    together = model(batch)
    for row, single in enumerate(singles):
        alone = model(single)[0]
        assert (together[row, batch.padding[row] :] - alone).abs().max() <= ROUNDING * alone.std()


def test_padding_is_neither_seen_nor_sees(model, singles, batch) -> None:
    _, cache = model.run_with_cache(batch, names_filter="blocks.1.attn.hook_pattern")
    pattern = cache["blocks.1.attn.hook_pattern"]
    assert not pattern[0, :, :5].any() and not pattern[0, :, :, :5].any()
    assert pattern[0, :, 5:].sum(-1).allclose(torch.ones(1))
    _, alone = model.run_with_cache(singles[0], names_filter="blocks.1.attn.hook_pattern")
    torch.testing.assert_close(pattern[0, :, 5:, 5:], alone["blocks.1.attn.hook_pattern"][0], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("route", ["video -> last", "cross-frame", "last -> last"])
def test_knockouts_cut_each_prompt_at_its_own_places(model, singles, batch, route) -> None:
    knockout = Knockout.route(route, layers=[0, 1])
    together = model.run_with_hooks(batch, fwd_hooks=knockout.hooks(batch))
    for row, single in enumerate(singles):
        alone = model.run_with_hooks(single, fwd_hooks=knockout.hooks(single))[0, -1]
        assert (together[row, -1] - alone).abs().max() <= ROUNDING * alone.std()
        assert (alone - model(single)[0, -1]).abs().max() > 100 * ROUNDING * alone.std()


@pytest.mark.parametrize("cut", [False, True])
def test_generation_goes_on_where_each_prompt_ends(model, singles, batch, cut) -> None:
    interventions = [Knockout("frame 1", "last", layers=[0, 1, 2])] if cut else []
    together = model.generate(batch, 6, interventions, stop_at_eos=False)
    for row, single in enumerate(singles):
        alone = model.generate(single, 6, interventions, stop_at_eos=False)
        assert torch.equal(together.tokens[row], alone.tokens[0])


def test_the_prompts_come_back_without_their_padding(batch, singles) -> None:
    for single, back in zip(singles, batch, strict=True):
        assert torch.equal(single.input_ids, back.input_ids) and back.padding == ()
    assert batch[:2].shape == (2, batch.shape[1]) and batch[0:1].shape == singles[0].shape
    assert batch.tokens.maps[0]["pad"].tolist() == [0, 1, 2, 3, 4]


def test_a_selection_is_one_prompts_affair(model, batch) -> None:
    for ask in (lambda: batch.tokens["video"], lambda: batch.tokens.role, lambda: vl.sweep(model, batch, [])):
        with pytest.raises((SelectionError, PromptError), match=r"one by one|for single in prompt"):
            ask()
    with pytest.raises(PromptError, match="at least one"):
        Prompt.batch([])
