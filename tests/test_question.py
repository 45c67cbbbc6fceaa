"""Questions, templates, and the way from their words to token ids with known roles."""

from __future__ import annotations

import string
from itertools import accumulate
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from videolens.errors import PromptError, QuestionError
from videolens.prompt.encoding import EncodedQuestion, encode_question, pieces_of_tokens
from videolens.prompt.known_templates import TEMPLATES, template_named
from videolens.prompt.template import Piece, PromptTemplate
from videolens.prompt.video_layout import VideoLayout
from videolens.question import Question
from videolens.video.video import Video

SPECIAL = ["<unk>", "<s>", "<video>"]
VIDEO = Video.from_array(np.arange(4 * 2 * 2 * 3, dtype=np.uint8).reshape(4, 2, 2, 3), fps=2)


def finished(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    tokenizer.add_special_tokens(SPECIAL)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>")


def characters() -> PreTrainedTokenizerFast:
    """One token a character, so that roles are told apart exactly."""
    vocab = {token: i for i, token in enumerate([*SPECIAL, *string.printable])}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return finished(tokenizer)


def byte_pairs(text: str) -> PreTrainedTokenizerFast:
    """Byte-level byte pairs with the space before a word in its token, as GPT-2, Qwen and many others have."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=SPECIAL, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator([text] * 3, trainer)
    return finished(tokenizer)


def metaspace(text: str) -> PreTrainedTokenizerFast:
    """Sentence pieces with bytes to fall back on, as Llama has: "▁word", and "▁" put before the text."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first")
    tokenizer.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="first")
    alphabet = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=700, special_tokens=[*SPECIAL, *alphabet])
    tokenizer.train_from_iterator([text] * 3, trainer)
    return finished(tokenizer)


def a_question(**changes: object) -> Question:
    parts = {
        "video": VIDEO,
        "stem": "Which way does the red circle move?",
        "options": ["left", "right", "the red circle"],
        "answer": "right",
        "task": "moving direction",
        "id": "q0",
        "completion": "The red circle moves",
        "reversed_answer": "left",
    }
    return Question(**(parts | changes))


CORPUS = "".join(
    piece.text
    for template in TEMPLATES.values()
    for question in (a_question(), a_question().open_ended())
    if template.multiple_choice or question.style == "open-ended"
    for piece in template.render(question, placeholder="\n")
)
TOKENIZERS = {"characters": characters(), "byte pairs": byte_pairs(CORPUS), "metaspace": metaspace(CORPUS)}


def encoded(
    question: Question, *, tokenizer: str = "characters", template: str = "shapes", grid=(2, 1, 2)
) -> EncodedQuestion:
    tool = TOKENIZERS[tokenizer]
    token = tool.convert_tokens_to_ids("<video>")
    layout = VideoLayout.plain(grid, seconds=torch.arange(grid[0]).double())
    return encode_question(question, template_named(template), tool, layout, video_token_id=token)


def read(code: EncodedQuestion, name: str) -> str:
    """The text of a selection, from the tokens of the character tokenizer."""
    assert code.tokens.texts is not None
    return "".join(code.tokens.texts[i] for i in code.tokens[name].tolist())


# --- questions --------------------------------------------------------------------------------------------------------


def test_a_question_knows_its_letter_and_its_reverse() -> None:
    question = a_question()
    assert (
        question.letter == "B"
        and question.answer_index == 1
        and question.options == ("left", "right", "the red circle")
    )
    back = question.reversed()
    assert back.answer == "left" and back.letter == "A" and back.reversed_answer == "right"
    assert torch.equal(back.video.frames, VIDEO.frames.flip(0)) and torch.equal(back.video.seconds, VIDEO.seconds)
    assert back.reversed().answer == "right" and torch.equal(back.reversed().video.frames, VIDEO.frames)
    assert question.with_video(back.video).video is back.video


