"""A word-level tokenizer for the tiny models."""

from __future__ import annotations

from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from helpers.models import IMAGE, VIDEO

TEXT = """red ball blue square moves left right up down the where does which way only give best option ASSISTANT USER
Question Options A B C D ( ) : ? . Best Only Watch video and answer question Which Where it to"""
WORDS = list(dict.fromkeys(TEXT.split()))


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """Words from id 10 on, `<video>` and `<image>` where the tiny config has them, `<s>` put in front of every text."""
    vocab = {"<pad>": 0, "<s>": 1, "</s>": 2, "<unk>": 3} | {word: 10 + i for i, word in enumerate(WORDS)}
    vocab |= {"<video>": VIDEO, "<image>": IMAGE}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Whitespace()])
    tokenizer.add_special_tokens(
        [AddedToken(token) for token in ("<pad>", "<s>", "</s>", "<unk>", "<video>", "<image>")]
    )
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="<pad>"
    )
