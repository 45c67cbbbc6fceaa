"""Control tokens in a question's words are words: for every family's placeholders and turn markers, and every kind of
tokenizer; where a tokenizer cannot, the question is refused.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable

import pytest
import torch
from helpers.checkpoints import byte_tokenizer
from helpers.clips import clip
from helpers.families import CASES, each_family
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

import videolens as vl
from videolens.errors import PromptError
from videolens.prompt.encoding import EncodedQuestion, encode_question
from videolens.prompt.known_templates import TEMPLATES, template_named
from videolens.prompt.plain_text import Coder, PlainCoder, coder_for, control_tokens
from videolens.prompt.template import PromptTemplate
from videolens.prompt.video_layout import VideoLayout

CONTROL = (
    "<s>",
    "</s>",
    "<unk>",
    "<pad>",
    "<video>",
    "<image>",
    "<|im_start|>",
    "<|im_end|>",
    "<|user|>",
    "<|assistant|>",
)
VIDEO = vl.Video.from_array(torch.zeros(2, 16, 16, 3, dtype=torch.uint8))
WORDS = "Which way does the red ball move (A) left or right, user assistant Question Options Best option: Only give"


# -- kinds of tokenizers -----------------------------------------------------------------------------------------------


def added(tokenizer: Tokenizer, **flags: bool) -> PreTrainedTokenizerFast:
    for token in CONTROL:
        turn = flags if "|" in token else {}
        tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True, **turn)])
    begin = tokenizer.token_to_id("<s>")
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", begin)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="<pad>"
    )


def llama(**flags: bool) -> PreTrainedTokenizerFast:
    """As SentencePiece's BPE is read: spaces are letters, control tokens are in the vocabulary, bytes for the rest."""
    vocab = {token: i for i, token in enumerate(("<unk>", "<s>", "</s>"))}
    vocab |= {f"<0x{byte:02X}>": 3 + byte for byte in range(256)}
    letters = dict.fromkeys("▁" + "".join(sorted(set(WORDS) - {" "})) + "<>/|s_")
    vocab |= {letter: len(vocab) + i for i, letter in enumerate(letters)}
    merges = [("▁", "l"), ("▁l", "e"), ("▁le", "f"), ("▁lef", "t"), ("<", "/"), ("s", ">")]
    vocab |= {"".join(pair): len(vocab) + i for i, pair in enumerate(merges)}
    tokenizer = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return added(tokenizer, **flags)


