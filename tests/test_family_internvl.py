"""InternVL in transformers' layout: where the words around each frame belong, and square frames."""

from __future__ import annotations

import pytest
import torch
from helpers.families import CASES, family_named
from helpers.families.internvl import PREPROCESSOR, SIDE

from videolens import Question, Video
from videolens.model.transformer import HookedVideoTransformer
from videolens.prompt.known_templates import template_named

FRAMES, EACH = 3, 4


@pytest.fixture
def model() -> HookedVideoTransformer:
    return CASES["internvl"].ours


@pytest.fixture(scope="module")
def question() -> Question:
    frames = torch.randint(0, 256, (FRAMES, 20, 28, 3), dtype=torch.uint8)
    return Question(Video.from_array(frames, fps=2.0), "Which way?", ["left", "right"], "left")


def test_words_around_a_frame_belong_to_it(model, question) -> None:
    prompt = model.prompt(question, template=template_named("vicuna").with_system(""))
    text = model.tokenizer.decode(prompt.input_ids[0])
    one = "<img>" + "<IMG_CONTEXT>" * EACH + "</img>"
    assert "\n".join(f"Frame{i + 1}: {one}" for i in range(FRAMES)) + "\n USER:" in text
    tokens = prompt.tokens
    assert tokens.grid == (FRAMES, 2, 2) and len(tokens["video"]) == FRAMES * EACH
    for frame in range(FRAMES):
        at = (tokens.frame == frame).nonzero().flatten().tolist()
        assert at == list(range(at[0], at[-1] + 1))
        end = "\n" if frame < FRAMES - 1 else ""
        assert model.tokenizer.decode(prompt.input_ids[0, at]) == f"Frame{frame + 1}: {one}{end}"
        assert tokens.seconds[at].unique().tolist() == [frame / 2]
    assert model.tokenizer.decode(prompt.input_ids[0, tokens["timestamp"]]) == "Frame1: Frame2: Frame3: "
    assert model.tokenizer.decode(prompt.input_ids[0, tokens["separator"]]) == "<img></img>\n<img></img>\n<img></img>"


def test_frames_are_squares_and_nothing_is_cut_off(model, question) -> None:
    assert model.pixels(question.video.frames).shape == (FRAMES, 3, SIDE, SIDE)
    cut = family_named("internvl").pixels(PREPROCESSOR | {"do_center_crop": None})
    assert cut.crop is None and cut.size == (SIDE, SIDE)
