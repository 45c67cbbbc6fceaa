"""SmolVLM2: what its prompts say of the clip, its two resizings, and its chat template."""

from __future__ import annotations

import pytest
import torch
from helpers.clips import clip
from helpers.families import CASES, family_named
from helpers.families.smolvlm import PREPROCESSOR, SIDE
from transformers.models.smolvlm.processing_smolvlm import DEFAULT_CHAT_TEMPLATE

import videolens as vl
from videolens.errors import ModelError
from videolens.model.families import Clock
from videolens.model.families.smolvlm import in_words, pixels
from videolens.model.vision.pixels import PixelSettings
from videolens.model.vision.squared import Squared
from videolens.prompt.chat_template import chat_template
from videolens.prompt.known_templates import template_named

CASE = CASES["smolvlm"]
NUMBERS = {
    0: "zero",
    8: "eight",
    13: "thirteen",
    20: "twenty",
    21: "twenty-one",
    64: "sixty-four",
    90: "ninety",
    100: "one hundred",
    105: "one hundred and five",
    999: "nine hundred and ninety-nine",
}


@pytest.mark.parametrize("n", NUMBERS)
def test_numbers_in_words(n: int) -> None:
    """As num2words 0.5 writes them."""
    assert in_words(n) == NUMBERS[n]


def test_more_than_there_are_words_for() -> None:
    with pytest.raises(ModelError, match=r"1000 frames are more .* fewer than 1000"):
        in_words(1000)
    assert len({in_words(n) for n in range(1000)}) == 1000


def text_of(clock: Clock) -> str:
    n = len(clock.seconds)
    layout = family_named("smolvlm").layout(CASE.plain.config, (n, 1, 1), clock)
    return "".join(piece.text if piece.text is not None else "#" * piece.n for piece in layout.pieces)


def test_times_and_the_length_of_the_clip() -> None:
    seconds = torch.tensor([0.0, 59.99, 61.0, 3725.4], dtype=torch.float64)
    said = text_of(Clock(seconds, 1.0, seconds, 3727.9))
    assert said.startswith("You are provided the following series of four frames from a 1:02:07 [H:MM:SS] video.\n\n")
    times = [line.partition(":<")[0] for line in said.splitlines() if line.startswith("Frame from")]
    assert times == ["Frame from 00:00", "Frame from 00:59", "Frame from 01:01", "Frame from 62:05"]
    assert said.count("<fake_token_around_image><global-img>#<fake_token_around_image>") == 4 and said.endswith("\n\n")
    # where the length is not known, the last frame's time is said, and frames a second apart where that is not either
    assert "from a 1:02:05 [" in text_of(Clock(seconds))
    assert "series of two frames from a 0:00:01 [" in text_of(Clock(torch.full((2,), torch.nan, dtype=torch.float64)))


def test_the_length_is_the_files_whatever_part_is_sampled() -> None:
    video = vl.Video.from_array(torch.cat([clip(40, 60, frames=4)] * 5), fps=2.0, n_frames=3, start=1.0, end=4.0)
    assert Clock.of(video).duration == 10.0
    assert "from a 0:00:10 [" in text_of(Clock.of(video))


def test_the_template_is_what_the_processor_writes_for_a_video() -> None:
    tokenizer = CASE.tokenizer()
    tokenizer.chat_template = DEFAULT_CHAT_TEMPLATE
    question = vl.Question(vl.Video.from_array(clip(40, 60, frames=2), fps=2.0), "What moves?", ["A ball", "A cube"])
    theirs, ours = (
        "".join(piece.text for piece in template.render(question, placeholder="<image>"))
        for template in (chat_template(tokenizer, "<image>"), template_named("smolvlm"))
    )
    assert ours == theirs
    assert CASE.ours.prompt(question).text == ours


def test_settings() -> None:
    found = pixels(PREPROCESSOR)
    assert isinstance(found, Squared) and (found.longest, found.levels.size) == (SIDE, (SIDE, SIDE))
    assert pixels({key: PREPROCESSOR[key] for key in PREPROCESSOR if key != "video_sampling"}).longest == 4 * SIDE
    assert isinstance(pixels({**PREPROCESSOR, "do_resize": False}), PixelSettings)
    with pytest.raises(ModelError, match=r"size \{'height': 5\} is not understood"):
        pixels({"size": {"height": 5}})
    with pytest.raises(ModelError, match="longer edge of 5000 pixels"):
        pixels({"size": {"longest_edge": 5000}})
    # one line of pixels is grown to two on the way: the shorter edge is even
    narrow = torch.randint(0, 256, (300, 3, 3), dtype=torch.uint8)
    assert found.frame(narrow).shape == (3, SIDE, SIDE)
