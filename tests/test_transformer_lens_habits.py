"""What users of TransformerLens type first: it works as they expect, or the error says what to write."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import jaxtyping
import pytest
import torch
import torch.nn.functional as F
from transformer_lens.hook_points import HookPoint

import videolens as vl
from videolens.interventions.knockout import ROUTES, route_name
from videolens.interventions.rerounded import Rerounded
from videolens.model.lens_tools import _ELSEWHERE
from videolens.model.sampling import Drawing
from videolens.question import _OF_PROMPTS


@pytest.fixture(autouse=True)
def annotations_are_not_checked():
    """As for a user without a type checker."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="module")
def questions() -> list[vl.Question]:
    return vl.load_dataset("shapes", task="colour", n=2)


@pytest.fixture(scope="module")
def asked(shapes: vl.HookedVideoTransformer, questions: list[vl.Question]) -> vl.Prompt:
    return shapes.prompt(questions[0])


CUT = vl.Knockout("video", "question", layers=range(2, 6))


# -- interventions as hook functions -----------------------------------------------------------------------------------


def test_an_intervention_is_taken_wherever_hook_functions_are(shapes, asked) -> None:
    seen: list[str] = []

    def look(value: torch.Tensor, hook: HookPoint) -> None:
        seen.append(str(hook.name))

    pair = ("blocks.1.hook_resid_pre", look)
    expected = shapes.run_with_hooks(asked, fwd_hooks=CUT.hooks(asked))
    assert not torch.equal(expected, shapes(asked))
    for given in (CUT, [CUT], (CUT,), [pair, CUT], [*CUT.hooks(asked), pair]):
        assert torch.equal(shapes.run_with_hooks(asked, fwd_hooks=given), expected)
    assert len(seen) == 2 and torch.equal(shapes.run_with_hooks(asked, fwd_hooks=pair), shapes(asked))
    resumed = shapes.resume(shapes.run_clean(asked), layer=2, row=0, fwd_hooks=CUT)
    assert torch.allclose(resumed[:, -1], expected[:, -1], atol=1e-4)


def test_where_there_is_no_prompt_the_message_says_how_to_write_it(shapes, asked, questions) -> None:
    refused: list[tuple[Callable[[], object], str]] = [
        (lambda: shapes.hooks(fwd_hooks=CUT).__enter__(), r"a Knockout .* give fwd_hooks=it.hooks\(prompt\)"),
        (lambda: shapes.run_with_hooks(asked, bwd_hooks=[CUT]), r"give bwd_hooks=it.hooks\(prompt\)"),
        (lambda: shapes.run_with_hooks(questions[0], fwd_hooks=CUT), r"prompt = model.prompt\(question\)"),
        (lambda: shapes.run_with_hooks(asked.input_ids, fwd_hooks=CUT), "model.prompt_from_ids"),
        (lambda: shapes.run_with_hooks(asked, fwd_hooks="video -> last"), "is no intervention"),
        (lambda: shapes.run_with_hooks(asked, fwd_hooks=vl.Knockout("video", "last", layers=12)), "layer 12"),
    ]
    for call, message in refused:
        with pytest.raises(vl.VideolensError, match=message):
            call()
    assert not any(point.fwd_hooks for point in shapes.hook_dict.values())


# -- a question in the place of a prompt -------------------------------------------------------------------------------


def test_whatever_needs_a_prompt_says_how_a_question_becomes_one(shapes, questions) -> None:
    question = questions[0]
    preset = vl.Pathway.closed(n_layers=12)
    calls: dict[str, Callable[[], object]] = {
        "forward": lambda: shapes(question),
        "forward of several": lambda: shapes(questions),
        "run_with_cache": lambda: shapes.run_with_cache(question),
        "run_with_hooks": lambda: shapes.run_with_hooks(question),
        "generate": lambda: shapes.generate(question),
        "run_clean": lambda: shapes.run_clean(question),
        "to_tokens": lambda: shapes.to_tokens(question),
        "sweep": lambda: vl.sweep(shapes, question, [CUT]),
        "knockout": lambda: CUT.hooks(question),
        "its cone": lambda: CUT.cone(question),
        "its edges": lambda: CUT.edges(question),
        "pathway": lambda: preset.hooks(question),
        "its live edges": lambda: preset.live_edges(question),
        "random blocking": lambda: vl.RandomBlocking(preset).hooks(question),
        "rerounded": lambda: Rerounded(CUT).hooks(question),
    }
    for name, call in calls.items():
        with pytest.raises(vl.VideolensError, match=r"model\.prompt\("):
            print(name, call())


