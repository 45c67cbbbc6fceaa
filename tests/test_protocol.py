"""What counts as an intervention, in whichever form it is given, and what is said of what does not."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from helpers.engine import Coneless, random_pair

import videolens as vl
from videolens.engine.stages import stage_interventions
from videolens.errors import SelectionError, VideolensError
from videolens.interventions.knockout import Knockout
from videolens.interventions.protocol import HookList, Intervention, as_interventions, described, is_declared

CFG = SimpleNamespace(n_layers=4, n_heads=2)
CUT = Knockout("video", "question", [1, 2])
PAIR, OTHER = ("blocks.1.hook_resid_pre", torch.relu), ("blocks.2.hook_resid_pre", abs)
EVERYWHERE = Knockout.route("cross-frame", layers=range(4))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (CUT, [CUT]),
        ([CUT], [CUT]),
        (iter([CUT, CUT]), [CUT, CUT]),
        ("cross-frame", [EVERYWHERE]),
        (("cross-frame", "stem -> last"), [EVERYWHERE, Knockout("stem", "last", range(4))]),
        ({"route": "video -> question", "layers": [2, 1]}, [CUT]),
        ({"route": "cross-frame", "layers": 3, "heads": [1]}, [Knockout.route("cross-frame", layers=3, heads=1)]),
        (PAIR, [HookList((PAIR,))]),
        ([PAIR, OTHER], [HookList((PAIR, OTHER))]),
        ([[PAIR, OTHER]], [HookList((PAIR, OTHER))]),
        ([CUT, PAIR, "cross-frame", [OTHER]], [CUT, HookList((PAIR,)), EVERYWHERE, HookList((OTHER,))]),
    ],
)
def test_every_form_is_a_list_of_interventions(given: Any, expected: list[Any]) -> None:
    found = as_interventions(given, CFG)
    assert found == expected
    assert [is_declared(each) for each in found] == [isinstance(each, Knockout) for each in expected]


def test_routes_by_name_are_cut_where_layers_says_and_data_where_it_says_itself() -> None:
    found = as_interventions(["cross-frame", {"route": "stem -> last", "layers": [0]}, CUT], CFG, layers=[3])
    assert found == [Knockout.route("cross-frame", layers=3), Knockout("stem", "last", 0), CUT]


@pytest.mark.parametrize(
    ("given", "kind", "says"),
    [
        ([], VideolensError, r"blocked are empty: give at least one, such as 'cross-frame'"),
        (None, VideolensError, r"blocked has None, which is no intervention: give .*\.hooks\(prompt\)"),
        ([CUT, 3], VideolensError, r"blocked has 3, .*pairs \(hook point, function\)"),
        ([[]], VideolensError, r"blocked has \[\], which is no intervention"),
        ([[CUT]], VideolensError, r"blocked has \[Knockout"),
        ([("blocks.1.hook_resid_pre",)], VideolensError, r"blocked has \('blocks.1.hook_resid_pre',\)"),
        ("cross-frames", SelectionError, r"cross-frames.*'cross-frame'"),
        (["video -> question", "video -> questoin"], SelectionError, r"questoin.*'video -> question'"),
        ({"route": "cross-frame"}, VideolensError, r"blocked has \{'route': 'cross-frame'\}: .* layers"),
        ({"route": "cross-frame", "layers": [1], "head": 2}, VideolensError, r"'head': 2.* heads"),
        ({"route": "cross-frame", "layers": [4]}, VideolensError, r"layer 4 .* 0 … 3"),
        ([CUT, Knockout("video", "last", 1, heads=2)], VideolensError, r"head 2 .* 0 … 1"),
        (vl.Pathway.closed(n_layers=5), VideolensError, r"5 layers, the model has 4"),
    ],
)
def test_what_is_no_intervention_of_this_model_is_one_clear_error(given: Any, kind: type, says: str) -> None:
    with pytest.raises(kind, match=f"(?s){says}"):
        as_interventions(given, CFG, called="blocked")


def test_nothing_is_allowed_where_it_is_optional() -> None:
    assert as_interventions((), CFG, optional=True) == []


def test_interventions_in_words() -> None:
    words = {
        "cross-frame, all layers": EVERYWHERE,
        "video ↛ question, layers 2–3": CUT,
        "stem ↛ last, layers 1, 4, heads 0, 1 (from 0)": Knockout("stem", "last", [0, 3], heads=[0, 1]),
        "part V ↛ part V of later frames, layers 2": Knockout.route("cross-part", layers=1),
        "Pathway closed": vl.Pathway.closed(n_layers=4),
        "hook functions": HookList((PAIR,)),
    }
    assert {described(each, 4) for each in words.values()} == set(words)
    assert all(described(each, 4) == said for said, each in words.items())


def test_interventions_of_one_element_hold_at_once() -> None:
    model, prompt = random_pair("grouped heads")
    late = Knockout("stem", "last", [3])
    elements = [[CUT, late], CUT, late, [CUT, Coneless(late)], "stem -> last", []]
    both, first, second, coneless, named, nothing = stage_interventions(model, prompt, elements)
    assert isinstance(CUT, Intervention) and not isinstance(Coneless(CUT), Intervention)
    assert (both.first_row, first.first_row, second.first_row) == (18, 18, 24)
    assert both.hooks == first.hooks + second.hooks
    assert (coneless.first_row, coneless.hooks) == (None, both.hooks) and nothing.first_row is None
    assert len(named.hooks) == model.cfg.n_layers and named.first_row == second.first_row
