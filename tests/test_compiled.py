"""A compiled pathway gives what the masked forward gives, and computes no more than what is live.

The reference is always the model itself under the pathway's hook functions. Distances are in standard deviations.
"""

from __future__ import annotations

import copy
import gc
import weakref
from typing import Any

import jaxtyping
import pytest
import torch
from helpers.engine import FAMILIES, N_LAYERS, random_pair
from helpers.families import CASES, each_family
from helpers.models import tiny_inputs
from helpers.prompts import tiny_model, tiny_prompt
from hypothesis import given, settings
from hypothesis import strategies as st

import videolens as vl
from videolens.errors import ModelError, VideolensError
from videolens.interventions.on_edges import OnEachPrompt
from videolens.interventions.protocol import HookList
from videolens.model.compiled import running
from videolens.prompt.selections import PARTS

TOLERANCE = 1e-4
SOME = vl.Pathway.closed(n_layers=N_LAYERS, cross_frame=[1], video_to_question=[1, 2], question_to_last=[2, 3])

# keys and queries of its layers, of 25 positions: 4 before the video, 12 of video, 8 of question and glue, the last
SIZES = [(25, 25), (25, 25), (25, 13), (13, 5), (5, 1)]


@pytest.fixture(scope="module", params=list(FAMILIES))
def pair(request) -> tuple[vl.HookedVideoTransformer, vl.Prompt]:
    return random_pair(request.param)


@pytest.fixture(scope="module")
def one_pair() -> tuple[vl.HookedVideoTransformer, vl.Prompt]:
    return random_pair("grouped heads")


@pytest.fixture(scope="module")
def unequal(one_pair) -> vl.Prompt:
    """A batch of prompts whose questions are of different lengths."""
    model, prompt = one_pair
    ids, _, pixels = tiny_inputs(seed=3)
    spans = {"stem": range(18, 23), "true option": range(23, 25), "false options": range(25, 27)}
    longer = model.prompt_from_ids(torch.cat([ids, torch.tensor([[33, 7, 41, 8, 21]])], 1), pixels, spans)
    return vl.Prompt.batch([prompt, longer, tiny_prompt(model, seed=5)])


@torch.no_grad()
def masked(model: vl.HookedVideoTransformer, prompt: vl.Prompt, pathway: Any) -> torch.Tensor:
    """[batch d_vocab] at the last position under the pathway's masks, every row computed."""
    return model.run_with_hooks(prompt, fwd_hooks=pathway)[:, -1]