def test_a_question_stays_an_ordinary_object(questions) -> None:
    question = questions[0]
    assert set(_OF_PROMPTS) <= {*dir(vl.Prompt), *vl.Prompt.__dataclass_fields__}
    assert not set(_OF_PROMPTS) & {*dir(vl.Question), *vl.Question.__dataclass_fields__}
    assert not hasattr(question, "shape") and copy.copy(question).stem == question.stem
    assert pickle.loads(pickle.dumps(question)).options == question.options
    with pytest.raises(AttributeError, match="no attribute 'steam'"):
        _ = question.steam


def test_several_questions_are_one_batch(shapes, questions) -> None:
    both = shapes.prompt(questions)
    assert len(both) == 2
    last = shapes(both)[:, -1]
    for row, question in zip(last, questions, strict=True):
        assert torch.allclose(row, shapes(shapes.prompt(question))[0, -1], atol=1e-4)
    assert shapes.prompt(questions[:1]).answer_token is not None
    for wrong in ([], [questions[0], "Which way?"], "Which way?"):
        with pytest.raises(vl.VideolensError, match=r"at least one prompt|one Question"):
            shapes.prompt(wrong)


# -- routes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spelled", ["video->last", "video ->last", " video  ->  last ", "video→last", "video → last"])
def test_spaces_in_a_route_do_not_matter(spelled: str, shapes, questions) -> None:
    assert vl.Knockout.route(spelled, layers=1) == vl.Knockout.route("video -> last", layers=1)
    flow = vl.trace_flow(shapes, questions[:1], routes=[spelled], window=1, samples="all", progress=False)
    assert flow.routes == ["video -> last"] and (flow.changes(spelled) == flow.changes("video -> last")).all()
    assert flow.split(spelled).route == "video -> last"
    with pytest.raises(vl.VideolensError, match="each once"):
        vl.trace_flow(shapes, questions[:1], routes=[spelled, "video -> last"], samples="all")


def test_every_known_route_keeps_its_name() -> None:
    assert [route_name(route) for route in ROUTES] == list(ROUTES)
    assert [route_name(route.replace(" -> ", "->")) for route in ROUTES] == list(ROUTES)
    with pytest.raises(vl.VideolensError, match="did you mean 'video -> last'"):
        vl.Knockout.route("vidoe->last", layers=1)


# -- circuits, labels, loss --------------------------------------------------------------------------------------------


