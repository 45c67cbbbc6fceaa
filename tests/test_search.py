"""Searching for the smallest pathway: what is closed is what the test allows, and it is judged on other questions."""

from __future__ import annotations

import random
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import videolens as vl
from videolens.errors import QuestionError, SelectionError, VideolensError
from videolens.experiments.common.scoring import margins_of
from videolens.experiments.search.closing import close_all
from videolens.experiments.search.controls import by_attention, dropped
from videolens.experiments.search.experiment import LEVELS, search
from videolens.experiments.search.judging import Judge
from videolens.experiments.search.keeping import Keeping
from videolens.experiments.search.memory import Answers
from videolens.experiments.search.orders import ordered
from videolens.interventions.partition import PARTITION, Unit
from videolens.interventions.route_pathway import SEARCHED, RoutePathway, pathway_from
from videolens.model.decoder.masks import MaskPoint

TASKS = ("moving direction", "scene transition")
CLOSED = RoutePathway(12, {"part V -> part A": range(12), "cross-part": range(7, 12), "part Q -> part A": [0, 1]})


def asked(split: str, n: int) -> list[vl.Question]:
    return [one for task in TASKS for one in vl.load_dataset("shapes", task=task, split=split, n=n)]


@pytest.fixture(scope="module")
def judge(shapes: vl.HookedVideoTransformer) -> Judge:
    return Judge(shapes, [shapes.prompt(one) for one in asked("validation", 3)])


# -- closing -----------------------------------------------------------------------------------------------------------


@given(st.sets(st.integers(0, 30)), st.permutations(range(31)))
def test_what_matters_by_itself_stays_open_and_nothing_else(needed: set[int], order: list[int]) -> None:
    tests = []

    def accept(closed: frozenset[int]) -> bool:
        tests.append(closed)
        return not closed & needed

    *_, (settled, closed) = close_all(order, frozenset(), accept)
    assert closed == set(range(31)) - needed and settled == 31
    assert len(tests) <= 1 + 2 * len(needed) * 6, "groups are halved: units that matter cost their depth, no more"


@settings(max_examples=50)
@given(st.lists(st.sets(st.integers(0, 9), min_size=1), max_size=5), st.permutations(range(10)))
def test_whatever_is_closed_was_accepted_and_no_unit_can_follow(needed: list[set[int]], order: list[int]) -> None:
    """Of each set one must stay open: closing then depends on the order."""

    def accept(closed: frozenset[int]) -> bool:
        return all(one - closed for one in needed)

    *_, (_, closed) = close_all(order, frozenset(), accept)
    assert accept(closed)
    assert all(not accept(closed | {unit}) for unit in set(range(10)) - closed)


def test_what_is_closed_already_stays_closed() -> None:
    *_, (_, closed) = close_all([1, 2, 3], frozenset({2, 7}), lambda units: 3 not in units)
    assert closed == {1, 2, 7}


# -- judging -----------------------------------------------------------------------------------------------------------


def test_margins_are_those_of_masked_forwards(shapes: vl.HookedVideoTransformer, judge: Judge) -> None:
    found = judge.judge(CLOSED)
    for i, prompt in enumerate(judge.prompts):
        logits = shapes.run_with_hooks(prompt, fwd_hooks=CLOSED.hooks(prompt))[:, -1]
        assert torch.allclose(found.margins[i], margins_of(logits, [prompt])[0], atol=1e-3)
        n = prompt.shape[1]
        whole = 11 * n * (n + 1) // 2 + n
        assert float(found.live_edges[i]) == pytest.approx(CLOSED.live_edges(prompt) / whole, 1e-5)
        assert torch.allclose(judge.full[i], margins_of(shapes(prompt)[:, -1], [prompt])[0], atol=1e-3)
    assert 0 < float(found.flops.min()) <= float(found.flops.max()) < 1
    live, flops = judge.sizes(CLOSED)
    assert (live, flops) == (pytest.approx(float(found.live_edges.mean())), pytest.approx(float(found.flops.mean())))


def test_a_pathway_that_depends_on_the_options_is_refused(judge: Judge) -> None:
    """Questions of one layout are judged by one token map, in which the right option stands somewhere else."""
    with pytest.raises(VideolensError, match="'by option' cuts 'video -> true option'"):
        judge.judge(RoutePathway(12, {"video -> true option": [3]}, name="by option"))


