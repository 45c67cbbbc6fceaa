"""The partition of the causal pairs: every pair is in exactly one route, whose knockout closes just its pairs."""

from __future__ import annotations

import pytest
import torch
from helpers.prompts import plain_prompt, tiny_model, tiny_prompt
from hypothesis import given
from hypothesis import strategies as st

import videolens as vl
from videolens.errors import SelectionError, VideolensError
from videolens.interventions.edges import causal_mask
from videolens.interventions.partition import GRAINS, PARTITION, Partition, coarse_route
from videolens.interventions.protocol import described
from videolens.prompt.selections import is_selection
from videolens.prompt.tokens import TokenMap


@st.composite
def token_maps(draw: st.DrawFn) -> TokenMap:
    """Frames with or without separators between them, and text of any length before, between and after."""
    frames, size = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    system, gap, glue, stem, suffix = (draw(st.integers(0, 3)) for _ in range(5))
    video = [system + f * (size + gap) + i for f in range(frames) for i in range(size)]
    at = video[-1] + 1 + glue
    spans = {"stem": range(at, at + stem)} if stem else {}
    n_pos = at + stem + suffix
    return TokenMap.from_spans(n_pos, spans, grid=(frames, 1, size), video=video)


def blocked(prompt: vl.Prompt, route: str) -> torch.Tensor:
    """The pairs that a route's knockout closes, [query key]."""
    open_pairs = causal_mask(prompt.tokens.n_pos)
    vl.Knockout.route(route, layers=0).close(open_pairs, prompt.tokens)
    return causal_mask(prompt.tokens.n_pos) & ~open_pairs


@pytest.mark.parametrize("grain", GRAINS)
@given(tokens=token_maps())
def test_every_pair_is_in_one_route_and_its_knockout_closes_no_other(grain: str, tokens: TokenMap) -> None:
    partition, prompt = Partition.of(tokens, grain), plain_prompt(tokens)
    closed = torch.stack([blocked(prompt, route) for route in partition.routes])
    assert torch.equal(closed.sum(0), causal_mask(tokens.n_pos).long()), "every causal pair once, and no other"
    assert closed.sum((1, 2)).tolist() == list(partition.pairs)
    queries, keys = causal_mask(tokens.n_pos).nonzero(as_tuple=True)
    assert torch.equal(partition.route_of(queries, keys), closed.long().argmax(0)[queries, keys])
    if grain == "routes":
        assert [route for route in PARTITION if route in partition.routes] == list(partition.routes)


@pytest.mark.parametrize("grain", GRAINS)
@given(tokens=token_maps())
def test_targets_go_through_the_same_pairs(grain: str, tokens: TokenMap) -> None:
    partition = Partition.of(tokens, grain)
    seen = torch.full((tokens.n_pos, tokens.n_pos), -1)
    for first, stop, groups in partition.targets:
        for route, start, end in groups:
            assert bool((seen[first:stop, start:end] == -1).all()), "no pair twice"
            seen[first:stop, start:end] = route
    queries, keys = causal_mask(tokens.n_pos).nonzero(as_tuple=True)
    assert torch.equal(seen[queries, keys], partition.route_of(queries, keys))


@given(tokens=token_maps())
def test_pairs_of_frames_are_parts_of_routes(tokens: TokenMap) -> None:
    coarse, fine = (Partition.of(tokens, grain) for grain in GRAINS)
    together = dict.fromkeys(coarse.routes, 0)
    for route, pairs in zip(fine.routes, fine.pairs, strict=True):
        together[coarse_route(route)] += pairs
    assert together == dict(zip(coarse.routes, coarse.pairs, strict=True))
    assert [coarse_route(route) for route in coarse.routes] == list(coarse.routes)


