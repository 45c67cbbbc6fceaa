"""Published prompts, character by character; and those that checkpoints bring along."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from helpers.families import each_family, family_named
from helpers.families.qwen import PREPROCESSOR, SPECIAL, tiny_qwen2_vl
from helpers.parity import byte_tokenizer, write_module

from videolens import Question, Video
from videolens.errors import PromptError
from videolens.model.transformer import HookedVideoTransformer
from videolens.prompt.chat_template import chat_template
from videolens.prompt.known_templates import TEMPLATES, template_named
from videolens.prompt.template import PromptTemplate

OWN_WORDS = ("internvl", "llava_onevision", "perception_lm", "qwen2_5_vl", "qwen2_vl", "qwen3_vl", "video_llama_3")
OWN_WORDS = (*OWN_WORDS, "videollama3_qwen2")
"""Families whose checkpoints bring a chat template."""
VIDEO = Video.from_array(np.zeros((4, 32, 32, 3), dtype=np.uint8), fps=2)
ASKED = Question(VIDEO, "Which way does it move?", ["left", "right"], "right")
OPEN = Question(VIDEO, "Which way does it move?", completion="It moves to the")
MVBENCH = (
    "Carefully watch the video and pay attention to the cause and sequence of events, the detail and movement of "
    "objects, and the action and pose of persons. Based on your observations, select the best option that accurately "
    "addresses the question."
)
LISTED = "Question: Which way does it move?\nOptions:\n(A) left\n(B) right"
BARE = "Question: Which way does it move?"
LLAMA3 = "You are VideoLLaMA3 created by Alibaba DAMO Academy, a helpful assistant to help people understand images "
SHUSHENG = "你是书生·万象，英文名是InternVL，是由上海人工智能实验室、清华大学及多家合作单位联合开发的多模态大语言模型。"
MULTIPLE_CHOICE = {
    "vicuna": f"{MVBENCH}\n USER: <v>\n USER: {LISTED} \nOnly give the best option. ASSISTANT:Best option:(",
    "videomme": f"{MVBENCH}\n USER: <v>\n USER: {LISTED} \nOnly give the best option. ASSISTANT:Best option:",
    "shapes": "Watch the video and answer the question.\n USER: <v>\n USER: Question: Which way does it move? Options: "
    "(A) left (B) right \nOnly give the best option. ASSISTANT:Best option:(",
    "internvl": f"{MVBENCH}\n <|user|>\n<v>\n <|user|>\n{LISTED} \nOnly give the best option. <|assistant|>\n"
    "Best option:(",
    "internvl2_5": f"<|im_start|>system\n{SHUSHENG}<|im_end|>\n<|im_start|>user\n<v>\n{LISTED}\nOnly give the best "
    "option.<|im_end|>\n<|im_start|>assistant\nBest option:(",
    "qwen_1_5": f"<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n<v>\n{LISTED}\nOnly "
    "give the best option.<|im_end|>\n<|im_start|>assistant\nBest option:(",
    "smolvlm": f"<|im_start|>User: <v>{LISTED}\nOnly give the best option.<end_of_utterance>\nAssistant:Best option:(",
    "videollama3": f"<|im_start|>system\n{LLAMA3}and videos.<|im_end|>\n<|im_start|>user\n<v>\n{LISTED}\nOnly give the "
    "best option.<|im_end|>\n<|im_start|>assistant\nBest option:(",
}
OPEN_ENDED = {
    "vicuna": f"{MVBENCH}\n USER: <v>\n USER: {BARE} ASSISTANT: It moves to the",
    "videomme": f"{MVBENCH}\n USER: <v>\n USER: {BARE} ASSISTANT: It moves to the",
    "shapes": f"Watch the video and answer the question.\n USER: <v>\n USER: {BARE} ASSISTANT: It moves to the",
    "internvl": f"{MVBENCH}\n <|user|>\n<v>\n <|user|>\n{BARE} <|assistant|>\nIt moves to the",
    "internvl2_5": f"<|im_start|>system\n{SHUSHENG}<|im_end|>\n<|im_start|>user\n<v>\n{BARE}<|im_end|>\n"
    "<|im_start|>assistant\nIt moves to the",
    "vcgbench": "You are Video-ChatGPT, a large vision-language assistant. You are able to understand the video "
    "content that the user provides, and assist the user with a variety of tasks using natural language.Follow the "
    "instructions carefully and explain your answers in detail based on the provided video. USER: <v>\n USER: Which "
    "way does it move? ASSISTANT: It moves to the",
    "qwen_1_5": f"<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n<v>\n{BARE}<|im_end|>\n"
    "<|im_start|>assistant\nIt moves to the",
    "smolvlm": f"<|im_start|>User: <v>{BARE}<end_of_utterance>\nAssistant: It moves to the",
    "videollama3": f"<|im_start|>system\n{LLAMA3}and videos.<|im_end|>\n<|im_start|>user\n<v>\n{BARE}<|im_end|>\n"
    "<|im_start|>assistant\nIt moves to the",
}


def words(template: PromptTemplate, question: Question) -> str:
    return "".join(piece.text for piece in template.render(question, placeholder="<v>"))


@pytest.mark.parametrize("name", TEMPLATES)
def test_templates_character_by_character(name: str) -> None:
    template = template_named(name)
    assert words(template, OPEN) == OPEN_ENDED[name]
    if name == "vcgbench":
        with pytest.raises(PromptError, match="'vcgbench' is for open-ended questions"):
            template.render(ASKED)
    else:
        assert words(template, ASKED) == MULTIPLE_CHOICE[name]


@each_family
def test_every_family_names_a_template_there_is(name: str) -> None:
    family = family_named(name)
    assert family.template is None or family.template in TEMPLATES
    assert (family.template is None) == (name in OWN_WORDS)


_TURN = "{{'<|im_start|>' + message['role'] + '\n'}}"
_TEXT = "{% elif content['type'] == 'text' %}{{ content['text'] }}{% endif %}{% endfor %}{{'<|im_end|>\n'}}{% endfor %}"
_END = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
_EACH = "{% for message in messages %}"
_SYSTEM = (
    "{% if loop.first and message['role'] != 'system' %}<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    "{% endif %}"
)


def writing(video: str, *, system: str = "") -> str:
    """A chat template of the common form."""
    many = "{% for content in message['content'] %}{% if content['type'] == 'video' %}"
    return _EACH + system + _TURN + many + video + _TEXT + _END


SYSTEM = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
# per kind: what the template writes for a video, what the model's placeholder is, what then stands around the video
KINDS = {
    "qwen2_vl": (
        writing("<|vision_start|><|video_pad|><|vision_end|>", system=_SYSTEM),
        "<|video_pad|>",
        SYSTEM + "<|im_start|>user\n<|vision_start|><v><|vision_end|>",
    ),
    "llava_onevision": (writing("<video>\n"), "<video>", "<|im_start|>user\n<v>\n"),
    "internvl": (writing("{{ '<video>\n' }}"), "<IMG_CONTEXT>", "<|im_start|>user\n<v>\n"),
    "video_llama_3": (writing("{{ video_token + '\n' }}"), "<|video_pad|>", "<|im_start|>user\n<v>\n"),
    "videollama3_qwen2": (
        writing("{% for i in range(content['num_frames']) %}{{ image_token + '\n' }}{% endfor %}"),
        "<image>",
        "<|im_start|>user\n<v>\n",
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_chat_templates(kind: str) -> None:
    text, placeholder, around = KINDS[kind]
    tokenizer = byte_tokenizer([*SPECIAL, placeholder], chat_template=text)
    template = chat_template(tokenizer, placeholder)
    turn = "<|im_end|>\n<|im_start|>assistant\n"
    assert words(template, ASKED) == f"{around}{LISTED}\nOnly give the best option.{turn}Best option:("
    assert words(template, OPEN) == f"{around}{BARE}{turn}It moves to the"
    roles = [piece.role for piece in template.render(ASKED)]
    expected = ["system", "video", "glue", "header", "stem", "header", "option", "header", "option", "suffix"]
    assert roles == [role for role in expected if role != "glue" or not around.endswith("<v>")]
    assert template.continuations(Question(VIDEO, "Where?", answer="left"))[0] == "left"


def test_a_beginning_is_not_written_twice_and_braces_are_text() -> None:
    text = "{{ bos_token }}" + writing("<video>", system="{{ '{stem} {' }}")
    tokenizer = byte_tokenizer(["<video>"], bos="<s>", chat_template=text, prepend_bos=True)
    assert words(chat_template(tokenizer, "<video>"), ASKED).startswith("{stem} {<|im_start|>user\n<v>Question: ")
    plain = byte_tokenizer(["<video>"], bos="<s>", chat_template=text)
    assert words(chat_template(plain, "<video>"), ASKED).startswith("<s>{stem} {")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "tiny: its tokenizer files hold no chat template: choose one of"),
        (_EACH + _TURN + "{{ message['content'] + 'x' }}{% endfor %}", "cannot be rendered"),
        (_EACH + "{{ message['content'][1]['text'] }}{% endfor %}", "writes the video 0 times"),
        (writing("<video><video>"), "writes the video 2 times"),
        (_EACH + "{{ message['content'][1]['text'] }}<video>{% endfor %}", "the video first"),
    ],
)
def test_chat_templates_that_will_not_do(text: str | None, said: str) -> None:
    with pytest.raises(PromptError, match=said):
        chat_template(byte_tokenizer(["<video>"], chat_template=text), "<video>", source="tiny")


@pytest.mark.parametrize("where", ["tokenizer", "chat_template.json", "none"])
def test_a_checkpoint_is_asked_in_its_own_words(where: str, tmp_path) -> None:
    write_module(tmp_path, tiny_qwen2_vl(), files={"preprocessor_config.json": PREPROCESSOR})
    text = KINDS["qwen2_vl"][0]
    own = text if where == "tokenizer" else None
    byte_tokenizer(SPECIAL, eos="<|im_end|>", pad="<|endoftext|>", chat_template=own).save_pretrained(tmp_path)
    if where == "chat_template.json":
        (tmp_path / where).write_text(json.dumps({"chat_template": text}))
    model = HookedVideoTransformer.from_pretrained(tmp_path)
    assert model.template is None
    if where == "none":
        with pytest.raises(PromptError, match=r"no chat template: choose one of .*'vicuna'"):
            model.prompt(ASKED)
        return
    prompt = model.prompt(ASKED)
    assert prompt.text is not None and prompt.text.startswith(
        SYSTEM + "<|im_start|>user\n<|vision_start|><|video_pad|>"
    )
    assert model.tokenizer.decode(prompt.option_tokens) == "AB" and prompt.tokens.segments()
    video = prompt.tokens["video"]
    assert model.tokenizer.decode(prompt.input_ids[0, [int(video[0]) - 1, int(video[-1]) + 1]]) == (
        "<|vision_start|><|vision_end|>"
    )
    assert torch.isfinite(model(prompt)).all()
