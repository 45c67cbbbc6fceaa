"""The engine gives the logits that plain hooked forwards of the whole prompt give, whatever it shares and skips.

The reference is always `plain_logits`: one intervention after the other, a batch of one, every row of every layer.
Distances are in standard deviations of the unblocked logits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.engine import (
    FAMILIES,
    N_LAYERS,
    POINTS,
    Both,
    Claiming,
    Coneless,
    Idle,
    Lenient,
    Named,
    NothingRuns,
    Scaled,
    all_windows,
    distance,
    plain_logits,
    random_pair,
)
from helpers.prompts import SPANS, tiny_prompt
from hypothesis import given, settings
from hypothesis import strategies as st

import videolens as vl
from videolens.engine import evaluate
from videolens.engine.full import full_logits
from videolens.errors import VideolensError
from videolens.interventions.knockout import ROUTES, Knockout
from videolens.interventions.layer_sets import window_layers

TOLERANCE = 1e-4  # float32
FELT = 100 * TOLERANCE  # what a knockout must do to the logits, for that tolerance to mean anything
# bfloat16 keeps 8 bits. In the bundled model the plain forward itself is up to 0.19 away from float32 (median 0.027),
# and the same forward with eager attention is up to 0.12 from it (median 0.029): no two orders of adding agree better.
TOLERANCE_BFLOAT16 = 0.2

NAMES = (
    "system",
    "video",
    "frame 0",
    "frame 1",
    "frame 2",
    "glue",
    "stem",
    "option B",
    "true option",
    "question",
    "suffix",
    "last",
    "all",
    "pad",
)
LAST = 24  # of the tiny prompt


@pytest.fixture(scope="module", params=list(FAMILIES))
def pair(request) -> tuple[vl.HookedVideoTransformer, vl.Prompt]:
    return random_pair(request.param)


@pytest.fixture(scope="module")
def one_pair() -> tuple[vl.HookedVideoTransformer, vl.Prompt]:
    return random_pair("grouped heads")


def spread(model: vl.HookedVideoTransformer, prompt: vl.Prompt) -> torch.Tensor:
    return unblocked(model, prompt).std()


@torch.no_grad()
def unblocked(model: vl.HookedVideoTransformer, prompt: vl.Prompt) -> torch.Tensor:
    return model(prompt)[0, prompt.tokens["last"][0]]


# -- what is drawn -----------------------------------------------------------------------------------------------------

selections = st.lists(st.sampled_from(NAMES), min_size=1, max_size=3, unique=True).map(" | ".join)
layer_sets = st.sets(st.integers(0, N_LAYERS - 1), min_size=1, max_size=4)
head_sets = st.none() | st.sets(st.integers(0, 3), min_size=1, max_size=3)


@st.composite
def knockouts(draw: st.DrawFn) -> list[Any]:
    """One pair of selections in several sets of layers, as a route and its windows are."""
    source, target, heads, earlier = draw(selections), draw(selections), draw(head_sets), draw(st.booleans())
    several = draw(st.lists(layer_sets, min_size=1, max_size=4))
    return [Lenient(source, target, layers, heads, earlier_frames=earlier) for layers in several]


@st.composite
def routes(draw: st.DrawFn) -> list[Any]:
    name, window, heads = draw(st.sampled_from(ROUTES)), draw(st.integers(1, N_LAYERS)), draw(head_sets)
    centres = draw(st.lists(st.integers(0, N_LAYERS - 1), min_size=1, max_size=N_LAYERS))
    return [Knockout.route(name, layers=window_layers(centre, window, N_LAYERS), heads=heads) for centre in centres]


@st.composite
def scalings(draw: st.DrawFn) -> list[Any]:
    point = draw(st.sampled_from((*POINTS, "hook_embed")))
    layers = [0] if point == "hook_embed" else draw(st.lists(st.integers(0, N_LAYERS - 1), min_size=1, max_size=3))
    rows = draw(st.sets(st.integers(0, LAST), max_size=4) | st.just({LAST}))
    return [Scaled(point, layer, tuple(sorted(rows)), draw(st.sampled_from((0.5, 2.0)))) for layer in layers]


@st.composite
def batches(draw: st.DrawFn) -> list[Any]:
    """Several families of interventions in any order, some of them twice, some of them together."""
    groups = draw(st.lists(routes() | knockouts() | scalings(), min_size=2, max_size=4))
    flat = [one for group in groups for one in group]
    again = draw(st.lists(st.sampled_from(flat), max_size=2))
    both = [Both(*draw(st.tuples(*[st.sampled_from(flat)] * 2))) for _ in range(draw(st.integers(0, 2)))]
    return draw(st.permutations(flat + again + both))


# -- equality ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bundled() -> tuple[vl.HookedVideoTransformer, vl.Prompt]:
    model = vl.HookedVideoTransformer.from_pretrained("shapes")
    return model, model.prompt(vl.load_dataset("shapes", split="test", task="object count", n=1)[0])


def test_every_route_and_window_of_the_bundled_model(bundled) -> None:
    model, prompt = bundled
    many = all_windows(model.cfg.n_layers, 3)
    plain, scale = plain_logits(model, prompt, many), spread(model, prompt)
    assert distance(evaluate(model, prompt, many), plain, scale).max() <= TOLERANCE
    # the control: left out, or moved by one layer, every route would be noticed
    felt = distance(plain, unblocked(model, prompt), scale).view(len(ROUTES), -1)
    assert felt.amax(1).min() >= FELT
    shifted = distance(plain[1:], plain[:-1], scale)
    assert shifted.median() >= FELT


def test_any_interventions_together_are_what_each_is_alone(pair) -> None:
    model, prompt = pair
    scale, clean = spread(model, prompt), unblocked(model, prompt)
    felt: list[float] = []

    @settings(max_examples=30)
    @given(batches())
    def check(drawn: list[Any]) -> None:
        plain = plain_logits(model, prompt, drawn)
        apart = distance(evaluate(model, prompt, drawn), plain, scale)
        assert apart.max() <= TOLERANCE, f"{drawn[int(apart.argmax())]} is {apart.max():.1e} off"
        moved = distance(plain, clean, scale)
        for one, by in zip(drawn, moved.tolist(), strict=True):
            if one.cone(prompt) is None:
                # not to the last bit: who listens to scores gets eager attention
                assert by <= TOLERANCE, f"{one} declares that it changes nothing"
            else:
                felt.append(by)

    check()
    # the control: most of what was drawn moves the logits far beyond the tolerance
    assert len(felt) > 40 and torch.tensor(felt).median() >= FELT


@pytest.mark.parametrize("route", ROUTES)
def test_each_route_of_a_random_model(pair, route: str) -> None:
    model, prompt = pair
    many = [k for window in (1, 4) for k in all_windows(N_LAYERS, window, [route])]
    plain, scale = plain_logits(model, prompt, many), spread(model, prompt)
    assert distance(evaluate(model, prompt, many), plain, scale).max() <= TOLERANCE
    assert distance(plain, unblocked(model, prompt), scale).median() >= FELT


@pytest.mark.parametrize("point", [*POINTS, "hook_embed", "frontend.hook_video_tokens", "frontend.hook_video_features"])
def test_each_hook_point(one_pair, point: str) -> None:
    model, prompt = one_pair
    # the newest row alone, a video row, a few; the front end knows the video's rows only, its features no rows at all
    rows = [(LAST,), (4,), (5, 9, 21)] if point in (*POINTS, "hook_embed") else [(4,), (5, 9)]
    layers = range(N_LAYERS) if point in POINTS else [0]
    if point.endswith("features"):
        many: list[Any] = [DoubledFeatures()]
    else:
        many = [Scaled(point, layer, at) for layer in layers for at in rows]
    plain, scale = plain_logits(model, prompt, many), spread(model, prompt)
    assert distance(evaluate(model, prompt, many), plain, scale).max() <= TOLERANCE
    # a row above the last is felt through later layers only; a key's and value's own row not at all where it is last
    assert distance(plain, unblocked(model, prompt), scale).median() >= FELT


class DoubledFeatures(Scaled):
    """What the vision tower gives, doubled."""

    def __init__(self) -> None:
        super().__init__("frontend.hook_video_features", 0, (4,))

    def hooks(self, prompt: vl.Prompt) -> list[Any]:
        return [(self.point, lambda value, hook: value * 2)]


SPECIAL = {
    "duplicates": [Knockout("video", "question", range(2))] * 3 + [Knockout("video", "question", [0, 1])],
    "nothing at all": [Idle(), Idle()],
    "nothing among something": [Idle(), Knockout("all", "stem", 2), Idle()],
    "different first rows": [Knockout("all", f"{name}", [1, 2]) for name in ("frame 0", "frame 2", "stem", "last")],
    "layers apart": [Knockout("video", "question", layers) for layers in ([0, 4], [1, 3], [0, 2, 4], [4], [0])],
    "last in the source": [Knockout("video | last", "question | last", [1, 2]), Knockout("last", "all", [0, 4])],
    "rows with no key left": [Knockout("all", target, [layer]) for target in ("video", "last") for layer in (0, 2, 4)],
    "every row with no key left": [Knockout("all", "all", range(5)), Knockout("all", "all", 4)],
    "frames and text in one union": [
        Knockout("video | stem", "video | question | last", [1, 2], earlier_frames=True),
        Knockout("frame 0 | frame 2", "frame 1 | frame 2 | suffix", [0, 3], earlier_frames=True),
        Knockout("frame 0", "video", [0, 1, 2], earlier_frames=True),
    ],
    "some heads": [
        Knockout("video", "question", [1, 2], heads=heads) for heads in ([0], [1, 2], None, [3], [0, 1, 2, 3])
    ],
    "one part in common": [
        Both(Knockout("video", "stem", [0, 1]), Knockout("stem", "last", [layer])) for layer in range(1, 5)
    ],
    "of several kinds": [
        Knockout("video", "question", [0, 1, 2]),
        Both(Knockout("video", "question", [0, 1, 2]), Scaled("attn.hook_pattern", 1, (20, LAST))),
        Scaled("attn.hook_z", 4, (3, LAST)),
    ],
    "in the last layer only": [Knockout("question", target, 4) for target in ("last", "suffix | last", "stem")],
}


@pytest.mark.parametrize("case", list(SPECIAL))
def test_special_cases(pair, case: str) -> None:
    model, prompt = pair
    many: list[Any] = SPECIAL[case]
    plain, scale = plain_logits(model, prompt, many), spread(model, prompt)
    logits = evaluate(model, prompt, many)
    assert logits.dtype == torch.float32 and logits.shape == (len(many), model.cfg.d_vocab)
    assert distance(logits, plain, scale).max() <= TOLERANCE
    moved = distance(plain, unblocked(model, prompt), scale)
    if case == "nothing at all":
        assert moved.max() == 0
    else:
        assert moved.max() >= FELT
    if case == "duplicates":
        assert distance(logits[1:], logits[:1], scale).max() <= TOLERANCE


@dataclass(frozen=True)
class Acting:
    """Hook functions of any kind, from some row of some layer on."""

    functions: list[tuple[str, Callable[..., Any]]]
    begins: tuple[int, int]

    def hooks(self, prompt: vl.Prompt) -> list[tuple[str, Callable[..., Any]]]:
        return self.functions

    def cone(self, prompt: vl.Prompt) -> tuple[int, int]:
        return self.begins


def _edits_the_mask_in_place(value: torch.Tensor, hook: Any) -> None:
    value[..., hook.ctx["rows"] >= 18, 4:16] = False


def _asks_for_its_layer(value: torch.Tensor, hook: Any) -> torch.Tensor:
    first, mask = 4 + hook.layer(), value.clone()
    mask[..., hook.ctx["rows"] >= 18, first : first + 4] = False
    return mask


def _asks_for_its_name(value: torch.Tensor, hook: Any) -> torch.Tensor:
    first, mask = 4 + int(hook.name.split(".")[1]), value.clone()
    mask[..., hook.ctx["rows"] >= 18, first : first + 4] = False
    return mask


def _takes_its_hook_by_name(value: torch.Tensor, *, hook: Any) -> torch.Tensor:
    return _asks_for_its_layer(value, hook)


@dataclass
class _Unhashable:
    factors: list[float]

    def __call__(self, value: torch.Tensor, hook: Any) -> torch.Tensor:
        return value * self.factors[0]


@dataclass(frozen=True)
class _HashRaises:
    factors: list[float]

    def __call__(self, value: torch.Tensor, hook: Any) -> torch.Tensor:
        return value * self.factors[0]


def _on_masks(function: Callable[..., Any]) -> list[Acting]:
    return [Acting([(f"blocks.{layer}.attn.hook_mask", function) for layer in layers], (1, 18)) for layers in LAYERS]


LAYERS = ((1, 2, 3), (2, 4))
UNUSUAL: dict[str, list[Any]] = {
    "heads cut between rows that no head of its own has": [
        Both(Knockout.route("cross-frame", layers=range(4)), Knockout("stem", "option A", layers=range(4), heads=[0])),
        Both(Knockout("video", "stem", layers=[1, 2]), Knockout("stem", "option A", layers=[1, 2], heads=[1, 3])),
    ],
    "a mask edited in place": _on_masks(_edits_the_mask_in_place),
    "a mask by layer": _on_masks(_asks_for_its_layer),
    "a mask by name": _on_masks(_asks_for_its_name),
    "a function that takes its hook by name": _on_masks(_takes_its_hook_by_name),
    "functions without a hash": [
        Acting([("blocks.1.hook_mlp_out", kind([factor]))], (1, 0))
        for kind in (_Unhashable, _HashRaises)
        for factor in (2.0, 0.5)
    ],
}


@pytest.mark.parametrize("what", UNUSUAL)
def test_unusual_hook_functions(pair, what: str) -> None:
    model, prompt = pair
    many = [*UNUSUAL[what], Knockout("video", "last", [1])]
    plain = plain_logits(model, prompt, many)
    assert distance(evaluate(model, prompt, many), plain, spread(model, prompt)).max() <= TOLERANCE
    assert distance(plain, unblocked(model, prompt), spread(model, prompt)).min() >= FELT


def test_nothing_to_evaluate(one_pair) -> None:
    model, prompt = one_pair
    assert evaluate(model, prompt, []).shape == (0, model.cfg.d_vocab)


@pytest.mark.parametrize("tail", ["pad", "response"])
def test_logits_are_read_at_last_not_at_the_end(one_pair, tail: str) -> None:
    model, whole = one_pair
    ids = torch.cat([whole.input_ids, torch.tensor([[7, 8]])], dim=1)
    spans = {**SPANS, tail: [25, 26]}
    prompt = model.prompt_from_ids(ids, whole.pixel_values, spans, option_tokens=(5, 6), answer_token=5)
    assert int(prompt.tokens["last"][0]) == LAST
    many = [Knockout("video", "last", [1, 2]), Knockout(tail, "all", [0]), Knockout("all", tail, [0])]
    plain, scale = plain_logits(model, prompt, many), spread(model, prompt)
    assert distance(evaluate(model, prompt, many), plain, scale).max() <= TOLERANCE
    moved = distance(plain, unblocked(model, prompt), scale)
    assert moved[0] >= FELT and moved[1:].max() <= TOLERANCE, "what comes after the last token is not felt there"
    for cut, wanted in zip(many, plain, strict=True):
        whole_run = full_logits(model, prompt, cut.hooks(prompt))
        assert distance(whole_run[None], wanted[None], scale).max() <= TOLERANCE, "a plain forward reads there, too"


def test_a_prompt_without_video(one_pair) -> None:
    model, whole = one_pair
    prompt = model.prompt_from_ids(whole.input_ids[:, 16:], None, {"stem": range(2, 4)})
    many = [Knockout("stem", "last", [layer]) for layer in range(N_LAYERS)] + [Knockout("all", "stem", [1, 2])]
    plain, scale = plain_logits(model, prompt, many), spread(model, prompt)
    assert distance(evaluate(model, prompt, many), plain, scale).max() <= TOLERANCE
    assert distance(plain, unblocked(model, prompt), scale).median() >= FELT


@pytest.mark.parametrize("path", ["eager", "sdpa"])
def test_whichever_way_attention_is_computed(one_pair, path: str) -> None:
    model, prompt = one_pair
    many = all_windows(N_LAYERS, 2)[::2]
    with model.attention_path(path):
        plain, logits = plain_logits(model, prompt, many), evaluate(model, prompt, many)
    assert distance(logits, plain, spread(model, prompt)).max() <= TOLERANCE


# -- other precisions --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_in_float64_the_engine_is_exact(family: str) -> None:
    model, prompt = random_pair(family, dtype=torch.float64)
    many = all_windows(N_LAYERS, 2)[::3] + [one for case in SPECIAL.values() for one in case]
    plain, logits = plain_logits(model, prompt, many), evaluate(model, prompt, many)
    assert plain.dtype == torch.float64
    # what is handed out is float32: the nearest one, or its neighbour
    torch.testing.assert_close(logits.double(), plain, rtol=2.0**-22, atol=1e-10 * float(spread(model, prompt)))


def test_bfloat16_is_as_near_as_bfloat16_can_be(bundled) -> None:
    exact, prompt = bundled
    many = all_windows(exact.cfg.n_layers, 3)[::5]
    wide, clean, scale = plain_logits(exact, prompt, many), unblocked(exact, prompt), spread(exact, prompt)
    model = vl.HookedVideoTransformer.from_pretrained("shapes", dtype=torch.bfloat16)
    prompt = model.prompt(prompt.question)
    plain, logits = plain_logits(model, prompt, many), evaluate(model, prompt, many)
    apart, rounding = distance(logits, plain, scale), distance(plain, wide, scale)
    assert apart.max() <= TOLERANCE_BFLOAT16
    # the two are as far from each other as each is from the truth
    assert apart.median() <= 1.5 * rounding.median()
    assert distance(logits, wide, scale).median() <= 1.5 * rounding.median()
    felt = distance(wide, clean, scale)
    assert felt.max() >= 10 * TOLERANCE_BFLOAT16


# -- what it is told about the interventions ---------------------------------------------------------------------------

HONEST = Knockout("video", "question", [1, 2])  # from row 18 on


def test_verify_agrees_with_honest_cones(pair) -> None:
    model, prompt = pair
    many = [*all_windows(N_LAYERS, 2)[::3], Scaled("attn.hook_z", 2, (7,))]
    logits = evaluate(model, prompt, many, verify=True)
    assert distance(logits, plain_logits(model, prompt, many), spread(model, prompt)).max() <= TOLERANCE
    # a cone may be wider than it needs to be
    wide = [Claiming(HONEST, (0, 0)), Claiming(HONEST, (1, 3)), Claiming(HONEST, (0, 18))]
    logits = evaluate(model, prompt, wide, verify=True)
    assert distance(logits, plain_logits(model, prompt, wide), spread(model, prompt)).max() <= TOLERANCE


@pytest.mark.parametrize("claimed", [(2, 18), (3, 18), (1, 20), (1, LAST), (4, LAST), None])
def test_verify_catches_a_cone_that_begins_too_late(one_pair, claimed: tuple[int, int] | None) -> None:
    model, prompt = one_pair
    assert HONEST.cone(prompt) == (1, 18)
    with pytest.raises(VideolensError, match="cone"):
        evaluate(model, prompt, [Claiming(HONEST, claimed)], verify=True)
    with pytest.raises(VideolensError, match="cone"):
        evaluate(model, prompt, [Knockout("stem", "last", 2), *[Claiming(HONEST, claimed)] * 8], verify=True)


def test_without_a_cone_the_whole_prompt_is_run(pair) -> None:
    model, prompt = pair
    many = [Coneless(HONEST), HONEST, Coneless(Scaled("hook_resid_pre", 3, (LAST,))), Knockout("video", "last", [3])]
    plain, scale = plain_logits(model, prompt, many), spread(model, prompt)
    assert distance(evaluate(model, prompt, many), plain, scale).max() <= TOLERANCE
    assert distance(plain, unblocked(model, prompt), scale).min() >= FELT
    # so are bare hook functions, and the result says so
    bare = [HONEST.hooks(prompt), *many]
    found = vl.sweep(model, prompt, bare)
    assert found.in_full == (True, True, False, True, False) and found.plan.in_full == 3
    assert distance(found.logits, torch.cat([plain[:1], plain]), scale).max() <= TOLERANCE
    assert "3 of them do not say what they change" in str(found.plan)


@pytest.mark.parametrize("engine", ["exact", "full"])
def test_both_engines_are_the_plain_way(one_pair, engine: str) -> None:
    model, prompt = one_pair
    many = all_windows(N_LAYERS, 2)[::2]
    logits = evaluate(model, prompt, many, engine=engine)
    assert distance(logits, plain_logits(model, prompt, many), spread(model, prompt)).max() <= TOLERANCE


# -- memory ------------------------------------------------------------------------------------------------------------


def test_a_small_budget_takes_more_rounds_and_gives_the_same(one_pair) -> None:
    model, prompt = one_pair
    many = all_windows(N_LAYERS, 3)
    free = vl.plan_flow(model, prompt, window=3)
    budgets = [int(free.peak_bytes * share) for share in (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)]
    fitting = [budget for budget in budgets if _fits(model, prompt, budget)]
    plan = vl.plan_flow(model, prompt, window=3, max_memory=fitting[0])
    assert plan.rounds > free.rounds and plan.peak_bytes <= fitting[0] < free.peak_bytes
    assert plan.forwards >= free.forwards
    plain, scale = plain_logits(model, prompt, many), spread(model, prompt)
    for budget in (fitting[0], fitting[-1], 2 * free.peak_bytes):
        assert distance(evaluate(model, prompt, many, max_memory=budget), plain, scale).max() <= TOLERANCE


def test_the_budget_is_read_where_the_system_tells_nothing(one_pair, monkeypatch) -> None:
    model, prompt = one_pair

    def nothing(*_: Any) -> Any:
        raise ValueError("unrecognized configuration name")

    expected = vl.plan_flow(model, prompt).peak_bytes
    monkeypatch.setattr("os.sysconf", nothing)
    assert vl.plan_flow(model, prompt).peak_bytes == expected
    monkeypatch.setattr("videolens.engine.memory.Path", lambda name: Path("/there/is/nothing"))
    assert vl.plan_flow(model, prompt).peak_bytes == expected


def _fits(model: vl.HookedVideoTransformer, prompt: vl.Prompt, budget: int) -> bool:
    try:
        vl.plan_flow(model, prompt, window=3, max_memory=budget)
    except VideolensError:
        return False
    return True


# -- bad input ---------------------------------------------------------------------------------------------------------

N_POS = 25
BAD: dict[str, tuple[list[Any], dict[str, Any], str]] = {
    "a row after the prompt": ([Claiming(HONEST, (1, N_POS))], {}, r"row 25, outside .* 0 … 24"),
    "a negative row": ([Claiming(HONEST, (1, -1))], {}, r"row -1, outside .* 0 … 24"),
    "a cone in a layer after the last": ([Claiming(HONEST, (N_LAYERS, 18))], {}, r"layer 5, outside .* 0 … 4"),
    "a cone in a negative layer": ([Claiming(HONEST, (-2, 18))], {}, r"layer -2, outside .* 0 … 4"),
    "a layer that does not exist": ([Knockout("video", "last", [7])], {}, r"layer 7 .* 0 … 4"),
    "a head that does not exist": ([Knockout("video", "last", [1], heads=[9])], {}, r"head 9 .* 0 … 3"),
    "a hook point that does not exist": ([Named("blocks.1.attn.hook_masc")], {}, r"hook_masc.*hook_mask"),
    "a hook point of a layer that does not exist": ([Named("blocks.9.attn.hook_mask")], {}, r"blocks\.9.*0 … 4"),
    "a hook point that is switched off": ([Named("blocks.1.attn.hook_result")], {}, r"set_use_attn_result\(True\)"),
    "functions without their list": (
        [("blocks.1.hook_mlp_out", abs)],
        {},
        r"intervention \d has 'blocks.1.hook_mlp_out'",
    ),
    "a name without a function": ([[("blocks.1.hook_mlp_out",)]], {}, r"intervention \d has .*pairs"),
    "a cone without a row": ([Claiming(HONEST, 3)], {}, r"cone of .* is 3"),  # type: ignore[arg-type]
    "no room for one chunk": ([HONEST], {"max_memory": 1000}, r"max_memory of 1,000 bytes .* needs [\d,]+ bytes"),
    "no room at all": ([HONEST], {"max_memory": 0}, r"max_memory.*\b0\b"),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_input_is_one_clear_error_before_anything_runs(one_pair, what: str) -> None:
    model, prompt = one_pair
    wrong, options, says = BAD[what]
    with pytest.raises(VideolensError, match=f"(?s){says}"), NothingRuns():
        evaluate(model, prompt, wrong, **options)
    # nor if what comes before it is right
    with pytest.raises(VideolensError, match=f"(?s){says}"), NothingRuns():
        evaluate(model, prompt, [Knockout("stem", "last", 2), *wrong], **options)


def test_one_prompt_is_planned_at_a_time(one_pair) -> None:
    model, _ = one_pair
    with pytest.raises(VideolensError, match="batch of 2"):
        vl.plan_flow(model, tiny_prompt(model, rows=2))


def test_the_watch_on_running_would_see_a_forward(one_pair) -> None:
    model, prompt = one_pair
    with pytest.raises(AssertionError, match="the model ran"), NothingRuns():
        model(prompt)


def test_nothing_is_left_behind(one_pair) -> None:
    model, prompt = one_pair
    before = model(prompt)
    evaluate(model, prompt, all_windows(N_LAYERS, 2), verify=True)
    for wrong, options, _ in BAD.values():
        with pytest.raises(VideolensError):
            evaluate(model, prompt, wrong, **options)
    with pytest.raises(ZeroDivisionError):
        evaluate(model, prompt, [HONEST, Raising("blocks.3.hook_mlp_out")])
    assert not any(point.fwd_hooks or point._forward_hooks for point in model.hook_dict.values())
    assert torch.equal(model(prompt), before) and torch.is_grad_enabled()


class Raising(Named):
    """A function that fails while the model runs."""

    def hooks(self, prompt: vl.Prompt) -> list[Any]:
        return [(self.name, lambda value, hook: value / (1 // 0))]