def apart(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float(((ours - theirs).abs().amax(-1) / theirs.std(-1)).max())


def closed_pathways(n_layers: int) -> st.SearchStrategy[vl.Pathway]:
    layers = st.sets(st.integers(0, n_layers - 1))
    return st.builds(
        vl.Pathway,
        st.just(n_layers),
        layers,
        layers,
        layers,
        masks=st.sampled_from(("closed", "closed", "published")),
    )


cuts = st.lists(
    st.builds(
        vl.Knockout.route,
        st.sampled_from((*vl.ROUTES, "part V -> part A", "part P -> part V")),
        layers=st.sets(st.integers(0, N_LAYERS - 1), min_size=1),
        heads=st.none() | st.sets(st.integers(0, 3), min_size=1, max_size=3),
    ),
    min_size=1,
    max_size=3,
)


@settings(max_examples=15, deadline=None)
@given(pathway=closed_pathways(N_LAYERS) | cuts, new=st.integers(2, 4))
def test_it_equals_the_masked_forward(one_pair, pathway, new) -> None:
    model, prompt = one_pair
    fast = model.compile(pathway)
    logits = fast(prompt)
    assert logits.shape == (1, 1, model.cfg.d_vocab)
    assert apart(logits[:, -1], masked(model, prompt, pathway)) <= TOLERANCE
    # decoding, too: the tokens are the same, and so is what the cache leaves of the last step
    plain = model.generate(prompt, new, pathway, stop_at_eos=False)
    assert torch.equal(fast.generate(prompt, new, stop_at_eos=False).tokens, plain.tokens)


@settings(max_examples=8, deadline=None)
@given(pathway=closed_pathways(N_LAYERS) | cuts)
def test_batches_of_unequal_questions(one_pair, unequal, pathway) -> None:
    model, _ = one_pair
    fast = model.compile(pathway)
    together = fast(unequal)[:, -1]
    assert apart(together, masked(model, unequal, pathway)) <= TOLERANCE
    for row, single in enumerate(unequal):
        assert apart(together[row : row + 1], fast(single)[:, -1]) <= TOLERANCE
    plain = model.generate(unequal, 4, pathway, stop_at_eos=False)
    assert torch.equal(fast.generate(unequal, 4, stop_at_eos=False).tokens, plain.tokens)


def test_batches_of_equal_questions_have_one_plan(pair) -> None:
    model, _ = pair
    batch = tiny_prompt(model, rows=3)
    fast = model.compile(SOME)
    assert apart(fast(batch)[:, -1], masked(model, batch, SOME)) <= TOLERANCE
    assert fast.plan(batch).flops == fast.plan(batch[1]).flops


@each_family
def test_every_family(name) -> None:
    case = CASES[name]
    model = case.ours
    frames, height, width = case.shape
    plain = case.prompts(model)[0]
    n = plain.shape[1]
    spans = {"stem": range(n - 7, n - 5), "option A": range(n - 5, n - 3), "option B": range(n - 3, n - 1)}
    pixels = torch.randn(1, frames, 3, height, width, generator=torch.Generator().manual_seed(1))
    prompt = model.prompt_from_ids(plain.input_ids, pixels, spans, seconds=[0.5 * i for i in range(frames)])
    n_layers, generator = model.cfg.n_layers, torch.Generator().manual_seed(0)
    for masks in ("closed", "closed", "published"):
        drawn = [torch.randint(2, (n_layers,), generator=generator).nonzero().flatten().tolist() for _ in range(3)]
        pathway = vl.Pathway(n_layers, *drawn, masks=masks)
        fast = model.compile(pathway)
        assert apart(fast(prompt)[:, -1], masked(model, prompt, pathway)) <= TOLERANCE
        written = model.generate(prompt, 3, pathway, stop_at_eos=False).tokens
        assert torch.equal(fast.generate(prompt, 3, stop_at_eos=False).tokens, written)


def test_prompts_that_differ_in_their_answers_alone_have_one_mask() -> None:
    """Unless the pathway asks which option is right."""
    model = vl.HookedVideoTransformer.from_pretrained("shapes")
    prompts = [model.prompt(one) for one in vl.load_dataset("shapes", split="test", task="object count", n=6)]
    first = prompts[0]
    same = [one for one in prompts if torch.equal(one.tokens.role, first.tokens.role)]
    [other, *_] = [one for one in same if one.tokens.answer != first.tokens.answer]
    batch = vl.Prompt.batch([first, other])
    for pathway, n_masks in (
        (vl.Pathway.closed(n_layers=12, cross_frame=range(6), video_to_question=range(8), question_to_last=[9]), 1),
        (vl.Knockout("video | stem", "frame 3 | last", layers=[2, 3]), 1),
        (vl.Knockout("true option", "last", layers=range(12)), 2),
    ):
        fast = model.compile(pathway)
        assert fast.plan(batch).opening.batch == n_masks
        together = masked(model, batch, pathway)
        assert apart(fast(batch)[:, -1], together) <= TOLERANCE
        assert {isinstance(function, OnEachPrompt) for _, function in pathway.hooks(batch)} == {n_masks == 2}
        for row, single in enumerate((first, other)):
            assert apart(together[row : row + 1], masked(model, single, pathway)) <= TOLERANCE
        assert fast.plan(vl.Prompt.batch([first])).opening.batch == 1
        if n_masks == 1:
            assert fast.plan(batch) is fast.plan(first), "one plan is all of theirs"


def test_the_bundled_model_answers_as_under_its_masks() -> None:
    model = vl.HookedVideoTransformer.from_pretrained("shapes")
    questions = vl.load_dataset("shapes", split="test", n=2)
    batch = model.prompt(questions)
    ranges: dict[str, Any] = dict(
        cross_frame=range(6), video_to_question=range(8), question_to_last=[2, 3, 4, 5, 8, 9, 10, 11]
    )
    for masks in ("closed", "published"):
        pathway = vl.Pathway(12, **ranges, masks=masks)
        fast = model.compile(pathway)
        under_masks = masked(model, batch, pathway)
        assert apart(fast(batch)[:, -1], under_masks) <= TOLERANCE
        for row, single in enumerate(batch):
            assert apart(fast(single)[:, -1], under_masks[row : row + 1]) <= TOLERANCE
    assert apart(under_masks, model(batch)[:, -1]) > 100 * TOLERANCE  # the masks matter
    prompt = model.prompt(questions[0].open_ended())
    fast = model.compile(vl.Pathway(12, **ranges))
    assert fast.generate(prompt, 6).text == model.generate(prompt, 6, fast.pathway).text


@settings(max_examples=10, deadline=None)
@given(pathway=closed_pathways(N_LAYERS))
def test_its_pairs_are_the_live_edges(one_pair, pathway) -> None:
    model, prompt = one_pair
    assert sum(one.pairs for one in model.compile(pathway).plan(prompt).layers) == pathway.live_edges(prompt)


def test_what_the_plan_says_is_what_is_computed(one_pair) -> None:
    model, prompt = one_pair
    fast, rows = model.compile(SOME), []
    handles = [
        block.register_forward_pre_hook(lambda _, given: rows.append(given[0].shape[1])) for block in model.blocks
    ]
    try:
        fast(prompt)
    finally:
        for handle in handles:
            handle.remove()
    planned = fast.plan(prompt)
    assert rows == [len(one.entering) for one in planned.layers]
    assert list(zip(rows, [one.queries for one in planned.layers], strict=True)) == SIZES
    # by hand: 12 video rows in frames of 4 behind 4 tokens, 2 of glue and 6 of question, one token to answer at
    triangle = {n: n * (n + 1) // 2 for n in (4, 8)}
    frames = triangle[4] + 3 * (4 * 4 + triangle[4])
    assert planned.layers[0].pairs == frames + 8 * 4 + triangle[8] + 4 + 1
    assert planned.bound == pytest.approx(planned.full_flops / planned.flops) and planned.bound > 1.3


def test_the_cache_holds_what_the_answer_may_read(pair) -> None:
    model, prompt = pair
    fast = model.compile(SOME)
    planned = fast.plan(prompt, max_new_tokens=5)
    parts = {part: set(prompt.tokens[part].tolist()) for part in PARTS}
    for layer, one in enumerate(planned.layers):
        question = parts["part Q"] if layer in (2, 3) else set()
        assert set(one.cached.tolist()) == parts["part P"] | parts["part A"] | question
    decoding = running._Narrow(model, planned, prompt)
    with torch.no_grad():
        token = decoding.first().argmax(-1)
        for new in range(4):
            token = decoding.next(token, new).argmax(-1)
    assert all(one.open_later for one in planned.layers)
    held = sum(each.nbytes for kv in decoding._past.layers.values() for each in kv)
    assert held == planned.cache_bytes() == planned.cache_bytes(4) < planned.full_cache_bytes() / 2
    assert planned.full_cache_bytes() == 5 * 2 * 29 * 8 * 4 * (model.cfg.n_key_value_heads or 4)


@pytest.mark.parametrize("masks", ["closed", "published"])
def test_an_empty_pathway_compiles(one_pair, masks) -> None:
    """Nothing of the video reaches the answer: closed, neither video nor question is computed at all."""
    model, prompt = one_pair
    empty = vl.Pathway(N_LAYERS, masks=masks)
    fast = model.compile(empty)
    assert apart(fast(prompt)[:, -1], masked(model, prompt, empty)) <= TOLERANCE
    entering = len(fast.plan(prompt).layers[0].entering)
    assert entering == (5 if masks == "closed" else 19)
    assert ("part V is never computed" in str(fast)) == (masks == "closed")


def test_other_interventions_that_only_cut(one_pair) -> None:
    model, prompt = one_pair
    random = vl.RandomBlocking(SOME, seed=1, match="live edges")
    for cut in (random, [SOME, vl.Knockout("system", "last", 4)], vl.Scale("video", "stem", (1, 2), 0)):
        assert apart(model.compile(cut)(prompt)[:, -1], masked(model, prompt, cut)) <= TOLERANCE


def test_functions_that_read_their_layer(one_pair) -> None:
    model, prompt = one_pair

    class Alternating:
        """The same function in every layer, which cuts the video from the stem in odd ones."""

        def hooks(self, prompt: vl.Prompt) -> Any:
            return [(f"blocks.{layer}.attn.hook_mask", self.cut) for layer in range(N_LAYERS)]

        def cut(self, mask: torch.Tensor, hook: Any) -> torch.Tensor:
            if hook.layer() % 2:
                rows, keys = (
                    torch.isin(hook.ctx[name], at) for name, at in zip(("rows", "keys"), self.at, strict=True)
                )
                mask = mask & ~(rows[:, None] & keys)
            return mask

        at = prompt.tokens["stem | options"], prompt.tokens["video"]

    alternating = Alternating()
    assert apart(model.compile(alternating)(prompt)[:, -1], masked(model, prompt, alternating)) <= TOLERANCE


def test_half_precision_rounds_no_worse_than_the_masked_forward() -> None:
    model, prompt = random_pair("grouped heads", dtype=torch.bfloat16)
    wide = copy.deepcopy(model).float()  # the same weights
    exact = masked(wide, tiny_prompt(wide), SOME)
    theirs = apart(masked(model, prompt, SOME).float(), exact)
    assert 0 < apart(model.compile(SOME)(prompt)[:, -1].float(), exact) <= 1.5 * theirs


def test_eager_attention(one_pair) -> None:
    model, prompt = one_pair
    with model.attention_path("eager"):
        assert apart(model.compile(SOME)(prompt)[:, -1], masked(model, prompt, SOME)) <= TOLERANCE


def test_it_shares_the_weights_and_forgets_prompts() -> None:
    model, prompt = random_pair("one key head")
    fast = model.compile(SOME)
    before = fast(prompt)
    with torch.no_grad():
        model.blocks[0].mlp.down.weight.mul_(1.5)
    assert apart(fast(prompt)[:, -1], masked(model, prompt, SOME)) <= TOLERANCE < apart(fast(prompt), before)
    tokens = weakref.ref(prompt.tokens)
    del prompt
    gc.collect()
    assert tokens() is None


def test_prompts_of_one_layout_have_one_plan(one_pair) -> None:
    model, prompt = one_pair
    alike, other = tiny_prompt(model, seed=7), tiny_prompt(model, seed=7, answer=1)
    fast = model.compile(SOME)
    assert fast.plan(alike) is fast.plan(prompt) and fast.plan(alike, 3) is not fast.plan(prompt)
    assert apart(fast(alike)[:, -1], masked(model, alike, SOME)) <= TOLERANCE < apart(fast(alike), fast(prompt))
    # which option is true is part of a layout: a knockout can name it
    cut = vl.Knockout("video", "true option", range(N_LAYERS))
    fast = model.compile(cut)
    assert fast.plan(other) is not fast.plan(alike)
    assert apart(fast(other)[:, -1], masked(model, other, cut)) <= TOLERANCE
    # a draw is that of a layout and a seed
    drawn = vl.RandomBlocking(SOME, seed=3)
    fast = model.compile(drawn)
    assert fast.plan(alike) is fast.plan(prompt)
    assert apart(fast(alike)[:, -1], masked(model, alike, drawn)) <= TOLERANCE
    # what does not say that the layout decides is asked again
    asked = model.compile(HookList(tuple(SOME.hooks(prompt))))
    assert asked.plan(alike) is not asked.plan(prompt)


def test_what_it_says(one_pair) -> None:
    model, prompt = one_pair
    fast = model.compile(SOME)
    assert "nothing has run yet" in str(fast)
    fast.generate(prompt, 4)
    said = str(fast)
    assert "'closed' compiled for" in said and "read there by glue, stem, option\n" in said
    lines = {line.split()[0]: line.split()[1:3] for line in said.splitlines() if line[:1].isdigit()}
    assert [lines[str(layer)] for layer in range(1, 6)] == [[*map(str, pair)] for pair in SIZES]
    assert "cache when 4 tokens are written" in said and "times fewer operations" in said
    leaking = model.compile(vl.Pathway.published(n_layers=N_LAYERS, cross_frame=[1], question_to_last=[2]))
    leaking(prompt)
    assert "part V is computed up to layer 4 of 5, read there by glue: a leak" in str(leaking)


def test_sampling_draws_the_same(one_pair) -> None:
    model, prompt = one_pair
    how: dict[str, Any] = dict(temperature=0.7, top_k=20, seed=3, stop_at_eos=False)
    assert torch.equal(
        model.compile(SOME).generate(prompt, 5, **how).tokens, model.generate(prompt, 5, SOME, **how).tokens
    )


@pytest.mark.parametrize(
    ("pathway", "match"),
    [
        (vl.Pathway.closed(n_layers=7), "is for 7 layers, the model has 5"),
        (None, r"None is no pathway: give model\.compile\(vl\.Pathway"),
        ("cross-frame", "'cross-frame' is no pathway"),
        ([], "no pathway"),
        ([SOME, ("blocks.0.hook_resid_pre", print)], "no pathway"),
        (vl.Knockout("video", "last", 9), "layer 9 is outside"),
    ],
)
def test_what_is_no_pathway_of_this_model_is_refused(one_pair, pathway, match, monkeypatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(VideolensError, match=match):
        one_pair[0].compile(pathway)


def test_listeners_are_refused() -> None:
    model, prompt = random_pair("grouped heads")
    fast = model.compile(SOME)
    model.add_hook("blocks.2.hook_resid_post", lambda value, hook: None)
    for run in (lambda: model.compile(SOME), lambda: fast(prompt), lambda: fast.generate(prompt, 2)):
        with pytest.raises(ModelError, match=r"listen to blocks\.2\.hook_resid_post.*reset_hooks"):
            run()
    model.reset_hooks()
    fast(prompt)


def test_other_errors(one_pair, monkeypatch) -> None:
    model, prompt = one_pair
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    fast = model.compile(SOME)
    for given_ in (prompt.input_ids, "words", None):
        with pytest.raises(ModelError, match=r"runs on a Prompt.*model\.prompt\(question\)"):
            fast(given_)
        with pytest.raises(ModelError, match="runs on a Prompt"):
            fast.generate(given_, 2)
    steered = model.compile([SOME, vl.Scale("video", "stem", 1, 2.0)])
    with pytest.raises(ModelError, match=r"acts on blocks\.1\.attn\.hook_gate.*may only cut attention"):
        steered(prompt)
    with pytest.raises(ModelError, match="max_new_tokens"):
        fast.generate(prompt, 0)
    with pytest.raises(ModelError, match="context"):
        fast.generate(prompt, 10_000)
    with pytest.raises(VideolensError, match="no question after its video"):
        ids, _, pixels = tiny_inputs()
        fast(model.prompt_from_ids(ids, pixels))
    with pytest.raises(ModelError, match="made by"):
        fast(tiny_prompt(tiny_model(seed=1)))
    monkeypatch.setattr(model.cfg, "causal", False)
    with pytest.raises(ModelError, match=r"compiled pathway is exact where .* not causal"):
        model.compile(SOME)