def test_circuits_are_products_of_the_weights(model) -> None:
    cfg = model.cfg
    assert model.OV.shape == model.QK.shape == (cfg.n_layers, cfg.n_heads, cfg.d_model, cfg.d_model)
    group = cfg.n_heads // cfg.n_key_value_heads
    for layer, head in ((0, 0), (2, 3)):
        attn = model.blocks[layer].attn
        ov = attn.W_V[head // group] @ attn.W_O[head]
        qk = attn.W_Q[head] @ attn.W_K[head // group].T
        assert torch.allclose(model.OV.AB[layer, head], ov, atol=1e-6)
        assert torch.allclose(model.QK.AB[layer, head], qk, atol=1e-6)
    for name in ("Q", "K", "V", "O"):
        each = [getattr(block.attn, f"b_{name}") for block in model.blocks]
        assert torch.equal(getattr(model, f"b_{name}"), torch.stack(each))
    assert model.b_in.shape == (cfg.n_layers, cfg.d_mlp) and model.b_out.shape == (cfg.n_layers, cfg.d_model)


def test_heads_have_labels(model) -> None:
    labels = model.all_head_labels
    assert labels[:2] == ["L0H0", "L0H1"] and len(labels) == model.cfg.n_layers * model.cfg.n_heads
    assert model.all_head_labels() == labels


def test_the_loss_is_that_of_what_is_neither_video_nor_padding(shapes, questions) -> None:
    one, other = (shapes.prompt(question) for question in vl.load_dataset("shapes", task="scene transition", n=2))
    one = shapes.prompt(questions[0])
    logits = shapes(one)
    ids = one.input_ids[0, 1:]
    kept = ids != shapes.cfg.video_token
    expected = F.cross_entropy(logits[0, :-1][kept], ids[kept])
    assert torch.allclose(shapes.loss_fn(logits, one), expected)
    assert torch.allclose(shapes(one, return_type="loss"), expected)
    each = shapes.loss_fn(logits, one, per_token=True)
    assert torch.equal(each.isnan()[0], ~kept) and torch.allclose(each.nanmean(), expected)
    mask = torch.ones_like(one.input_ids)
    mask[:, :-1] = 0
    assert torch.allclose(shapes.loss_fn(logits, one, mask), each[0, -1])
    # padding of a batch does not count: each prompt has the losses that it has alone
    batch = vl.Prompt.batch([one, other])
    assert batch.padding and max(batch.padding) > 0
    padded = shapes.loss_fn(shapes(batch), batch, per_token=True)
    for row, single in zip(padded, (one, other), strict=True):
        alone = shapes.loss_fn(shapes(single), single, per_token=True)[0]
        assert torch.allclose(row[~row.isnan()], alone[~alone.isnan()], atol=1e-4)
    with pytest.raises(vl.VideolensError, match="are not those of tokens"):
        shapes.loss_fn(logits[:, 1:], one)


def test_names_that_are_not_here_say_what_is(model) -> None:
    for name, advice in _ELSEWHERE.items():
        assert not hasattr(model, name), f"{name} is there: take it out of the list"
        with pytest.raises(vl.VideolensError) as caught:
            getattr(model, name)
        assert advice in str(caught.value) and isinstance(caught.value, AttributeError)
    with pytest.raises(AttributeError, match="no attribute 'blokcs'"):
        _ = model.blokcs
    assert model.to_single_str_token is not None


# -- sampling ----------------------------------------------------------------------------------------------------------


def test_tokens_are_drawn_as_often_as_they_are_likely() -> None:
    logits = torch.tensor([[1.0, 3.0, 2.0, -torch.inf, 0.0]])

    def shares(**settings: float) -> list[float]:
        drawing = Drawing(**settings, seed=0)
        drawn = drawing.choose(logits.expand(20_000, -1), torch.argmax)
        return (torch.bincount(drawn, minlength=5) / 20_000).tolist()

    assert shares(temperature=1.0) == pytest.approx(logits[0].softmax(-1).tolist(), abs=0.015)
    assert shares(temperature=2.0) == pytest.approx((logits[0] / 2).softmax(-1).tolist(), abs=0.015)
    two = torch.tensor([3.0, 2.0]).softmax(-1).tolist()
    assert shares(top_k=2) == pytest.approx([0, two[0], two[1], 0, 0], abs=0.015)
    # 0.644 + 0.237 ≥ 0.7: the fewest that have it together are two; the likeliest always stays
    assert shares(top_p=0.7) == pytest.approx([0, two[0], two[1], 0, 0], abs=0.015)
    assert shares(top_p=0.01) == [0, 1, 0, 0, 0] == shares(top_k=1)
    # of the three likeliest 0.665 is less than 0.7: again two
    assert shares(top_k=3, top_p=0.7) == pytest.approx(shares(top_p=0.7), abs=0.015)


def test_generation_draws_when_it_is_asked_to(shapes, asked) -> None:
    greedy = shapes.generate(asked, 4, stop_at_eos=False)
    for same in ({"temperature": 0}, {"do_sample": False}, {"top_k": 1}, {"do_sample": True, "temperature": 0.0}):
        assert torch.equal(shapes.generate(asked, 4, stop_at_eos=False, **same).tokens, greedy.tokens)
    hot = {"temperature": 20.0, "stop_at_eos": False}
    drawn = [shapes.generate(asked, 4, seed=seed, **hot).tokens for seed in (0, 0, 1)]
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])
    assert not torch.equal(drawn[0], greedy.tokens)
    torch.manual_seed(3)
    first = shapes.generate(asked, 4, do_sample=True, **hot).tokens
    torch.manual_seed(3)
    assert torch.equal(shapes.generate(asked, 4, do_sample=True, **hot).tokens, first)
    padded = set(shapes.padded_ids.tolist())
    many = shapes.generate(asked.repeated(32), 8, seed=0, temperature=1e6, stop_at_eos=False).tokens
    assert not padded & set(many.flatten().tolist())
    assert shapes.generate("the red circle", 2).tokens.shape[1] <= 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": -1}, "temperature = -1: give a number from 0"),
        ({"temperature": True}, "temperature = True"),
        ({"temperature": float("nan")}, "temperature = nan"),
        ({"top_p": 0}, "top_p = 0: give a number above 0, and at most 1"),
        ({"top_p": 1.5}, "top_p = 1.5"),
        ({"top_k": 0}, "top_k = 0"),
        ({"top_k": 2.5}, "top_k = 2.5"),
        ({"seed": -1}, "seed = -1"),
        ({"do_sample": "yes"}, "do_sample = 'yes'"),
        ({"do_sample": False, "top_k": 3}, "top_k would have no effect with do_sample=False"),
        ({"temperature": 0, "seed": 1}, "seed would have no effect with temperature=0"),
        ({"verbose": False}, "no verbose: nothing is printed"),
        ({"return_type": "str"}, r"\.text and \.tokens"),
        ({"temprature": 1.0}, "did you mean 'temperature'"),
    ],
)
def test_settings_of_sampling_are_checked(shapes, asked, settings: dict, message: str) -> None:
    with pytest.raises(vl.VideolensError, match=message):
        shapes.generate(asked, 1, **settings)
