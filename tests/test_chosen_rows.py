"""Patterns of chosen query rows: those rows of the whole pattern, everything else as it was, at any length."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers.engine import FAMILIES, N_LAYERS, POINTS, LargestFloat, Lenient, random_pair
from helpers.models import tiny_inputs, tiny_llava_next_video
from helpers.prompts import ROUNDING, tiny_prompt
from hypothesis import given, settings
from hypothesis import strategies as st

import videolens as vl
from videolens import Knockout

PATTERNS = [
    f"blocks.{layer}.attn.{point}" for layer in range(N_LAYERS) for point in ("hook_pattern", "hook_attn_scores")
]


@pytest.fixture(scope="module", params=list(FAMILIES))
def pair(request) -> tuple[vl.HookedVideoTransformer, vl.Prompt]:
    return random_pair(request.param)


def cached(model: vl.HookedVideoTransformer, prompt: vl.Prompt, knockouts: list[Knockout], **how: Any) -> Any:
    hooks = [hook for knockout in knockouts for hook in knockout.hooks(prompt)]
    with torch.no_grad(), model.hooks(fwd_hooks=hooks):
        return model.run_with_cache(prompt, **how)


def test_any_rows_under_any_knockouts(pair) -> None:
    model, prompt = pair
    selections = st.sampled_from(["video", "frame 1", "stem", "question | glue", "last", "all"])
    layers = st.sets(st.integers(0, N_LAYERS - 1), min_size=1)
    heads = st.none() | st.sets(st.integers(0, 3), min_size=1)
    knockouts = st.builds(Lenient, selections, selections, layers, heads, earlier_frames=st.booleans())

    @settings(max_examples=10)
    @given(st.sets(st.integers(0, 24), min_size=1).map(sorted), st.lists(knockouts, max_size=2))
    def check(rows: list[int], cut: list[Knockout]) -> None:
        logits, whole = cached(model, prompt, cut, names_filter=PATTERNS)
        some_logits, some = cached(model, prompt, cut, names_filter=PATTERNS, rows=rows)
        for name in PATTERNS:
            assert some[name].shape == (1, 4, len(rows), 25)
            torch.testing.assert_close(some[name], whole[name][:, :, rows], rtol=1e-3, atol=ROUNDING)
        assert (some_logits - logits).abs().max() <= ROUNDING * logits.std()

    check()


@pytest.mark.parametrize("rows", ["stem", "frame 0 | last", "all", 7, torch.tensor([20, 3])])
def test_rows_are_a_selection_or_positions(pair, rows: Any) -> None:
    model, prompt = pair
    positions = prompt.tokens[rows] if isinstance(rows, str) else torch.as_tensor(rows).reshape(-1).sort().values
    _, whole = cached(model, prompt, [], names_filter=PATTERNS)
    _, some = cached(model, prompt, [], names_filter=PATTERNS, rows=rows)
    for name in PATTERNS:
        torch.testing.assert_close(some[name], whole[name][:, :, positions], rtol=1e-3, atol=ROUNDING)


@pytest.mark.parametrize("cut", [[], [Knockout.route("cross-frame", layers=[1, 2])]], ids=["plain", "blocked"])
def test_everything_else_is_as_without_rows(pair, cut: list[Knockout]) -> None:
    model, prompt = pair
    others = [f"blocks.{layer}.{point}" for layer in range(N_LAYERS) for point in POINTS]
    others = [name for name in [*others, "hook_embed", "ln_final.hook_normalized"] if name not in PATTERNS]
    logits, plain = cached(model, prompt, cut, names_filter=others)
    again, with_rows = cached(model, prompt, cut, names_filter=others, rows="stem")
    # nobody listens to patterns: not one bit changes, and no pattern is made
    assert torch.equal(again, logits) and all(torch.equal(with_rows[name], plain[name]) for name in others)
    listened, both = cached(model, prompt, cut, names_filter=[*others, *PATTERNS], rows="stem")
    for name in others:
        assert both[name].shape == plain[name].shape
        assert (both[name] - plain[name]).abs().max() <= ROUNDING * plain[name].std()
    assert (listened - logits).abs().max() <= ROUNDING * logits.std()


def test_every_prompt_of_a_batch_has_its_rows(pair) -> None:
    model, _ = pair
    prompts = tiny_prompt(model, rows=3)
    _, together = cached(model, prompts, [], names_filter=PATTERNS, rows="question")
    for i, one in enumerate(prompts):
        _, alone = cached(model, one, [], names_filter=PATTERNS, rows="question")
        for name in PATTERNS:
            torch.testing.assert_close(together[name][i : i + 1], alone[name], rtol=1e-3, atol=ROUNDING)


@pytest.fixture(scope="module")
def long() -> tuple[vl.HookedVideoTransformer, vl.Prompt]:
    """623 frames of 16 tokens, and a few words: just over 9,980 tokens."""
    text = {"max_position_embeddings": 10_000, "num_hidden_layers": 2}
    model = vl.HookedVideoTransformer.from_hugging_face(tiny_llava_next_video(text=text, vision={"image_size": 32}))
    ids, _, pixels = tiny_inputs(frames=623, side=32)
    stem = 4 + 623 * 16 + 2
    return model, model.prompt_from_ids(ids, pixels, {"stem": range(stem, stem + 3)})


@pytest.mark.parametrize("cut", [False, True])
def test_what_a_word_looks_at_in_a_long_video(long, cut: bool) -> None:
    model, prompt = long
    knockouts = [Knockout("frame 0 | frame 600", "stem", layers=[1])] if cut else []
    names = [f"blocks.{layer}.attn.hook_pattern" for layer in range(2)]
    with LargestFloat() as seen:
        _, cache = cached(model, prompt, knockouts, names_filter=names, rows="stem")
    n, stem = prompt.shape[1], prompt.tokens["stem"]
    assert n > 9_900 and not seen.squares(n // 4)
    for name in names:
        assert cache[name].shape == (1, 4, 3, n)
        torch.testing.assert_close(cache[name].sum(-1), torch.ones(1, 4, 3))
        assert all((cache[name][0, :, i, int(row) + 1 :] == 0).all() for i, row in enumerate(stem))
    hidden = cache[names[1]][..., prompt.tokens["frame 0 | frame 600"]]
    assert bool((hidden == 0).all()) == cut


def test_the_watch_on_size_would_see_a_whole_pattern(pair) -> None:
    model, prompt = pair
    with LargestFloat() as seen:
        cached(model, prompt, [], names_filter=PATTERNS)
    assert (1, 4, 25, 25) in seen.squares(25)