@pytest.fixture
def keeping(judge: Judge) -> Keeping:
    return Keeping(judge, 0.1)


def test_a_test_that_ends_early_says_the_same(judge: Judge, keeping: Keeping) -> None:
    margins = judge.judge(CLOSED).margins
    for needed in (float(margins.median()), float(margins.max()) + 1, -1e9):
        lost = int((margins < needed).sum())
        for most in {0, max(lost - 1, 0), min(lost, judge.n)}:
            fresh, fresh.needed = Keeping(judge, 0.1), needed
            assert fresh.test(CLOSED, most) == (lost <= most)
            assert fresh.effort.asked <= judge.n
    keeping.needed = 1e9
    assert not keeping.test(CLOSED, 0) and keeping.test(CLOSED, judge.n)
    assert keeping.effort.asked <= judge.n + 8, "it was asked on when that was decided"


some_units = st.frozensets(
    st.builds(Unit, st.integers(0, 11), st.none() | st.integers(0, 3), st.sampled_from(SEARCHED)), max_size=40
)


@settings(max_examples=4, deadline=None)
@given(walk=st.lists(some_units, min_size=2, max_size=4), room=st.sampled_from([None, 2**22]))
def test_what_a_kept_run_gives_is_what_the_pathway_gives(judge: Judge, walk: list[frozenset[Unit]], room: Any) -> None:
    """From any pathway to any other, with room for all runs and for some."""
    keeping = Keeping(judge, 0.0, room)
    keeping.needed = -1e9
    for units in walk:
        pathway = RoutePathway.of_units(12, units)
        before = keeping.effort
        assert keeping.test(pathway, 0)
        found = judge.judge(pathway)
        assert torch.allclose(keeping.margins, found.margins, atol=1e-3)
        cost = keeping.effort - before
        assert cost.operations <= float(found.flops.sum()) + 1e-6
    again = keeping.effort
    assert keeping.test(pathway, 0) and (room or keeping.effort.operations == again.operations)


def test_what_has_no_room_is_let_go_while_it_runs(judge: Judge) -> None:
    """`max_memory` bounds a test that passes, too: of questions that are not kept no layer's keys and values stay."""
    keeping = Keeping(judge, 0.0, 1)
    [layout, *_] = keeping._layouts
    assert layout.n_kept == 0
    seen = []
    run = type(layout).run

    def watched(self: Any, *given: Any) -> Any:
        seen.append(ran := run(self, *given))
        return ran

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(layout), "run", watched)
        keeping.needed = -1e9
        assert keeping.test(CLOSED, 0)
    layers = [one for ran in seen for one in ran.layers if one is not None]
    assert layers and all(len(each) == 0 for one in layers for each in (one.k, one.v, one.leaving))


def test_a_closed_edge_that_nobody_reads_costs_nothing(judge: Judge, keeping: Keeping) -> None:
    keeping.needed = -1e9
    closed = [Unit(layer, None, "part V -> part Q") for layer in range(12)]
    closed += [Unit(layer, None, "part V -> part A") for layer in range(12)]
    assert keeping.test(RoutePathway.of_units(12, closed), 0)
    before = keeping.effort
    assert keeping.test(RoutePathway.of_units(12, [*closed, Unit(5, None, "cross-part")]), 0)
    assert keeping.effort.operations == before.operations
    assert keeping.test(RoutePathway.of_units(12, [*closed, Unit(11, None, "part Q -> part A")]), 0)
    [share] = {round(float(x), 6) for x in [(keeping.effort - before).operations / judge.n]}
    assert 0 < share < 0.01, "one row of one layer"


@pytest.mark.parametrize("order", ["attribution", "last layer first", "random"])
def test_orders_have_every_unit_once(judge: Judge, order: str) -> None:
    units, _ = ordered(Judge(judge.model, judge.prompts[:2]), order, random.Random(1))
    assert sorted(units, key=str) == sorted((Unit(i, None, route) for i in range(12) for route in SEARCHED), key=str)
    assert order != "last layer first" or units[0].layer == 11


