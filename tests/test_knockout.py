"""A knockout removes exactly its edges: in the mask, in the pattern, in every kind of forward; an empty one, none."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from helpers.prompts import SPANS, plain_prompt, tiny_prompt
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import videolens as vl
from videolens.engine import evaluate, last_logits
from videolens.engine.full import batched_hooks
from videolens.errors import PromptError, SelectionError, VideolensError
from videolens.interventions.knockout import ROUTES, Knockout
from videolens.interventions.protocol import described
from videolens.prompt.tokens import TokenMap

NAMES = (
    "system",
    "video",
    "frame 0",
    "frame 2",
    "glue",
    "stem",
    "option A",
    "true option",
    "question",
    "suffix",
    "last",
)


def token_map() -> TokenMap:
    spans = {"stem": SPANS["stem"], "true option": SPANS["option A"], "false options": SPANS["option B"]}
    return TokenMap.from_spans(25, spans, grid=(3, 2, 2), video=range(4, 16))


def causal(rows: Tensor, keys: Tensor) -> Tensor:
    return (keys <= rows[:, None])[None, None]


def cut(knockout: Knockout, tokens: TokenMap, rows: Tensor, keys: Tensor, **ctx: Any) -> Tensor:
    """What the knockout's hook makes of the causal mask of some rows and keys."""
    hook = SimpleNamespace(name="hook_mask", ctx={"rows": rows, "keys": keys, **ctx})
    (_, function), *_ = knockout.functions(plain_prompt(tokens))
    return function(causal(rows, keys), hook)


def expected(knockout: Knockout, tokens: TokenMap, n: int) -> Tensor:
    """The causal mask without the knockout's edges, by the definition, pair by pair."""
    source, target = (set(tokens[name].tolist()) for name in (knockout.source, knockout.target))
    allowed = torch.ones(n, n, dtype=torch.bool).tril()
    for query in target:
        for key in source:
            earlier = 0 <= int(tokens.frame[key]) < int(tokens.frame[query])
            if earlier or not knockout.earlier_frames:
                allowed[query, key] = False
    return allowed


@st.composite
def knockouts(draw: st.DrawFn) -> Knockout:
    if draw(st.booleans()):
        return Knockout.route(draw(st.sampled_from(ROUTES)), layers=[1])
    names = st.lists(st.sampled_from(NAMES), min_size=1, max_size=3).map(" | ".join)
    return Knockout(draw(names), draw(names), layers=[1], earlier_frames=draw(st.booleans()))


@given(knockouts())
def test_the_mask_loses_exactly_the_pairs_of_the_definition(knockout: Knockout) -> None:
    tokens = token_map()
    everything = torch.arange(tokens.n_pos)
    mask = cut(knockout, tokens, everything, everything)[0, 0]
    assert torch.equal(mask, expected(knockout, tokens, tokens.n_pos))
    assert knockout.edges(plain_prompt(tokens)) == int(causal(everything, everything).sum() - mask.sum())


@given(knockouts(), st.data())
def test_a_few_rows_and_keys_give_the_same_part_of_the_mask(knockout: Knockout, data: st.DataObject) -> None:
    tokens = token_map()
    everything = torch.arange(tokens.n_pos)
    whole = cut(knockout, tokens, everything, everything)[0, 0]
    some = st.lists(st.integers(0, tokens.n_pos - 1), min_size=1, unique=True).map(lambda x: torch.tensor(sorted(x)))
    rows, keys = data.draw(some), data.draw(some)
    part = cut(knockout, tokens, rows, keys)[0, 0]
    assert torch.equal(part, whole[rows][:, keys])


@given(knockouts())
def test_nothing_changes_outside_the_cone(knockout: Knockout) -> None:
    tokens = token_map()
    everything = torch.arange(tokens.n_pos)
    changed = (cut(knockout, tokens, everything, everything) != causal(everything, everything))[0, 0].any(dim=1)
    cone = knockout.cone(plain_prompt(tokens))
    if cone is None:
        assert not changed.any() and knockout.edges(plain_prompt(tokens)) == 0
        with pytest.raises(SelectionError, match="cuts nothing in this prompt"):
            knockout.hooks(plain_prompt(tokens))
    else:
        assert cone == (1, int(changed.nonzero()[0])) and len(knockout.hooks(plain_prompt(tokens))) == 1


def test_edges_of_the_routes_by_hand() -> None:
    prompt = plain_prompt(token_map())
    # 12 video tokens in 3 frames of 4, stem 2, options 2 + 2, last 1
    count = {
        "cross-frame": 4 * 4 * 3,
        "video -> question": 12 * 6,
        "video -> last": 12,
        "question -> last": 6,
        "last -> last": 1,
        "stem -> last": 2,
        "true option -> last": 2,
        "false options -> last": 2,
        "video -> stem": 12 * 2,
        "stem -> true option": 2 * 2,
        "video -> true option": 12 * 2,
    }
    assert {route: Knockout.route(route, layers=0).edges(prompt) for route in ROUTES} == count
    # in each of 3 frames every one of 4 tokens sees itself and those before it; 4 positions of text stand before them
    further = {route: Knockout.route(route, layers=0) for route in vl.VIDEO_ROUTES}
    assert {route: cut.edges(prompt) for route, cut in further.items()} == {"within-frame": 30, "system -> video": 48}
    assert described(further["within-frame"], 3) == "within-frame, layers 1"
    with pytest.raises(SelectionError, match="'within-frame'"):
        Knockout.route("within frame", layers=0)
    assert Knockout.route("video -> last", layers=range(3)).edges(prompt) == 36
    assert Knockout("last", "video", layers=range(3)).edges(prompt) == 0, "not causal: nothing to remove"


