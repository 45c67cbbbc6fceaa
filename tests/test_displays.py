"""What objects look like in a notebook: one picture each, true to the object, with text that stays text."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.prompts import tiny_model, tiny_prompt

import videolens as vl
from videolens.displays.masks import NAMES, example, pictures
from videolens.experiments import declarations
from videolens.notebook import Shown

EVIL = "<img src=x onerror=alert(1)> & which way?"


@pytest.fixture(scope="module")
def model() -> vl.HookedVideoTransformer:
    return vl.HookedVideoTransformer.from_pretrained("shapes")


@pytest.fixture(scope="module")
def question() -> vl.Question:
    [found] = vl.load_dataset("shapes", split="validation", task="moving direction", n=1)
    return found


def test_a_video_is_a_filmstrip_with_times(question) -> None:
    html = question.video._repr_html_()
    assert html.count("<img") == 8
    assert re.findall(r"(\d+\.\d\d) s<", html) == [f"{at:.2f}" for at in question.video.seconds.tolist()]
    long = vl.Video.from_array(np.zeros((100, 8, 8, 3), np.uint8))
    assert long._repr_html_().count("<img") == 8


def test_a_question_ticks_the_right_option_and_nothing_else(question) -> None:
    html = question._repr_html_()
    assert re.findall(r"<li>([^<]*) ✓</li>", html) == [question.answer]
    assert html.count("<li>") == len(question.options)
    evil = replace(question, stem=EVIL)._repr_html_()
    assert "<img src=x" not in evil and "&lt;img src=x onerror=alert(1)&gt;" in evil
    assert "✓" not in question.open_ended()._repr_html_()


def test_a_prompt_is_its_text_by_role(model, question) -> None:
    prompt = model.prompt(question)
    html = prompt._repr_html_()
    assert "video: 8 frames × 4 × 4" in html
    [stem] = re.findall(r'<span title="stem"[^>]*>([^<]*)</span>', html)
    assert stem.strip() == question.stem
    assert vl.Prompt.batch([prompt, prompt])._repr_html_().count("video: 8 frames") == 1


def test_a_prompt_without_texts_shows_ids() -> None:
    tiny = tiny_model()
    prompt = tiny_prompt(tiny)
    assert str(int(prompt.input_ids[0, -1])) in prompt._repr_html_()


def test_a_token_map_lists_every_position_once(model, question) -> None:
    tokens = model.prompt(question).tokens
    rows = re.findall(r"</span> (\w+)</td><td>(\d+)(?:–(\d+))?</td><td>(\d+)</td>", tokens._repr_html_())
    covered = [at for _, a, b, _ in rows for at in range(int(a), int(b or a) + 1)]
    assert covered == list(range(tokens.n_pos))
    assert all(tokens.roles[int(a)] == role for role, a, _, _ in rows)


@pytest.mark.parametrize("route", ["cross-frame", "video -> last", "video -> true option", "within-frame"])
def test_a_mask_picture_cuts_what_the_knockout_cuts(route: str) -> None:
    knockout = vl.Knockout.route(route, layers=[2, 3, 7])
    [(layers, mask)] = pictures(knockout)
    assert layers == "layers 3, 4, 8" or "3" in layers
    expected = torch.ones(len(NAMES), len(NAMES), dtype=torch.bool).tril()
    knockout.close(expected, example().tokens)
    assert torch.equal(mask & expected.new_ones(mask.shape).tril(), expected)
    html = knockout._repr_html_()
    cut = int((torch.ones_like(expected).tril() & ~expected).sum())
    assert html.count('fill="#D55E00"') == cut > 0


def test_a_knockout_of_one_head_shows_that_head() -> None:
    [(_, of_head)] = pictures(vl.Knockout.route("video -> last", layers=[1], heads=[2]))
    [(_, of_all)] = pictures(vl.Knockout.route("video -> last", layers=[1]))
    assert torch.equal(of_head, of_all)


def test_a_pathway_has_a_picture_for_every_different_layer() -> None:
    pathway = vl.Pathway.closed(n_layers=6, cross_frame=[0, 1], video_to_question=[2, 3], question_to_last=[4])
    found = pictures(pathway)
    assert (
        len({tuple(mask.flatten().tolist()) for _, mask in found}) == len(found) == pathway._repr_html_().count("<svg")
    )


def test_a_knockout_of_what_only_a_real_prompt_has_keeps_its_repr() -> None:
    assert vl.Knockout("frame 7", "last", layers=[0])._repr_html_() is None


def test_a_plan_says_both_costs(model, question) -> None:
    plan = vl.plan_flow(model, question)
    html = plan._repr_html_()
    assert f"{plan.forwards:.1f} forwards" in html and f"{plan.full_forwards} forwards" in html


def test_a_result_is_its_figure_and_what_was_asked(model, question) -> None:
    flow = vl.trace_flow(model, question, routes=["video -> last"], samples="all", progress=False)
    html = flow._repr_html_()
    assert html.count("data:image/png;base64,") == 1 and repr(flow).replace("'", "&#39;") in html
    assert "\n" not in repr(flow)


def test_every_result_and_everything_that_is_made_by_hand_shows_itself() -> None:
    results = [each.result_class for each in declarations().values()]
    for kind in (vl.Video, vl.Question, vl.Prompt, vl.TokenMap, vl.Knockout, vl.Pathway, *results):
        assert issubclass(kind, Shown) or hasattr(kind, "_repr_html_"), kind