def test_an_open_ended_question() -> None:
    question = a_question().open_ended()
    assert question.style == "open-ended" and question.options == () and question.answer == "right"
    assert question.alternatives == ("left", "right", "the red circle") == question.choices
    assert question.reversed().answer == "left" and question.reversed().style == "open-ended"
    with pytest.raises(QuestionError, match="no options"):
        _ = question.letter
    free = Question(video=VIDEO, stem="What happens?", answer="It rains.")
    assert free.style == "open-ended" and free.options == () and free.answer_index is None
    assert Question(video=VIDEO, stem="What?", options=[], completion="It").style == "open-ended"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"answer": "up"}, "'up' is not among the options"),
        ({"answer": "B"}, "without its letter"),
        ({"answer": "(B) right"}, "without its letter"),
        ({"reversed_answer": "down"}, "reversed answer 'down' is not among"),
        ({"options": ["right", "right"], "reversed_answer": None}, "options that stand there twice, ['right']"),
        ({"options": "right"}, "one string"),
        ({"options": [str(i) for i in range(27)]}, "27 options"),
        ({"stem": "  "}, "empty stem"),
    ],
)
def test_questions_that_contradict_themselves(changes: dict, said: str) -> None:
    with pytest.raises(QuestionError) as caught:
        a_question(**changes)
    assert said in str(caught.value)


def test_what_a_question_does_not_know() -> None:
    with pytest.raises(QuestionError, match="reversed_answer"):
        a_question(reversed_answer=None).reversed()
    with pytest.raises(QuestionError, match="no answer"):
        _ = a_question(answer=None).letter


# --- templates --------------------------------------------------------------------------------------------------------


def test_templates_character_by_character() -> None:
    question = a_question(options=["left", "right"])
    text = {name: "".join(p.text for p in TEMPLATES[name].render(question)) for name in ("shapes", "vicuna")}
    assert text["shapes"] == (
        "Watch the video and answer the question.\n USER: <video>\n USER: Question: Which way does the red circle "
        "move? Options: (A) left (B) right \nOnly give the best option. ASSISTANT:Best option:("
    )
    assert text["vicuna"] == (
        "Carefully watch the video and pay attention to the cause and sequence of events, the detail and movement of "
        "objects, and the action and pose of persons. Based on your observations, select the best option that "
        "accurately addresses the question.\n USER: <video>\n USER: Question: Which way does the red circle move?\n"
        "Options:\n(A) left\n(B) right \nOnly give the best option. ASSISTANT:Best option:("
    )
    words = template_named("shapes").with_system("S").render(question.open_ended(), placeholder="<image>")
    assert "".join(piece.text for piece in words) == (
        "S\n USER: <image>\n USER: Question: Which way does the red circle move? ASSISTANT: The red circle moves"
    )
    bare = template_named("shapes").render(Question(VIDEO, "What happens?"))
    assert bare[-1] == Piece(" ASSISTANT:", "suffix")


def test_no_options_for_a_multiple_choice_prompt() -> None:
    for question in (
        Question(video=VIDEO, stem="Which way?", options=[]),
        Question(video=VIDEO, stem="Which way?", style="multiple choice"),
    ):
        with pytest.raises(PromptError, match="multiple choice but has no options"):
            encoded(question)


def test_bad_templates() -> None:
    with pytest.raises(PromptError, match="did you mean 'shapes'"):
        template_named("shape")
    with pytest.raises(PromptError, match="did you mean 'system'"):
        PromptTemplate("x", "", multiple_choice=(("sytem", ""),), open_ended=())
    with pytest.raises(PromptError, match="exactly once"):
        PromptTemplate("x", "", multiple_choice=(("stem", "{stem}"), ("option", "{options}")), open_ended=())
    with pytest.raises(PromptError, match="exactly once"):
        PromptTemplate("x", "", multiple_choice=(("video", "{video}"), ("stem", "{stem} {options}")), open_ended=())