def test_finer_units(judge: Judge) -> None:
    heads, cost = ordered(Judge(judge.model, judge.prompts[:1]), "attribution", random.Random(1), heads=True)
    assert len(set(heads)) == 12 * 4 * 6 and cost > 0
    frames, _ = ordered(judge, "last layer first", random.Random(1), grain="frame pairs")
    assert len(set(frames)) == 12 * (8 * 9 // 2 + 8 + 1 + 8 + 1)
    whole = RoutePathway.of_units(12, [unit for unit in frames if unit.layer == 3])
    same = RoutePathway(12, {route: [3] for route in SEARCHED})
    assert torch.allclose(judge.judge(whole).margins, judge.judge(same).margins, atol=1e-3)
    by_head = RoutePathway.of_units(12, [unit for unit in heads if unit.layer == 3], n_heads=4)
    assert by_head == same
    single = RoutePathway.of_units(12, [unit for unit in heads if unit.layer == 3 and unit.head != 2], n_heads=4)
    assert pathway_from(single.to_dict()) == single and single.units == {
        unit for unit in heads if unit.layer == 3 and unit.head != 2
    }
    assert judge.sizes(same)[0] < judge.sizes(single)[0] < 1
    with pytest.raises(VideolensError, match="closes single heads"):
        single.live_edges(judge.prompts[0])


def test_what_is_searched_is_the_partition_without_part_p_and_the_answer_itself() -> None:
    left_out = {route for route in PARTITION if route.startswith("part P") or route == "part A -> part A"}
    assert set(SEARCHED) == set(PARTITION) - left_out and len(SEARCHED) == 6


def test_a_search_keeps_what_it_says_and_goes_on_where_it_was(judge: Judge, tmp_path: Path) -> None:
    order = [Unit(layer, None, route) for layer in reversed(range(5, 12)) for route in SEARCHED[2:]]
    file = tmp_path / "answers.jsonl"
    first = Keeping(judge, 0.1)
    found = list(search(first, order, "some", Answers(file, judge, 0.1)))
    assert [each.kept for each in found] == list(LEVELS)
    for each in found:
        pathway = RoutePathway.of_units(12, each.closed)
        right = judge.full > 0
        kept = judge.judge(pathway).margins[right] >= 0.1 * judge.full[right].median()
        assert int((~kept).sum()) <= (1 - each.kept) * int(right.sum()) + 1e-6
        assert each.live_edges < 1
    assert all(wide.closed >= narrow.closed for narrow, wide in pairwise(found))
    with file.open("a") as stream:
        stream.write('{"of": "')  # killed while it wrote
    again = Keeping(judge, 0.1)
    assert list(search(again, order, "some", Answers(file, judge, 0.1))) == found
    assert again.effort[:2] == first.effort[:2], "what the file had is not counted, or counted twice"
    assert again.effort.operations == pytest.approx(first.effort.operations)
    assert len(file.read_text().splitlines()) == first.effort.candidates + 1, "an answer was asked for again"
    with pytest.raises(VideolensError, match="another search"):
        Answers(file, judge, 0.2)
    file.write_text('{"of": 3}\n{"of": 3}\n')
    with pytest.raises(VideolensError, match="line 1, holds no answer"):
        Answers(file, judge, 0.1)


# -- the whole ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def found(shapes: vl.HookedVideoTransformer) -> vl.PathwaySearch:
    chosen = vl.Pathway.closed(
        n_layers=12, cross_frame=range(6), video_to_question=range(8), question_to_last=range(12)
    )
    return vl.find_pathway(
        shapes,
        asked("validation", 3),
        asked("test", 2),
        orders=["last layer first"],
        compare={"by hand": chosen},
        draws=2,
        progress=False,
    )


def test_the_smallest_that_keeps_enough_is_chosen(found: vl.PathwaySearch, shapes: vl.HookedVideoTransformer) -> None:
    front = found.front().set_index("pathway")
    enough = front.loc[[name for name in front.index if name in ("last layer first, 99 %", "last layer first, 98 %")]]
    assert found.share(found.settings.chosen) == pytest.approx(enough["live_edges"].min())
    assert {"by hand", "all closed"} <= set(front.index)
    assert {f"random cuts {i}" for i in (1, 2)} | {"tokens dropped"} == set(found.settings.controls) <= set(front.index)
    assert found.accuracy("full").value == 1 and found.settings.n_searched == 6 and found.n == 4
    assert found.share("all closed") < 0.05 < found.share(found.settings.chosen) < 0.8
    assert found.faithfulness(found.settings.chosen).value > 0.3
    [one] = asked("test", 1)[:1]
    prompt = shapes.prompt(one)
    logits = shapes.compile(found.pathway)(prompt)[:, -1]
    row = found.table.query("pathway == @found.settings.chosen").iloc[0]
    assert float(margins_of(logits, [prompt])[0]) == pytest.approx(row["margin"], abs=1e-3)


def test_controls_leave_as_much(found: vl.PathwaySearch, shapes: vl.HookedVideoTransformer) -> None:
    chosen = found.settings.chosen
    for name in ("random cuts 1", "random cuts 2"):
        # more of part P is live: all rows are
        assert found.share(chosen) <= found.share(name) <= found.share(chosen) + 0.05
    assert (
        found.share(chosen, "flops") - 0.01
        <= found.share("tokens dropped", "flops")
        <= found.share(chosen, "flops") + 0.002
    )
    prompt = shapes.prompt(asked("test", 1)[0])
    order, video = by_attention(shapes, prompt), prompt.tokens["video"]
    _, cache = shapes.run_with_cache(prompt, names_filter="blocks.1.attn.hook_pattern")
    attended = cache["blocks.1.attn.hook_pattern"][0, :, -1].mean(0)[video]
    assert torch.equal(attended[order], attended.sort().values)
    cut = dropped(shapes, prompt, 40)
    for layer, left in ((1, 128), (2, 40), (11, 40)):
        mask = torch.ones(1, 1, prompt.shape[1], prompt.shape[1], dtype=torch.bool).tril()
        for name, function in cut.hooks(prompt):
            if name == f"blocks.{layer}.attn.hook_mask":
                point = MaskPoint(name, 4).at(torch.arange(prompt.shape[1]), torch.arange(prompt.shape[1]))
                mask = function(mask, hook=point)
        assert int(mask[0, 0, -1, video].sum()) == left
    plan = shapes.compile(cut).plan(prompt)
    assert [len(one.entering) for one in plan.layers[:3]] == [prompt.shape[1], prompt.shape[1], prompt.shape[1] - 88]


def test_areas_over_size_are_those_of_the_curve(found: vl.PathwaySearch) -> None:
    for corrupt in ("all closed", "reversed clip"):
        curve = found.curve(corrupt=corrupt)
        assert curve["size"].is_monotonic_increasing and curve["faithfulness"].iloc[-1] == 1
        steps = curve["size"].diff()[1:].to_numpy()
        f = curve["faithfulness"].to_numpy()
        assert curve.attrs["CPR"] == pytest.approx(float((steps * (f[1:] + f[:-1]) / 2).sum()))
    assert found.faithfulness("all closed").value == 0


def test_it_is_saved_drawn_and_read_back(found: vl.PathwaySearch, tmp_path: Path) -> None:
    again = vl.PathwaySearch.load(found.save(tmp_path / "found"))
    assert again.pathway == found.pathway and again.table.equals(found.table)
    figure = again.figure()
    assert "none of which it was found on" in figure.get_supxlabel()
    bars = [drawn for drawn in figure.axes[0].containers if str(drawn.get_label()).startswith("found (")]
    assert bars and all(drawn.has_yerr for drawn in bars), "every point has its interval"
    assert found.settings.chosen in repr(found)


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        ({"keep_accuracy": 1.2}, VideolensError, r"keep_accuracy = 1.2: give a share between 0 and 1"),
        ({"keep_accuracy": 0.1}, VideolensError, r"keep_accuracy = 0.1: by chance alone"),
        ({"live_edges": 0.0}, VideolensError, "live_edges = 0.0: give a share"),
        ({"flops": 2}, VideolensError, "flops = 2: give a share"),
        ({"live_edges": 0.5, "flops": 0.5}, VideolensError, "ask for one of them"),
        ({"orders": ["attributoin"]}, VideolensError, "attribution"),
        ({"orders": []}, VideolensError, r"orders is \[\]"),
        ({"slack": 1.5}, VideolensError, "slack = 1.5"),
        ({"seed": -1}, VideolensError, "seed = -1"),
        ({"grain": "route"}, VideolensError, "routes"),
        ({"draws": -1}, VideolensError, "draws = -1"),
        ({"max_memory": 0}, VideolensError, "max_memory"),
        ({"compare": {"one": RoutePathway(12, {"video -> option A": [3]})}}, VideolensError, "'video -> option A'"),
        ({"compare": {"deep": RoutePathway(40, {"cross-part": [39]})}}, VideolensError, "40 layers, the model has 12"),
    ],
)
def test_requests_that_make_no_sense(
    shapes: vl.HookedVideoTransformer, given: dict[str, Any], error: type[Exception], said: str
) -> None:
    some = asked("test", 1)
    with pytest.raises(error, match=said):
        vl.find_pathway(shapes, some, some, progress=False, **given)