def test_while_decoding_last_is_the_newest_token_and_response_the_generated_ones() -> None:
    tokens, last = token_map(), 24
    grown = torch.arange(28)
    new = torch.tensor([27])
    step = cut(Knockout("video", "last", layers=0), tokens, new, grown)[0, 0, 0]
    assert (~step).nonzero().flatten().tolist() == tokens["video"].tolist()
    itself = cut(Knockout("last", "last", layers=0), tokens, new, grown)[0, 0, 0]
    assert (~itself).nonzero().flatten().tolist() == [27]
    response = cut(Knockout("response", "last", layers=0), tokens, new, grown)[0, 0, 0]
    assert (~response).nonzero().flatten().tolist() == [25, 26, 27]
    reads = cut(Knockout("video", "response", layers=0), tokens, grown, grown)[0, 0]
    assert reads[last, 4:16].all() and not reads[25:, 4:16].any()
    # one pass over all rows gives each the mask that it had when it was the newest
    whole = cut(Knockout("video | last", "last", layers=0), tokens, grown, grown)[0, 0]
    for row in range(last, 28):
        keys = torch.arange(row + 1)
        one = cut(Knockout("video | last", "last", layers=0), tokens, torch.tensor([row]), keys)[0, 0, 0]
        assert torch.equal(whole[row, : row + 1], one)


def test_the_hook_leaves_the_mask_it_was_given_alone() -> None:
    tokens = token_map()
    everything = torch.arange(tokens.n_pos)
    mask = causal(everything, everything)
    kept = mask.clone()
    hook = SimpleNamespace(name="hook_mask", ctx={"rows": everything, "keys": everything})
    (_, function), *_ = Knockout("video", "last", layers=0).hooks(plain_prompt(tokens))
    assert not torch.equal(function(mask, hook), mask) and torch.equal(mask, kept)


@pytest.mark.parametrize("route", ROUTES)
def test_a_knockout_zeroes_exactly_its_pattern_entries(
    model: vl.HookedVideoTransformer, prompt: vl.Prompt, route: str
) -> None:
    knockout = Knockout.route(route, layers=[1])
    names = [f"blocks.{layer}.attn.hook_pattern" for layer in range(3)]
    _, clean = model.run_with_cache(prompt, names_filter=names)
    with model.hooks(fwd_hooks=knockout.hooks(prompt)):
        _, blocked = model.run_with_cache(prompt, names_filter=names)
    allowed = expected(knockout, prompt.tokens, prompt.shape[1])
    assert torch.equal(blocked[names[0]], clean[names[0]]), "layers before it stay as they were, bit for bit"
    pattern = blocked[names[1]][0]
    assert (pattern[:, ~allowed] == 0).all(), "the blocked entries are exactly zero"
    assert (pattern[:, allowed] > 0).all(), "and no other entry is"
    untouched = (allowed == torch.ones_like(allowed).tril()).all(dim=1)
    assert torch.equal(pattern[:, untouched], clean[names[1]][0][:, untouched]), "rows without a cut edge stay"
    # what is left of a row is the clean row, renormalised; a row with no key left is zero
    rest = clean[names[1]][0] * allowed
    assert torch.allclose(pattern, rest / rest.sum(-1, keepdim=True).clamp_min(1e-30), atol=1e-6)


def test_layers_and_rows_outside_the_cone_stay_and_the_rest_moves(
    model: vl.HookedVideoTransformer, prompt: vl.Prompt
) -> None:
    knockout = Knockout.route("video -> question", layers=[1])
    _, clean = model.run_with_cache(prompt)
    with model.hooks(fwd_hooks=knockout.hooks(prompt)):
        _, blocked = model.run_with_cache(prompt)
    layer, row = knockout.cone(prompt) or (-1, -1)
    assert (layer, row) == (1, int(prompt.tokens["stem"][0]))
    assert torch.equal(clean["resid_post", 0], blocked["resid_post", 0])
    assert torch.allclose(clean["resid_post", 2][:, :row], blocked["resid_post", 2][:, :row], atol=1e-5)
    assert (clean["resid_post", 1][:, row] - blocked["resid_post", 1][:, row]).abs().max() > 1e-2