# --- encoding ---------------------------------------------------------------------------------------------------------

words = st.text(st.sampled_from("abc {}()A?\n "), min_size=1, max_size=8).filter(str.strip)


@given(stem=words, options=st.lists(words, min_size=1, max_size=4, unique_by=str.strip), data=st.data())
def test_selections_hold_exactly_their_text(stem: str, options: list[str], data: st.DataObject) -> None:
    answer = data.draw(st.sampled_from(options))
    template = data.draw(st.sampled_from(["shapes", "vicuna"]))
    code = encoded(Question(VIDEO, stem, options, answer), template=template)
    assert read(code, "stem") == stem
    for letter, option in zip("ABCD", options, strict=False):
        assert read(code, f"option {letter}") == f"({letter}) {option}"
    assert read(code, "true option") == f"({'ABCD'[options.index(answer)]}) {answer}"
    assert read(code, "glue") == "\n USER: " and read(code, "system").startswith("<s>")
    assert read(code, "question").startswith(f"Question: {stem}") and read(code, "question").endswith(
        f") {options[-1]}"
    )
    assert read(code, "suffix") == " \nOnly give the best option. ASSISTANT:Best option:("
    assert read(code, "last") == "(" and read(code, "frame 1") == "<video>" * 2
    assert "".join(code.tokens.texts or ()).replace("<video>" * 4, "<video>") == "<s>" + code.text


def any_text(max_size: int) -> st.SearchStrategy[str]:
    """Anything: the placeholder, too, which hypothesis finds among the sources' constants."""
    return st.text(min_size=1, max_size=max_size)


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
@pytest.mark.parametrize("template", [name for name, template in TEMPLATES.items() if template.multiple_choice])
@given(
    stem=any_text(20).filter(str.strip),
    options=st.lists(any_text(8), min_size=1, max_size=4, unique_by=str.strip),
)
def test_any_text_in_any_tokenizer(tokenizer: str, template: str, stem: str, options: list[str]) -> None:
    question = Question(VIDEO, stem, options, options[0])
    code = encoded(question, tokenizer=tokenizer, template=template)
    assert len(code.input_ids) == code.tokens.n_pos
    assert code.tokens["video"].tolist() == list(range(int(code.tokens["video"][0]), int(code.tokens["video"][-1]) + 1))
    order = [role for i, role in enumerate(code.tokens.roles) if i == 0 or role != code.tokens.roles[i - 1]]
    assert order[:2] == ["system", "video"] and order[-1] == "suffix"
    # SmolVLM2's question follows the video at once; elsewhere one token may hold what is between and what follows
    assert order[2] == "glue" or (order[2] == "header" and (template == "smolvlm" or tokenizer != "characters"))
    assert code.tokens.n_options == len(options) and len(code.option_tokens) == len(options)
    assert code.answer_token == code.option_tokens[0]


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
def test_an_option_that_repeats_the_stem(tokenizer: str) -> None:
    stem = "left right left"
    code = encoded(Question(VIDEO, stem, ["left", "left right", stem], stem), tokenizer=tokenizer)
    tool, ids = TOKENIZERS[tokenizer], code.input_ids
    shown = {name: tool.decode(ids[code.tokens[name]]).strip() for name in ("stem", "option A", "option B", "option C")}
    assert shown == {"stem": stem, "option A": "(A) left", "option B": "(B) left right", "option C": f"(C) {stem}"}
    assert code.tokens["stem"].max() < code.tokens["option A"].min() < code.tokens["true option"].min()


