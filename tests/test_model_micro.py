"""The micro model of helpers/micro.py: every number below can be worked out on paper."""

from __future__ import annotations

import pytest
import torch
from helpers.micro import BALL_BLUE, BALL_RED, BLANK, BLUE, RED, SEEKER, micro_model, micro_prompt

from videolens.interventions.knockout import Knockout

VIDEO_TOKENS, SEEKING, QUESTION_AT, LAST_AT = range(4), 3, 4, 6


@pytest.fixture(scope="module")
def model():
    return micro_model()


def colour_logits(logits: torch.Tensor) -> list[list[float]]:
    """Logits of RED and BLUE at every position."""
    return logits[0, :, [RED, BLUE]].tolist()


@pytest.mark.parametrize(("ball", "taken"), [(BALL_RED, [2.0, 0.0]), (BALL_BLUE, [0.0, 2.0])])
def test_the_colour_travels_from_frame_to_frame_to_question_to_last(model, ball, taken) -> None:
    prompt = micro_prompt(model, (BLANK, ball), (BLANK, SEEKER))
    assert prompt.shape == (1, 7)
    assert prompt.tokens["last"].tolist() == [LAST_AT]
    nothing = [0.0, 0.0]
    # the seeker, the question and the last token have taken it; blank patches, ball and suffix have nothing
    expected = [nothing, nothing, nothing, taken, taken, nothing, taken]
    assert colour_logits(model(prompt)) == expected
    with model.attention_path("eager"):
        assert colour_logits(model(prompt)) == expected


def test_who_looks_at_whom(model) -> None:
    prompt = micro_prompt(model, (BLANK, BALL_RED), (BLANK, SEEKER))
    _, cache = model.run_with_cache(prompt)
    half = [0.5, 0.0, 0.5, 0.0, 0.0, 0.0, 0.0]  # the two blank patches alike
    third = pytest.approx([1 / 3, 0.0, 1 / 3, 0.0, 0.0, 1 / 3, 0.0])  # and the suffix, which is blank too
    only = torch.eye(7).tolist()
    expected = [
        [only[0], only[0], half, only[1], half, third, third],  # layer 0: the seeker at the ball
        [only[0], only[0], half, half, only[3], third, third],  # layer 1: the question at the seeker
        [only[0], only[0], half, half, half, third, only[4]],  # layer 2: the last at the question
    ]
    for layer in range(3):
        pattern = cache["pattern", layer][0, 0].tolist()
        for row in range(7):
            assert pattern[row] == expected[layer][row], (layer, row)


def test_the_residual_stream_holds_what_the_table_says(model) -> None:
    prompt = micro_prompt(model, (BLANK, BALL_RED), (BLANK, SEEKER))
    _, cache = model.run_with_cache(prompt, names_filter=lambda name: "resid" in name or "scale" in name)
    written = torch.zeros(3, 7, 16)
    for layer, row in enumerate((SEEKING, QUESTION_AT, LAST_AT)):
        written[layer, row, [10, 12, 13]] = 4.0
    for layer in range(3):
        assert torch.equal(cache["resid_post", layer][0], prompt.residual[0] + written[: layer + 1].sum(0))
    assert cache["ln_final.hook_scale"].flatten().tolist() == [1, 1, 1, 2, 2, 1, 2]


CUTS = [
    # route, layer, the logit of RED at seeker, question and last
    ("cross-frame", 0, (0.0, 0.0, 0.0)),
    ("cross-frame", 1, (2.0, 2.0, 2.0)),
    ("video -> question", 1, (2.0, 0.0, 0.0)),
    ("video -> question", 0, (2.0, 2.0, 2.0)),
    # with no blank patch left to look at, the question looks at itself and takes its colour twice: 8 / √13
    ("video -> question", 2, (2.0, 8 / 13**0.5, 2.0)),
    ("question -> last", 2, (2.0, 2.0, 0.0)),
    ("question -> last", 1, (2.0, 2.0, 2.0)),
    ("video -> last", 2, (2.0, 2.0, 2.0)),
    ("last -> last", 2, (2.0, 2.0, 2.0)),
    ("stem -> last", 2, (2.0, 2.0, 0.0)),
    ("video -> stem", 1, (2.0, 0.0, 0.0)),
]


@pytest.mark.parametrize("path", ["sdpa", "eager"])
@pytest.mark.parametrize(("route", "layer", "red"), CUTS)
def test_cutting_a_route_stops_the_colour_there_and_nowhere_else(model, route, layer, red, path) -> None:
    prompt = micro_prompt(model, (BLANK, BALL_RED), (BLANK, SEEKER))
    cut = Knockout.route(route, layers=[layer])
    with model.attention_path(path):
        logits = colour_logits(model.run_with_hooks(prompt, fwd_hooks=cut.hooks(prompt)))
    assert [logits[row][0] for row in (SEEKING, QUESTION_AT, LAST_AT)] == pytest.approx(red, rel=1e-7, abs=0)
    assert all(blue == 0.0 for _, blue in logits)


def test_no_seeker_no_answer_and_the_reversed_clip_has_none(model) -> None:
    blank = micro_prompt(model, (BLANK, BALL_RED), (BLANK, BLANK))
    backwards = micro_prompt(model, (BLANK, SEEKER), (BLANK, BALL_RED))
    for prompt in (blank, backwards):
        assert colour_logits(model(prompt))[LAST_AT] == [0.0, 0.0]


def test_patching_the_question_of_another_clip_carries_its_colour(model) -> None:
    red = micro_prompt(model, (BLANK, BALL_RED), (BLANK, SEEKER))
    blue = micro_prompt(model, (BLANK, BALL_BLUE), (BLANK, SEEKER))
    _, cache = model.run_with_cache(blue, names_filter="blocks.1.hook_resid_post")

    def patch(resid, hook):
        resid[:, QUESTION_AT] = cache["resid_post", 1][:, QUESTION_AT]
        return resid

    logits = model.run_with_hooks(red, fwd_hooks=[("blocks.1.hook_resid_post", patch)])
    assert colour_logits(logits)[SEEKING] == [2.0, 0.0]
    assert colour_logits(logits)[LAST_AT] == [0.0, 2.0]
