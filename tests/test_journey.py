"""The picture that a stranger sees first says what the flow map says."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

import videolens as vl
from videolens.experiments.common.scoring import option_probabilities
from videolens.pages.clips import AnsweredClip
from videolens.pages.journey import STEPS, journey

EVIL = "<b>Which</b> way does the <i>yellow</i> circle move?"


@pytest.fixture(scope="module")
def model() -> vl.HookedVideoTransformer:
    return vl.HookedVideoTransformer.from_pretrained("shapes")


@pytest.fixture(scope="module")
def asked() -> list[vl.Question]:
    return vl.load_dataset("shapes", split="validation", task="moving direction", n=4)


def clip_of(model: vl.HookedVideoTransformer, question: vl.Question) -> AnsweredClip:
    shares = tuple(option_probabilities(model, model.prompt(question)).tolist())
    return AnsweredClip(question=question, shares={"shapes": shares}, said={})


def test_every_step_has_the_maps_number(model, asked) -> None:
    flow = vl.trace_flow(model, asked, samples="all", progress=False)
    html = journey(clip_of(model, asked[0]), flow, explorer="explorer.html")
    falls = re.findall(r'class="fall">(\S+) %', html)
    assert [float(fall.replace("−", "-")) for fall in falls] == [round(flow.peak(route)[1].value) for route in STEPS]
    for route in STEPS:
        cut = [layer + 1 for layer in flow.settings.cuts[flow.peak(route)[0]]]
        assert f"is cut in layers {cut[0]}–{cut[-1]} of 12" in html
    assert f"“{asked[0].answer}”" in html and "which is right" in html
    assert html.count("<img") == 3 and 'href="explorer.html"' in html


def test_a_wrong_answer_is_called_wrong(model, asked) -> None:
    question = asked[0]
    other = next(option for option in question.options if option != question.answer)
    flow = vl.trace_flow(model, question, samples="all", progress=False)
    clip = replace(clip_of(model, question), question=replace(question, answer=other, stem=EVIL))
    html = journey(clip, flow, explorer="explorer.html")
    assert "which is wrong" in html and "<i>" not in html


def test_routes_that_were_not_traced_are_left_out(model, asked) -> None:
    flow = vl.trace_flow(model, asked[:2], routes=["question -> last"], samples="all", progress=False)
    html = journey(clip_of(model, asked[0]), flow, explorer="explorer.html")
    assert html.count('class="fall"') == 1 and "Straight from the video" not in html


def test_the_straight_way_is_called_nothing_only_if_that_is_sure(model, asked) -> None:
    flow = vl.trace_flow(model, asked, routes=["video -> last"], samples="all", progress=False)
    html = journey(clip_of(model, asked[0]), flow, explorer="explorer.html")
    _, peak = flow.peak("video -> last")
    assert ("next to nothing" in html) == (peak.low >= -3 and peak.high <= 3)