def unigram() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(
        models.Unigram([("<unk>", 0.0), *((letter, -2.0) for letter in sorted(set(WORDS + "<>/|_sp")))], 0)
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    return added(tokenizer)


def words_apart() -> PreTrainedTokenizerFast:
    names = list(dict.fromkeys([*CONTROL, *WORDS.split()]))
    tokenizer = Tokenizer(models.WordLevel({name: i for i, name in enumerate(names)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return added(tokenizer)


TOKENIZERS: dict[str, Callable[[], PreTrainedTokenizerFast]] = {
    "bytes": lambda: byte_tokenizer(CONTROL, bos="<s>", eos="</s>", prepend_bos=True),
    "llama": llama,
    "spaces taken from the right": lambda: llama(rstrip=True),  # Phi-3
    "spaces taken from the left": lambda: llama(lstrip=True),
    "unigram": unigram,
    "words": words_apart,
}


def coded(tokenizer: PreTrainedTokenizerFast, question: vl.Question, template: PromptTemplate) -> EncodedQuestion:
    return encode_question(
        question,
        template,
        tokenizer,
        VideoLayout.plain((1, 2, 2), seconds=torch.zeros(1, dtype=torch.float64)),
        video_token_id=tokenizer.convert_tokens_to_ids("<video>"),
    )


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize("template", TEMPLATES)
def test_the_copy_splits_a_prompt_as_the_tokenizer_does(kind: str, template: str) -> None:
    tokenizer = TOKENIZERS[kind]()
    plain, copy = Coder(tokenizer), PlainCoder(tokenizer, control_tokens(tokenizer))
    question = vl.Question(VIDEO, "which way does it move?", completion="The ball")
    several = (
        [question, vl.Question(VIDEO, " Which way ?", ["left ", " right"])] if template != "vcgbench" else [question]
    )
    for one in several:
        text = "".join(piece.text for piece in template_named(template).render(one))
        assert copy.encode(copy.mark(text)).ids == plain.encode(text).ids


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize("template", ["vicuna", "internvl", "videollama3"])
@pytest.mark.parametrize("token", CONTROL)
def test_words_stay_words_with_every_tokenizer(kind: str, template: str, token: str) -> None:
    tokenizer = TOKENIZERS[kind]()
    control = control_tokens(tokenizer)
    at_all = torch.tensor([number for name, number in control.items() if name != "<unk>"])

    def asked(word: str) -> list[vl.Question]:
        return [
            vl.Question(VIDEO, f"Which A{word}B{word}?", [f"left{word}", f"{word} right"], f"left{word}"),
            vl.Question(VIDEO, f"{word} which way", completion=f"left {word}", answer=f"right{word}"),
            vl.Question(VIDEO, "which way", completion=f"{word}", answer="right"),
        ]

    for hostile, harmless in zip(asked(token), asked("x"), strict=True):
        found, known = (coded(tokenizer, one, template_named(template)) for one in (hostile, harmless))
        ours, theirs = (each.input_ids[torch.isin(each.input_ids, at_all)].tolist() for each in (found, known))
        assert ours == theirs, "the template's control tokens, and no others"
        assert found.answer_token not in at_all and not set(found.option_tokens) & set(at_all.tolist())
        roles = [list(dict.fromkeys(each.tokens.roles)) for each in (found, known)]
        assert (roles[0] == roles[1] and found.text == known.text.replace("Ax", "A" + token)) or token in found.text
        if kind == "bytes":
            said = found.input_ids[found.tokens["stem"]].tolist()
            assert tokenizer.decode(said) == hostile.stem, "letter by letter"


@each_family
def test_words_stay_words_in_every_family(name: str) -> None:
    ours = CASES[name].ours
    control = control_tokens(ours.tokenizer)
    assert ours.frontend.video_token in control.values()
    video = vl.Video.from_array(torch.cat([clip(40, 70, frames=4)] * 3)[: 2 * CASES[name].step], fps=2.0)
    template = template_named("vicuna").with_system("")
    for token, number in control.items():
        if number == ours.tokenizer.unk_token_id:
            continue  # which unknown words are
        question = vl.Question(video, f"A{token}?", [f"{token}B", "C"], "C")
        plain = vl.Question(video, "A?", ["B", "C"], "C")
        prompt, harmless = (ours.prompt(each, template) for each in (question, plain))
        assert (prompt.input_ids == number).sum() == (harmless.input_ids == number).sum()
        assert len(prompt.tokens["video"]) == len(harmless.tokens["video"])
        if ours.tokenizer.unk_token is None:
            assert ours.tokenizer.decode(prompt.input_ids[0, prompt.tokens["stem"]]) == question.stem


def test_ordinary_questions_are_tokenised_as_ever() -> None:
    tokenizer = TOKENIZERS["llama"]()
    assert type(coder_for(tokenizer, "<video>", ["which way", None, "a < b > c", "<", "s>"])) is Coder
    assert type(coder_for(tokenizer, "<video>", ["which", "A</s>B"])) is PlainCoder


@pytest.mark.parametrize("token", ["</s>", "<video>", "<|im_end|>"])
def test_where_a_tokenizer_cannot_the_token_is_named(token: str) -> None:
    apart = words_apart().backend_tokenizer
    apart.pre_tokenizer = pre_tokenizers.WhitespaceSplit()  # a word with brackets is a word of the vocabulary
    pieces = [("<unk>", 0.0), *((name, -1.0) for name in CONTROL[:2] + CONTROL[3:]), *((x, -9.0) for x in WORDS)]
    certain = Tokenizer(models.Unigram(pieces, 0))
    for tokenizer in (PreTrainedTokenizerFast(tokenizer_object=apart, unk_token="<unk>"), added(certain)):
        for question in (
            vl.Question(VIDEO, f"which {token} way", ["left", "right"]),
            vl.Question(VIDEO, "which way", ["left", f"right {token} "]),
        ):
            with pytest.raises(PromptError, match=f"words hold '{token}'".replace("|", r"\|") + ".*control token even"):
                coded(tokenizer, question, template_named("vicuna"))


def test_nothing_keeps_a_tokenizer_alive_and_a_placeholder_of_its_own_is_respected() -> None:
    tokenizer = llama()
    words = ["a <video> b"]
    one, other = (coder_for(tokenizer, placeholder, words) for placeholder in ("<video>", "<image>"))
    assert isinstance(one, PlainCoder)
    assert one.mark("<video>") != "<video>" and other.mark("<image>") != "<image>"
    gone = weakref.ref(tokenizer)
    del tokenizer, one, other
    gc.collect()
    assert gone() is None