def test_questions_that_cannot_be_judged(shapes: vl.HookedVideoTransformer) -> None:
    [one] = asked("test", 1)[:1]
    unknown = vl.Question(one.video, one.stem, one.options)
    with pytest.raises(QuestionError, match="no known answer"):
        vl.find_pathway(shapes, [unknown], [one], progress=False)
    with pytest.raises(VideolensError, match="there are no questions"):
        vl.find_pathway(shapes, [], [one], progress=False)


# -- what pathways have in common ------------------------------------------------------------------------------------


def test_overlap_is_of_open_units() -> None:
    """Of 72 units each leaves two open, one of them in both."""
    every = {route: range(12) for route in SEARCHED}
    one = RoutePathway(12, every | {"cross-part": range(2, 12)})
    other = RoutePathway(12, every | {"cross-part": [0, *range(3, 12)]}, heads={"cross-part": {1: [0, 2]}})
    found = vl.pathway_overlap({"one": one, "other": other, "all": RoutePathway(12, {})})
    assert found.loc["one", "other"] == pytest.approx(1 / 3) and found.loc["one", "one"] == 1
    assert found.loc["all", "other"] == found.loc["other", "all"] == pytest.approx(2 / 72)
    assert found.attrs["shared"] == [("cross-part", 1)] and len(found.attrs["any"]) == 72
    with pytest.raises(VideolensError, match="1 pathways have nothing"):
        vl.pathway_overlap({"one": one})
    with pytest.raises(VideolensError, match="different depth or of different routes"):
        vl.pathway_overlap({"one": one, "by ranges": vl.Pathway.closed(n_layers=12)})