def test_the_tiny_prompt_by_hand(prompt) -> None:
    # 4 tokens, 3 frames of 4, 8 of the question with the glue, 1 after it
    fine = Partition.of(prompt.tokens, "frame pairs")
    assert fine.segments == ("part P", *(f"part V frame {i}" for i in range(3)), "part Q", "part A")
    assert fine.starts == (0, 4, 8, 12, 16, 24, 25)
    pairs = dict(zip(Partition.of(prompt.tokens).routes, Partition.of(prompt.tokens).pairs, strict=True))
    assert pairs == {
        "part P -> part P": 10,
        "part P -> part V": 48,
        "own-part": 30,
        "cross-part": 48,
        "part P -> part Q": 32,
        "part V -> part Q": 96,
        "part Q -> part Q": 36,
        "part P -> part A": 4,
        "part V -> part A": 12,
        "part Q -> part A": 8,
        "part A -> part A": 1,
    }
    assert dict(zip(fine.routes, fine.pairs, strict=True))["part V frame 0 -> part V frame 2"] == 16


def test_units_are_routes_in_layers_and_heads(prompt) -> None:
    partition = Partition.of(prompt.tokens)
    assert len(partition.units(3)) == 33 and len(partition.units(3, 4)) == 132
    unit = partition.units(3, 4)[11 * 5 + 3]
    assert unit == (1, 1, "cross-part") and unit.knockout == vl.Knockout.route("cross-part", layers=1, heads=1)
    assert partition.units(3)[-1].knockout == vl.Knockout.route("part A -> part A", layers=2)


def test_a_frame_of_part_v_holds_its_separators() -> None:
    tokens = TokenMap.from_spans(9, {"stem": [7, 8]}, grid=(2, 1, 2), video=[1, 2, 4, 5])
    assert tokens["part V frame 0"].tolist() == [1, 2, 3] and tokens["frame 0"].tolist() == [1, 2]
    assert is_selection("part V frame 0 | last") and not is_selection("part Q frame 0")
    with pytest.raises(SelectionError, match="part V frame 2"):
        tokens["part V frame 2"]
    prompt = plain_prompt(tokens)
    assert vl.Knockout.route("own-part", layers=0).edges(prompt) == 6 + 3
    assert vl.Knockout("part V", "part V", 0, same_frame=True) == vl.Knockout.route("own-part", layers=0)
    assert described(vl.Knockout.route("own-part", layers=0), 3) == "part V ↛ part V of the same frame, layers 1"


def test_a_route_within_frames_cuts_just_that_in_a_model(model, prompt) -> None:
    cut = vl.Knockout.route("own-part", layers=[1], heads=[2])
    _, cache = model.run_with_cache(prompt, names_filter="blocks.1.attn.hook_pattern")
    with model.hooks(cut.hooks(prompt)):
        _, after = model.run_with_cache(prompt, names_filter="blocks.1.attn.hook_pattern")
    before, after = (each["blocks.1.attn.hook_pattern"][0] for each in (cache, after))
    frame = prompt.tokens.frame
    own = (frame[:, None] == frame) & (frame[:, None] >= 0)
    assert bool((after[2][own] == 0).all()) and bool((before[2][own & causal_mask(25)] > 0).all())
    assert torch.equal(after[[0, 1, 3]], before[[0, 1, 3]])
    assert vl.sweep(model, prompt, [cut], verify=True).verified < 1e-4


def test_what_cannot_be_taken_apart_is_refused() -> None:
    tokens = tiny_prompt(tiny_model()).tokens
    with pytest.raises(VideolensError, match="unknown grain 'frame pair'; did you mean 'frame pairs'"):
        Partition.of(tokens, "frame pair")
    with pytest.raises(SelectionError, match="padded prompt has no partition"):
        Partition.of(tokens.padded(2))
    late = TokenMap.from_spans(9, {"stem": [7, 8]}, grid=(2, 1, 2), video=[1, 2, 4, 5])
    late.frame[3] = 1
    late.frame[6] = 0
    late.role[6] = late.role[3]
    with pytest.raises(SelectionError, match=r"frames do not follow one another \(\[0, 0, 1, 1, 1, 0\]\)"):
        Partition.of(late)
    with pytest.raises(VideolensError, match="both earlier than another and the same"):
        vl.Knockout("video", "video", 0, earlier_frames=True, same_frame=True)
