"""The bundled model's tokenizer: one token a word, every other text spelt out character by character.

A Unigram model whose vocabulary is written down rather than learned: each word of the benchmark with and without the
space before it, every printable character, and the 256 bytes to fall back on, so that any text goes in and comes out
unchanged.
"""

from __future__ import annotations

import re
import string

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from training.prompts import PREFIX, multiple_choice, open_ended
from videolens.datasets.shapes_tasks import MAKERS

SPECIAL = ("<unk>", "<s>", "</s>", "<pad>", "<image>", "<video>")
PIECE = re.compile(r" ?[A-Za-z]+| ?[^A-Za-z\s]|\s")


def pieces() -> list[str]:
    """Every piece that occurs in a prompt of the benchmark, in a fixed order."""
    rng = np.random.default_rng(0)
    found: dict[str, None] = dict.fromkeys(p.replace(" ", "▁") for p in PIECE.findall(PREFIX.replace("<video>", "")))
    for make in MAKERS.values():
        for _ in range(400):
            _, asks = make(rng)
            for ask in asks:
                for text in (multiple_choice(ask, ask.options)[0], open_ended(ask)[0] + " " + ask.answer):
                    found.update(dict.fromkeys(p.replace(" ", "▁") for p in PIECE.findall(text)))
    for word in ("yes", "no", "Is", "it", "and", "Does", "A", "B", "C", "D", "E"):
        found.update({word: None, "▁" + word: None})
    return sorted(found)


def build() -> PreTrainedTokenizerFast:
    """The tokenizer, ready to be saved beside the weights."""
    vocab: list[tuple[str, float]] = [(token, 0.0) for token in SPECIAL]
    vocab += [(f"<0x{byte:02X}>", -30.0) for byte in range(256)]
    words = pieces()
    vocab += [(word, -1.0) for word in words]
    vocab += [(c, -10.0) for c in ["▁", "\n", *string.printable[:94]] if c not in set(words)]
    tokenizer = Tokenizer(models.Unigram(vocab, unk_id=0, byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="never", split=True)
    tokenizer.decoder = decoders.Sequence(
        [decoders.ByteFallback(), decoders.Metaspace(replacement="▁", prepend_scheme="never"), decoders.Fuse()]
    )
    tokenizer.add_special_tokens(list(SPECIAL))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", SPECIAL.index("<s>"))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        additional_special_tokens=["<image>", "<video>"],
        model_max_length=1024,
        padding_side="left",
    )