def test_a_token_goes_with_its_last_character() -> None:
    pieces = [Piece("ab", "system"), Piece("cd", "stem"), Piece("e", "suffix")]
    ends = list(accumulate(len(piece.text) for piece in pieces))
    assert ends == [2, 4, 5]
    # a special token, "a", "bc" (joins two pieces), nothing before "d", "d", "e", nothing at the end
    assert pieces_of_tokens([(0, 0), (0, 1), (1, 3), (3, 3), (3, 4), (4, 5), (5, 5)], pieces) == [0, 0, 1, 1, 1, 2, 2]
    assert pieces_of_tokens([(0, 5)], pieces) == [2]
    assert pieces_of_tokens([(0, 1), (0, 1), (1, 2)], pieces) == [0, 0, 0]  # bytes of one character
    with pytest.raises(PromptError, match="after the prompt"):
        pieces_of_tokens([(0, 2), (2, 5), (0, 0)], pieces)


def test_video_tokens_and_times() -> None:
    code = encoded(a_question(), grid=(3, 2, 2))
    tokens, token = code.tokens, TOKENIZERS["characters"].convert_tokens_to_ids("<video>")
    assert (code.input_ids == token).nonzero().flatten().tolist() == tokens["video"].tolist()
    assert tokens.seconds[tokens["frame 2"]].tolist() == [2.0] * 4 and tokens.seconds[0].isnan()
    assert tokens.row[tokens["frame 1"]].tolist() == [0, 0, 1, 1]
    assert tokens.column[tokens["frame 1"]].tolist() == [0, 1, 0, 1]
    with pytest.raises(PromptError, match="one per frame"):
        VideoLayout.plain((2, 1, 1), seconds=torch.zeros(3).double())


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
def test_answer_tokens(tokenizer: str) -> None:
    tool, question = TOKENIZERS[tokenizer], a_question()
    code = encoded(question, tokenizer=tokenizer)
    assert [tool.decode([token]).strip() for token in code.option_tokens] == ["A", "B", "C"]
    assert code.answer_token == code.option_tokens[1]
    assert encoded(a_question(answer=None), tokenizer=tokenizer).answer_token is None
    in_words = encoded(question.open_ended(), tokenizer=tokenizer)
    assert in_words.answer_token == in_words.option_tokens[1] and in_words.tokens.answer is None
    whole = tool(in_words.text + " right")["input_ids"]
    assert in_words.answer_token == whole[len(tool(in_words.text)["input_ids"])]
    assert read(encoded(question.open_ended()), "suffix") == " ASSISTANT: The red circle moves"


def test_an_answer_that_would_join_the_prompt_is_a_token_of_its_own() -> None:
    tokenizer = Tokenizer(
        models.BPE(vocab := {"<unk>": 0, "<s>": 1, "<video>": 2, "(": 3, "A": 4, "(A": 5, "x": 6}, [("(", "A")])
    )
    joining = finished(tokenizer)
    pieces = (("video", "{video}"), ("option", "{options}"), ("suffix", "x("))
    template = PromptTemplate("x", "", pieces, (("video", "{video}"),), option="{option}")
    layout = VideoLayout.plain((1, 1, 1))
    code = encode_question(Question(VIDEO, "?", ["x"], "x"), template, joining, layout, video_token_id=2)
    assert code.input_ids.tolist() == [1, 2, 6, 6, 3] and code.answer_token == vocab["A"]


def test_the_placeholder_in_a_question_is_words() -> None:
    code = encoded(a_question(stem="What is a <video>?"))
    assert len(code.tokens["video"]) == 4 and read(code, "stem") == "What is a <video>?"


def test_a_placeholder_that_the_tokenizer_does_not_know() -> None:
    with pytest.raises(PromptError, match="0 tokens of the prompt"):
        tool = TOKENIZERS["characters"]
        layout = VideoLayout.plain((1, 1, 1))
        encode_question(a_question(), template_named("shapes"), tool, layout, video_token_id=2, placeholder="<image>")
    with pytest.raises(PromptError, match="character offsets"):
        slow = SimpleNamespace(is_fast=False)
        encode_question(a_question(), template_named("shapes"), slow, VideoLayout.plain((1, 1, 1)), video_token_id=2)