# -- pathways of closed routes -----------------------------------------------------------------------------------------


def test_closing_what_a_closed_pathway_closes_is_that_pathway(shapes: vl.HookedVideoTransformer) -> None:
    closed = vl.Pathway.closed(n_layers=12, cross_frame=[2, 3], video_to_question=[4, 5], question_to_last=[9])
    every = set(range(12))
    same = RoutePathway(
        12,
        {
            "cross-part": every - {2, 3},
            "own-part": range(6, 12),
            "part V -> part Q": every - {4, 5},
            "part Q -> part Q": range(10, 12),
            "part V -> part A": every,
            "part Q -> part A": every - {9},
        },
    )
    for question in asked("test", 1):
        prompt = shapes.prompt(question)
        for layer in range(12):
            # cross-part is closed in the upper layers by "part V -> part V" of the closed pathway, by name here
            assert torch.equal(same.allowed(prompt, layer), closed.allowed(prompt, layer)), layer
        assert same.live_edges(prompt) == closed.live_edges(prompt)
    assert pathway_from(same.to_dict()) == same and pathway_from(closed.to_dict()) == closed
    assert RoutePathway.of_units(12, same.units) == RoutePathway(12, dict(same.closed))


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        ((12, {"cross-part": [12]}), VideolensError, "12"),
        ((0, {}), VideolensError, "n_layers of a pathway is 0"),
        ((12, {"cross part": [1]}), SelectionError, "cross-part"),
        ((12, {}, {"cross-part": {12: [1]}}), VideolensError, "12"),
        ((12, {}, {"cross-part": {3: [-1]}}), VideolensError, "-1"),
    ],
)
def test_closed_routes_that_make_no_sense(given: Any, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        RoutePathway(*given[:2], heads=given[2] if len(given) > 2 else None)


def test_a_head_that_the_model_lacks(shapes: vl.HookedVideoTransformer) -> None:
    with pytest.raises(VideolensError, match="4"):
        shapes.compile(RoutePathway(12, {}, heads={"cross-part": {3: [4]}}))


def test_accuracy_along_closed_routes(shapes: vl.HookedVideoTransformer) -> None:
    found = vl.evaluate_pathway(shapes, asked("test", 1), CLOSED, seeds=1, progress=False)
    assert found.pathway == CLOSED and found.live_edges_kept.value < 1
    assert found.figure() is not None
    with pytest.raises(VideolensError, match="closde"):
        pathway_from({"n_layers": 12, "closed": {}, "closde": 3})
