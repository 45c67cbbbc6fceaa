"""InternVLChat: which rotary factors count, its context, its placeholder, and the clip as one image."""

from __future__ import annotations

import pytest
import torch
from helpers.checkpoints import write_state
from helpers.families import CASES
from helpers.families.internvl_chat import CONTEXT, EACH, IDS, LONG, SHORT
from helpers.families.plain_internvl_chat import CONFIG, IMAGE, ORIGINAL

from videolens import Question, Video
from videolens.errors import ModelError, VideolensError
from videolens.model.transformer import HookedVideoTransformer
from videolens.prompt.known_templates import template_named

CASE = CASES["internvl_chat"]
FRAMES = CASE.shape[0]


@pytest.fixture
def model() -> HookedVideoTransformer:
    return CASE.ours


def test_long_prompts_turn_by_other_factors(model) -> None:
    short, long = CASE.prompts(model, words=(SHORT[0], LONG[0]))
    assert short.shape[1] <= ORIGINAL < long.shape[1]
    assert not torch.allclose(long.rotary[0][:, : short.shape[1]], short.rotary[0])


@torch.no_grad()
def test_frequencies_do_not_change_while_writing(model) -> None:
    (prompt,) = CASE.prompts(model, words=(ORIGINAL - 18 - 4,))  # four tokens short of the change
    assert prompt.shape[1] == ORIGINAL - 4
    assert model.generate(prompt, 5, stop_at_eos=False).tokens.shape == (1, 5)
    with pytest.raises(ModelError, match=r"cross position 64,.* at most 5 new tokens"):
        model.generate(prompt, 6, stop_at_eos=False)


def test_a_sliding_window_is_the_context(tmp_path) -> None:
    text = CONFIG["llm_config"] | {"sliding_window": 40}
    ours = HookedVideoTransformer.from_pretrained(CASE.write(tmp_path, CASE.plain, llm_config=text))
    assert ours.cfg.n_ctx == 40
    with pytest.raises(VideolensError, match="more than the context of 40"):
        CASE.prompts(ours, words=LONG[:1])


def test_the_placeholder_must_be_a_token_of_the_decoder(tmp_path) -> None:
    directory = write_state(tmp_path, CASE.plain.state_dict(), CONFIG)  # no tokenizer: 32013 as published
    with pytest.raises(ModelError, match="<IMG_CONTEXT> is token 32013"):
        HookedVideoTransformer.from_pretrained(directory)
    write_state(tmp_path, CASE.plain.state_dict(), CONFIG | {"img_context_token_id": CONTEXT})
    assert HookedVideoTransformer.from_pretrained(directory).frontend.video_token == CONTEXT


def test_the_video_is_one_image(model) -> None:
    frames = torch.randint(0, 256, (FRAMES, 20, 28, 3), dtype=torch.uint8)
    question = Question(Video.from_array(frames, fps=2.0), "Which way?", ["left", "right"], "left")
    assert model.pixels(question.video.frames).shape == (FRAMES, 3, IMAGE, IMAGE)
    prompt = model.prompt(question, template=template_named("vicuna").with_system(""))
    tokens = prompt.tokens
    assert tokens.grid == (FRAMES, 2, 2)
    text = model.tokenizer.decode(prompt.input_ids[0])
    assert "<img>" + "<IMG_CONTEXT>" * (FRAMES * EACH) + "</img>\n USER:" in text
    opening, closing = tokens["separator"].tolist()
    assert tokens["video"].tolist() == list(range(opening + 1, closing))
    assert (tokens.frame[opening], tokens.frame[closing]) == (0, FRAMES - 1)
    assert prompt.input_ids[0, [opening, closing]].tolist() == [IDS["<img>"], IDS["</img>"]]
