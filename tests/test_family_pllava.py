"""PLLaVA: its pool over time and space, and the paper's prompt."""

from __future__ import annotations

import pytest
import torch
from helpers.families import CASES
from helpers.families.case import relaid
from helpers.families.plain_pllava import CONFIG, EACH, FRAMES, IMAGE, SIDE, VIDEO
from helpers.parity import HuggingFaceReference, prove
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

from videolens import Question, Video
from videolens.model.transformer import HookedVideoTransformer

CASE = CASES["pllava"]


def test_frames_are_merged() -> None:
    for prompt in CASE.prompts(CASE.ours, (2 * FRAMES, IMAGE, IMAGE)):
        assert prompt.tokens.grid == (FRAMES, 2, 2) and prompt.tokens.merged == 2


def test_without_pooling_it_is_llava(tmp_path) -> None:
    """Transformers' LLaVA, whose images are the frames, wherever the pool leaves all as it is."""
    known = LlavaConfig(
        vision_config=CLIPVisionConfig(**CONFIG["vision_config"]),
        text_config=LlamaConfig(**{k: v for k, v in CONFIG["text_config"].items() if k[0] != "_"}),
        image_token_index=VIDEO,
    )
    llava = LlavaForConditionalGeneration(known).float()
    state = relaid(
        CASE.plain.state_dict(),
        ("vision_tower.vision_model.", "model.vision_tower."),
        ("multi_modal_projector.", "model.multi_modal_projector."),
        ("language_model.model.", "model.language_model."),
        ("language_model.lm_head.", "lm_head."),
    )
    llava.load_state_dict(state)
    directory = CASE.write(tmp_path, CASE.plain, pooling_shape=[FRAMES, SIDE, SIDE])
    ours = HookedVideoTransformer.from_pretrained(directory)
    inputs = lambda ids, pixels: {"input_ids": ids, "pixel_values": pixels.flatten(0, 1)}  # noqa: E731
    prove(ours, HuggingFaceReference(llava, inputs), CASE.prompts(ours))


@pytest.mark.parametrize("merged", [1, 2])
def test_the_prompt_of_a_question(merged) -> None:
    frames = torch.randint(0, 256, (FRAMES * merged, 20, 28, 3), dtype=torch.uint8)
    question = Question(Video.from_array(frames, fps=2.0), "Which way?", ["left", "right"], "left")
    prompt = CASE.ours.prompt(question)
    assert prompt.pixel_values.shape[2:] == (3, IMAGE, IMAGE)
    tokens = prompt.tokens
    assert len(tokens["video"]) == FRAMES * EACH and tokens.merged == merged
    assert tokens.seconds[tokens["video"]].unique().tolist() == question.video.seconds[::merged].tolist()
    text = CASE.ours.tokenizer.decode(prompt.input_ids[0])
    assert "\n USER: " + "<image>" * (FRAMES * EACH) + "\n USER: Question: Which way?" in text
    assert text.endswith("ASSISTANT:Best option:(")
