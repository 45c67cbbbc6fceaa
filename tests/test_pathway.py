"""Pathways: what is open, whether anything leaks, how many edges that is, and how they are chosen."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers.flow import plausible_flow
from helpers.prompts import plain_prompt, tiny_model, tiny_prompt
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import videolens as vl
from videolens.errors import SelectionError, VideolensError
from videolens.experiments.flow.measures import open_layers
from videolens.interventions.edges import causal_mask, count_live
from videolens.interventions.presets import PRESETS
from videolens.interventions.random_blocking import MATCHES, _largest
from videolens.prompt.prompt import Prompt

L = 3
layers = st.sets(st.integers(0, L - 1))
MODEL = tiny_model()
PROMPT = tiny_prompt(MODEL)
P, V, Q, A = range(4), range(4, 16), range(16, 24), range(24, 25)
FRAMES = (range(4, 8), range(8, 12), range(12, 16))


def closed(cross: set[int], video: set[int], question: set[int]) -> vl.Pathway:
    return vl.Pathway.closed(n_layers=L, cross_frame=cross, video_to_question=video, question_to_last=question)


def disturbed(rows: Sequence[int], prompt: Prompt = PROMPT, seed: int = 7) -> Prompt:
    """The prompt with other vectors at some positions of the stream that enters layer 0."""
    noise = torch.randn(prompt.residual.shape, generator=torch.Generator().manual_seed(seed))
    residual = MODEL.run_with_cache(prompt)[1]["blocks.0.hook_resid_pre"].clone()
    residual[:, list(rows)] += 3 * noise[:, list(rows)]
    return replace(prompt, residual=residual)


def run(prompt: Prompt, pathway: vl.Pathway) -> tuple[Tensor, dict[str, Tensor]]:
    """Logits of the last position, and the residual after every layer."""
    with MODEL.hooks(pathway.hooks(prompt)):
        # with nobody listening to the front end the prompt's own stream enters
        logits, cache = MODEL.run_with_cache(prompt, names_filter=lambda name: name.endswith("resid_post"))
    return logits[0, -1], dict(cache.items())


# -- nothing leaks -----------------------------------------------------------------------------------------------------


@settings(max_examples=15, deadline=None)
@given(layers, layers)
def test_with_video_to_question_empty_no_video_row_reaches_the_logits(cross: set[int], question: set[int]) -> None:
    pathway = closed(cross, set(), question)
    assert torch.equal(run(PROMPT, pathway)[0], run(disturbed(V), pathway)[0])


@settings(max_examples=15, deadline=None)
@given(layers, layers)
def test_with_question_to_last_empty_neither_video_nor_question_does(cross: set[int], video: set[int]) -> None:
    pathway = closed(cross, video, set())
    assert torch.equal(run(PROMPT, pathway)[0], run(disturbed([*V, *Q]), pathway)[0])


@settings(max_examples=15, deadline=None)
@given(layers, layers, st.integers(0, 2))
def test_with_cross_frame_empty_no_frame_feels_another(video: set[int], question: set[int], frame: int) -> None:
    pathway = closed(set(), video, question)
    others = [row for i, rows in enumerate(FRAMES) if i != frame for row in rows]
    clean, moved = (run(prompt, pathway)[1] for prompt in (PROMPT, disturbed(others)))
    for name, value in clean.items():
        assert torch.equal(value[:, FRAMES[frame]], moved[name][:, FRAMES[frame]]), name


def test_what_is_open_does_carry() -> None:
    # the three tests above would pass in a model that looks at nothing
    pathway = closed({0, 1}, {1}, {2})
    for rows in (V, FRAMES[0], Q):
        apart = (run(PROMPT, pathway)[0] - run(disturbed(rows), pathway)[0]).abs().max()
        assert apart > 1e-3, rows


@pytest.mark.parametrize("question", [set(), {2}, {0, 1, 2}])
def test_the_published_masks_fail_the_first_test(question: set[int]) -> None:
    # glue and suffix have no name there: they read the video and are read
    pathway = vl.Pathway.published(n_layers=L, question_to_last=question)
    long = _with_suffix()
    clean, moved = (run(prompt, pathway)[0] for prompt in (long, disturbed(V, long)))
    assert (clean - moved).abs().max() > 1e-3
    shut = closed(set(), set(), question)
    assert torch.equal(run(long, shut)[0], run(disturbed(V, long), shut)[0])


def _with_suffix() -> Prompt:
    """The tiny prompt with its option B counted as suffix: two tokens before the last one."""
    tokens = vl.TokenMap.from_spans(25, {"stem": range(18, 20), "option A": range(20, 22)}, grid=(3, 2, 2), video=V)
    assert tokens["suffix"].tolist() == [22, 23, 24]
    return replace(PROMPT, tokens=tokens)


# -- what is open ------------------------------------------------------------------------------------------------------


def by_definition(pathway: vl.Pathway, layer: int) -> Tensor:
    """The closed masks of the tiny prompt, pair by pair."""
    part = {row: name for name, rows in (("P", P), ("V", V), ("Q", Q), ("A", A)) for row in rows}
    frame = {row: i for i, rows in enumerate(FRAMES) for row in rows}
    last_video = max(pathway.video_to_question, default=-1)
    last_question = max(pathway.question_to_last, default=-1)
    mask = torch.zeros(25, 25, dtype=torch.bool)
    for q in range(25):
        for k in range(q + 1):
            mask[q, k] = {
                "PP": True,
                "VP": True,
                "QP": True,
                "AP": True,
                "VV": layer <= last_video and (frame.get(q) == frame.get(k) or layer in pathway.cross_frame),
                "QV": layer in pathway.video_to_question,
                "QQ": layer <= last_question,
                "AV": False,
                "AQ": layer in pathway.question_to_last,
                "AA": True,
            }[part[q] + part[k]]
    return mask


@settings(max_examples=25, deadline=None)
@given(layers, layers, layers)
def test_closed_masks_are_those_of_the_definition(cross: set[int], video: set[int], question: set[int]) -> None:
    pathway = closed(cross, video, question)
    for layer in range(L):
        assert torch.equal(pathway.allowed(PROMPT, layer), by_definition(pathway, layer)), layer
    assert pathway.edges(PROMPT) == sum(int(by_definition(pathway, layer).sum()) for layer in range(L))


@settings(max_examples=10, deadline=None)
@given(layers, layers, layers, st.sampled_from(["closed", "published"]))
def test_hooks_close_what_allowed_says_and_the_engine_agrees(
    cross: set[int], video: set[int], question: set[int], masks: str
) -> None:
    pathway = vl.Pathway(L, cross, video, question, masks=masks)
    seen = {}

    def keep(mask: Tensor, hook: object) -> None:
        seen[hook.name] = mask[0, 0] & causal_mask(25)  # type: ignore[attr-defined]

    watch = [(f"blocks.{layer}.attn.hook_mask", keep) for layer in range(L)]
    logits = MODEL.run_with_hooks(PROMPT, fwd_hooks=[*pathway.hooks(PROMPT), *watch])[0, -1]
    for layer in range(L):
        assert torch.equal(seen[f"blocks.{layer}.attn.hook_mask"], pathway.allowed(PROMPT, layer)), layer
    found = vl.sweep(MODEL, PROMPT, [pathway, vl.RandomBlocking(pathway, 3)], verify=True)
    torch.testing.assert_close(found.logits[0], logits, atol=1e-5, rtol=1e-4)


def test_published_masks_of_the_tiny_prompt() -> None:
    pathway = vl.Pathway.published(n_layers=L, cross_frame={0}, video_to_question={0, 1}, question_to_last={1})
    first, second, third = (pathway.allowed(PROMPT, layer) for layer in range(L))
    assert first[8, 7] and not second[8, 7]  # cross-frame in layer 0 only
    assert first[18, 5] and second[18, 5] and not third[18, 5]  # video -> question
    assert second[24, 19] and not first[24, 19] and not third[24, 19]  # question -> last
    assert second[5, 5] and not third[5, 5] and second[19, 19] and not third[19, 19]  # the diagonals close too
    assert not any(mask[24, 24] or mask[24, 5] for mask in (first, second, third))  # last -> last, video -> last
    assert all(mask[16, 5] and mask[24, 16] for mask in (first, second, third))  # through the glue it leaks


# -- edges -------------------------------------------------------------------------------------------------------------


def test_with_nothing_cut_all_edges_are_open_and_all_but_the_last_layers_live() -> None:
    full = vl.Pathway.published(n_layers=L, cross_frame=range(L), video_to_question=range(L), question_to_last=range(L))
    assert full.edges(PROMPT) == L * 325 - L * (12 + 1)  # video -> last and last -> last are closed everywhere
    assert count_live(lambda layer: causal_mask(25), L, 24) == (L - 1) * 325 + 25


def on_some_path(pathway: vl.Pathway, prompt: Prompt) -> int:
    """Live edges by walking every path from the last token down."""
    alive, count = {24}, 0
    for layer in reversed(range(L)):
        edges = [(q, int(k)) for q in alive for k in pathway.allowed(prompt, layer)[q].nonzero().flatten()]
        count += len(edges)
        alive |= {k for _, k in edges}
    return count


@settings(max_examples=15, deadline=None)
@given(layers, layers, layers, st.sampled_from(["closed", "published"]))
def test_live_edges_are_those_on_a_path_to_the_last_token(
    cross: set[int], video: set[int], question: set[int], masks: str
) -> None:
    pathway = vl.Pathway(L, cross, video, question, masks=masks)
    assert pathway.live_edges(PROMPT) == on_some_path(pathway, PROMPT) <= pathway.edges(PROMPT)


def test_an_edge_that_is_not_live_carries_nothing() -> None:
    # cut every dead row's whole attention as well: bit for bit the same answer
    pathway = closed({0}, {0, 1}, {1})
    dead = {0: [], 1: [], 2: [*V, *Q]}
    assert pathway.live_edges(PROMPT) == sum(
        int(pathway.allowed(PROMPT, layer)[[row for row in range(25) if row not in rows]].sum())
        - sum(int(pathway.allowed(PROMPT, layer)[row].sum()) for row in _unread(pathway, layer, rows))
        for layer, rows in dead.items()
    )


def _unread(pathway: vl.Pathway, layer: int, dead: list[int]) -> list[int]:
    """Rows besides the known dead ones that no later layer reads."""
    alive = {24}
    for later in reversed(range(layer + 1, L)):
        alive |= {int(k) for q in list(alive) for k in pathway.allowed(PROMPT, later)[q].nonzero().flatten()}
    return [row for row in range(25) if row not in alive and row not in dead]


def test_video_rows_die_in_closed_pathways_and_never_in_published_ones() -> None:
    tokens = _paper_tokens(115, (8, 12, 12))
    preset = PRESETS["LLaVA-NeXT-7B-Video-FT"]
    open_layers = preset.ranges()
    published = vl.Pathway.published("byminji/LLaVA-NeXT-7B-Video-FT")
    shut = vl.Pathway.closed(**open_layers)
    whole = 31 * (1267 * 1268 // 2) + 1267
    assert shut.live_edges(tokens) < 0.9 * published.live_edges(tokens) < 0.5 * whole


# Text lengths are not published. Table 3's full counts, L·n(n+1)/2, say how long the prompts were on average: 25.7M,
# 32.2M, 74.6M and 19.9M edges are 1267, 1268, 2159 and 1192 tokens; what is no video token is text. It is split here as
# the paper's templates suggest: instruction and role before the video, then glue, "Question:", stem, two options and
# suffix.
TEXT = {
    "LLaVA-NeXT-7B-Video-FT": 115,
    "LLaVA-NeXT-13B-Video-FT": 116,
    "Mini-InternVL-4B-Video-FT": 111,
    "VideoLLaMA3-7B": 40,
}


def _paper_tokens(text: int, grid: tuple[int, int, int]) -> vl.TokenMap:
    n_video = grid[0] * grid[1] * grid[2]
    glue, header, suffix = (5, 3, 14) if text > 100 else (1, 0, 4)
    stem, option = (18, 8) if text > 100 else (14, 5)
    before = text - glue - header - stem - 2 * option - suffix
    at = before + n_video + glue
    spans = {"header": range(at, at + header), "stem": range(at + header, at + header + stem)}
    at += header + stem
    spans |= {"option A": range(at, at + option), "option B": range(at + option, at + 2 * option)}
    return vl.TokenMap.from_spans(n_video + text, spans, grid=grid, video=range(before, before + n_video))


@pytest.mark.parametrize("name", PRESETS)
def test_edges_kept_by_the_published_masks_match_table_3(name: str) -> None:
    preset, pathway = PRESETS[name], vl.Pathway.published(name)
    tokens = _paper_tokens(TEXT[name], preset.grid)
    n = tokens.n_pos
    full = preset.n_layers * n * (n + 1) // 2
    published = {32: 25.7e6, 40: 32.2e6, 28: 19.9e6}[preset.n_layers] if preset.grid[1] == 12 else 74.6e6
    assert full == pytest.approx(published, rel=0.003)
    assert 100 * pathway.edges(tokens) / full == pytest.approx(preset.kept_percent, abs=2)


# -- choosing ----------------------------------------------------------------------------------------------------------


def flow_of(curves: dict[str, list[list[float]]], tasks: Sequence[str] = ("a", "b"), **made: object) -> SimpleNamespace:
    """What a pathway reads of a flow map: one question per task."""
    changes = {route: np.array(found) for route, found in curves.items()}
    depth = len(next(iter(curves.values()))[0])
    flow = SimpleNamespace(
        settings=SimpleNamespace(n_layers=depth, **made),
        routes=list(curves),
        tasks=list(tasks),
        changes=lambda route, task, measure: changes[route][[list(tasks).index(task)] if task else slice(None)],
    )
    flow.open_layers = partial(open_layers, flow)
    return flow


CURVES = {
    "cross-part": [[-20.0, 8, 0, 0], [0, 0, 0, 0]],
    "part V -> part Q": [[0, 0, -5, -5], [0, 0, -5, -5]],
    "part Q -> part A": [[0, 0, 0, 0], [0, 0, -6, -6]],
}


def test_a_bin_is_open_if_its_mean_change_is_below_the_threshold() -> None:
    flow = flow_of(CURVES)
    # cross-part: bins of two have (−10 + 4) / 2 = −3 over both questions; −5 exactly is not below −5
    assert vl.Pathway.from_flow(flow, bin=2) == vl.Pathway(4, (), (), (), name="closed, by flow")
    assert vl.Pathway.from_flow(flow, bin=2, threshold=-2.9) == vl.Pathway(
        4, (0, 1), (2, 3), (2, 3), name="closed, by flow"
    )
    assert vl.Pathway.from_flow(flow, bin=1).cross_frame == (0,)
    assert vl.Pathway.from_flow(flow, bin=2, task="a").cross_frame == (0, 1)
    assert vl.Pathway.from_flow(flow, bin=2, task="a").question_to_last == ()
    each = vl.Pathway.from_flow(flow, bin=2, each_task=True)
    assert (each.cross_frame, each.question_to_last) == ((0, 1), (2, 3))


def test_published_routes_choose_published_masks() -> None:
    names = ("cross-frame", "video -> question", "question -> last")
    flow = flow_of(dict(zip(names, CURVES.values(), strict=True)))
    assert vl.Pathway.from_flow(flow).masks == "published"
    with pytest.raises(VideolensError, match=r"closed pathway is chosen by the routes .*lacks .*cross-part"):
        vl.Pathway.from_flow(flow, masks="closed")


def test_other_windows_choose_nothing() -> None:
    with pytest.raises(VideolensError, match=r"windows around each layer.*'top-down'"):
        vl.Pathway.from_flow(flow_of(CURVES, style="top-down"))


def test_a_flow_map_says_which_layers_are_open() -> None:
    flow = plausible_flow(tasks=("action antonym", "object count"), n=3)
    curve = flow.changes("cross-frame").mean(axis=0)
    by_hand = [
        layer for first in range(0, 12, 2) if curve[first : first + 2].mean() < -20 for layer in (first, first + 1)
    ]
    assert by_hand and flow.open_layers("cross-frame", threshold=-20) == by_hand
    each = [set(flow.open_layers("cross-frame", threshold=-20, bin=1, groups=[task])) for task in flow.tasks]
    assert set(flow.open_layers("cross-frame", threshold=-20, bin=1, groups=flow.tasks)) == each[0] | each[1]
    chosen = vl.Pathway.from_flow(flow, threshold=-20)
    assert (chosen.masks, chosen.cross_frame) == ("published", tuple(by_hand))
    with pytest.raises(SelectionError, match=r"cross-part"):
        flow.open_layers("cross-part")
    with pytest.raises(VideolensError, match=r"bin of 13 layers .* 1 … 12"):
        flow.open_layers("cross-frame", bin=13)
    with pytest.raises(VideolensError, match=r"FlowMap, as trace_flow gives it, got \{'cross-frame'"):
        vl.Pathway.from_flow({"cross-frame": curve})


def test_presets_are_the_papers_and_survive_plain_data() -> None:
    pathway = vl.Pathway.published("byminji/LLaVA-NeXT-7B-Video-FT")
    assert (pathway.n_layers, pathway.cross_frame, pathway.question_to_last) == (
        32,
        tuple(range(5, 15)),
        tuple(range(15, 25)),
    )
    assert vl.Pathway.from_dict(pathway.to_dict()) == pathway == vl.Pathway.from_dict({"preset": pathway.name})


def test_layers_that_are_cut_alike_are_worked_out_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    allowed = vl.Pathway.allowed

    def counting(self: vl.Pathway, prompt: Prompt | vl.TokenMap, layer: int) -> Tensor:
        asked.append(layer)
        return allowed(self, prompt, layer)

    pathway = vl.Pathway.closed(n_layers=30, cross_frame=range(10), video_to_question=range(20), question_to_last=[])
    tokens = _paper_tokens(30, (2, 2, 2))
    one_by_one = sum(int(pathway.allowed(tokens, layer).sum()) for layer in range(30))
    monkeypatch.setattr(vl.Pathway, "allowed", counting)
    assert pathway.edges(tokens) == one_by_one
    assert len(asked) == 3  # frames and question; question; nothing but A


# -- random cuts -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1])
def test_random_cuts_leave_as_much_as_the_pathway(seed: int) -> None:
    pathway = closed({0, 1}, {0, 1}, {1, 2})
    by_edges = vl.RandomBlocking(pathway, seed, "edges")
    # the same number in every layer: up to two pairs more than the pathway leaves
    assert 0 <= by_edges.edges(PROMPT) - pathway.edges(PROMPT) < L
    by_live = vl.RandomBlocking(pathway, seed)
    assert 0 <= by_live.live_edges(PROMPT) - pathway.live_edges(PROMPT) < 0.05 * pathway.live_edges(PROMPT)
    assert by_live.cone(PROMPT) == (0, 4)


def test_random_cuts_spare_what_comes_before_the_video_and_are_drawn_anew_per_seed_and_layer() -> None:
    pathway = closed({0}, {0, 1}, {1})
    masks = [vl.RandomBlocking(pathway, seed).allowed(PROMPT, layer) for seed in (0, 1) for layer in (0, 1)]
    for mask in masks:
        assert torch.equal(mask & causal_mask(25), mask)
        assert torch.equal(mask[:, :4], causal_mask(25)[:, :4])
    assert not any(torch.equal(a, b) for i, a in enumerate(masks) for b in masks[:i])
    again = vl.RandomBlocking(pathway, 0).allowed(tiny_prompt(MODEL), 0)
    assert torch.equal(masks[0], again)


@pytest.mark.parametrize("match", MATCHES)
def test_what_was_drawn_goes_with_its_prompt(match: str) -> None:
    tokens = _paper_tokens(30, (2, 2, 2))
    vl.RandomBlocking(closed({0}, {0, 1}, {1}), 0, match).live_edges(tokens)
    alive = weakref.ref(tokens)
    del tokens
    gc.collect()
    assert alive() is None


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 10**6), st.floats(0, 1), st.floats(0.3, 1))
def test_the_number_of_cuts_is_found_exactly_and_in_few_counts(high: int, share: float, bend: float) -> None:
    counted: list[int] = []

    def left(number: int) -> int:
        counted.append(number)
        return 31 * high - int(31 * high * (number / high) ** (1 / bend))

    wanted = int(31 * high * share)
    found = _largest(left, wanted, high)
    assert left(found) >= wanted
    assert found == high or left(found + 1) < wanted
    assert len(counted) < 40
    if bend > 0.95:  # nearly a line, as real counts are
        assert len(counted) <= 16


def test_cuts_matched_by_route_and_layer_keep_both_sums() -> None:
    from videolens.interventions.random_blocking import _per_cell, _routes

    tokens = _paper_tokens(60, (4, 3, 3))
    pathway = vl.Pathway.closed(
        n_layers=6, cross_frame=[0, 1, 2], video_to_question=[1, 2, 3], question_to_last=[3, 4, 5]
    )
    cut = vl.RandomBlocking(pathway, 0, "routes and layers")
    route = _routes(tokens)
    first = int(tokens["part V"][0])
    route[:first] = -1
    route[:, :first] = -1
    wanted = _per_cell(lambda layer: pathway.allowed(tokens, layer), 6, tokens, route)
    drawn = _per_cell(lambda layer: cut.allowed(tokens, layer), 6, tokens, route)
    for axis in (0, 1):
        off = (drawn.sum(axis) - wanted.sum(axis)).abs().max() / wanted.sum()
        assert off < 0.03, (axis, drawn.sum(axis), wanted.sum(axis))
    assert (drawn - wanted).abs().sum() > 0.2 * wanted.sum()


# -- misuse ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: vl.Pathway(3, [3]), "layer 3 is outside the model: its layers are 0 … 2"),
        (lambda: vl.Pathway.from_dict({"n_layers": 3, "masks": "open"}), "unknown masks of a pathway 'open'"),
        (lambda: vl.Pathway.published(), "give a preset"),
        (lambda: vl.Pathway.published("LLaVA-NeXT-7B"), "did you mean 'LLaVA-NeXT-7B-Video-FT'"),
        (lambda: vl.Pathway.published("VideoLLaMA3-7B", n_layers=32), "has 28 layers, not 32"),
        (lambda: vl.Pathway.from_dict({"cross_frames": []}), "did you mean 'cross_frame'"),
        (lambda: vl.Pathway.from_dict({"cross_frame": [1]}), "does not say n_layers"),
        (lambda: vl.sweep(MODEL, PROMPT, [vl.Pathway(4)]), "is for 4 layers, the model has 3"),
        (lambda: vl.RandomBlocking(vl.Pathway(3), 0, "live edge"), "did you mean 'live edges'"),
        (lambda: vl.RandomBlocking(vl.Pathway(3)).edges(_no_video()), "the prompt has no video"),
    ],
)
def test_misuse_is_one_clear_error(make: object, message: str) -> None:
    with pytest.raises(VideolensError, match=message):
        make()  # type: ignore[operator]


def _no_video() -> Prompt:
    return plain_prompt(vl.TokenMap.from_spans(6, {"stem": [2, 3]}, grid=(0, 0, 0), video=[]))


def test_closed_masks_want_a_video_and_then_a_question() -> None:
    for prompt, what in ((_no_video(), "no video"), (_asked_first(), "no question after its video")):
        with pytest.raises(SelectionError, match=f"closed pathway leads .* but the prompt has {what}"):
            vl.Pathway(3, [0], [0], [0]).hooks(prompt)


def _asked_first() -> Prompt:
    return plain_prompt(vl.TokenMap.from_spans(8, {"stem": [1, 2]}, grid=(2, 1, 2), video=range(3, 7)))