def test_only_the_named_heads_are_cut(model: vl.HookedVideoTransformer, prompt: vl.Prompt) -> None:
    name = "blocks.1.attn.hook_pattern"
    _, clean = model.run_with_cache(prompt, names_filter=[name])
    with model.hooks(fwd_hooks=Knockout("video", "last", layers=1, heads=[0, 2]).hooks(prompt)):
        _, blocked = model.run_with_cache(prompt, names_filter=[name])
    last, video = prompt.shape[1] - 1, prompt.tokens["video"]
    assert (blocked[name][0, [0, 2]][:, last, video] == 0).all()
    assert torch.equal(blocked[name][0, [1, 3]], clean[name][0, [1, 3]])
    with pytest.raises(VideolensError, match=r"head 4 is outside the model: its heads are 0 … 3"):
        model.run_with_hooks(prompt, fwd_hooks=Knockout("video", "last", layers=1, heads=4).hooks(prompt))


def test_two_knockouts_add_up(model: vl.HookedVideoTransformer, prompt: vl.Prompt) -> None:
    both = Knockout("video", "last", layers=1).hooks(prompt) + Knockout("stem", "last", layers=1).hooks(prompt)
    union = Knockout("video | stem", "last", layers=1).hooks(prompt)
    logits = [model.run_with_hooks(prompt, fwd_hooks=hooks) for hooks in (both, union)]
    assert torch.equal(*logits)


def test_a_batch_of_prompts_is_cut_in_every_row(model: vl.HookedVideoTransformer) -> None:
    prompts = tiny_prompt(model, rows=3)
    hooks = Knockout.route("video -> question", layers=[0, 1]).hooks(prompts)
    together = model.run_with_hooks(prompts, fwd_hooks=hooks)
    for i, one in enumerate(prompts):
        assert torch.allclose(together[i : i + 1], model.run_with_hooks(one, fwd_hooks=hooks), atol=1e-4)


def test_evaluate_gives_each_intervention_the_forward_it_would_have_alone(
    model: vl.HookedVideoTransformer, prompt: vl.Prompt
) -> None:
    many = [Knockout.route(route, layers=[layer, 2]) for route in ROUTES for layer in range(2)]
    many.append(Knockout("video", "last", layers=[0, 1], heads=[3]))
    logits = evaluate(model, prompt, many)
    spread = last_logits(model, prompt).std()
    alone = [model.run_with_hooks(prompt, fwd_hooks=one.hooks(prompt))[0, -1] for one in many]
    assert (logits - torch.stack(alone)).abs().max() < 1e-5 * spread
    moved = (logits - last_logits(model, prompt)).abs().max(dim=1).values
    assert moved.min() > 5e-4 * spread and moved.median() > 0.1 * spread, (
        "every one of these knockouts is felt at the last position"
    )
    assert evaluate(model, prompt, []).shape == (0, model.cfg.d_vocab)


def test_batched_hooks_see_their_own_row_only() -> None:
    hooks = batched_hooks(
        [[("a", lambda x, hook: x + 1)], [], [("a", lambda x, hook: x * 0), ("b", lambda x, hook: x)]]
    )
    assert [name for name, _ in hooks] == ["a", "b"]
    assert hooks[0][1](torch.ones(1, 2), None).tolist() == [[2, 2], [1, 1], [0, 0]]
    assert hooks[0][1](torch.ones(3, 2), None).tolist() == [[2, 2], [1, 1], [0, 0]]


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda m, p: Knockout.route("video -> las", layers=0), SelectionError, "did you mean 'video -> last'"),
        (
            lambda m, p: Knockout.route("nonsense", layers=0),
            SelectionError,
            "known: 'cross-frame', 'video -> question'",
        ),
        (lambda m, p: Knockout("video", "last", layers=[-1]), VideolensError, "layer -1 is negative"),
        (lambda m, p: Knockout("video", "last", layers=0, heads=-2), VideolensError, "head -2 is negative"),
        (lambda m, p: Knockout("vidoe", "last", layers=0).hooks(p), SelectionError, "did you mean 'video'"),
        (lambda m, p: Knockout("video", "frame 3", layers=0).hooks(p), SelectionError, "'frame 2'"),
        (lambda m, p: Knockout("video", "last", layers=9).check(n_layers=3, n_heads=4), VideolensError, "0 … 2"),
        (lambda m, p: evaluate(m, tiny_prompt(m, rows=2), []), PromptError, "a batch of 2"),
        (lambda m, p: evaluate(m, p, [], max_memory=0), VideolensError, "above 0, got 0"),
    ],
)
def test_misuse_is_one_clear_error(model, prompt, call, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        call(model, prompt)


def test_a_layer_the_model_does_not_have_is_named(model: vl.HookedVideoTransformer, prompt: vl.Prompt) -> None:
    with pytest.raises(VideolensError, match=r"blocks\.7"):
        model.run_with_hooks(prompt, fwd_hooks=Knockout("video", "last", layers=[7]).hooks(prompt))
    with pytest.raises(VideolensError, match=r"layer 7 is outside the model: its layers are 0 … 2"):
        evaluate(model, prompt, [Knockout("video", "last", layers=[7])])
