"""Models and prompts without numbers: enough to say what running them will cost, before there is a weight."""

from __future__ import annotations

import os
from math import prod
from typing import Any

import torch

from videolens.errors import PromptError
from videolens.model.checkpoints.convert import convert
from videolens.model.checkpoints.shape import read_shape
from videolens.model.families import Clock
from videolens.model.prompting import video_layout_of
from videolens.model.transformer import HookedVideoTransformer
from videolens.model.wording import template_of, video_placeholder
from videolens.prompt.encoding import encode_question
from videolens.prompt.known_templates import template_named
from videolens.prompt.prompt import Prompt
from videolens.question import Question

LETTERS_IN_A_TOKEN = 4
"""Of text where there is no tokenizer: a word is a token for every four letters that have begun."""

_PLACEHOLDER = "<video>"
_TEMPLATE = "vicuna"


def model_shape(
    name: str | os.PathLike[str],
    *,
    dtype: torch.dtype | str | None = None,
    base: str | os.PathLike[str] | None = None,
    trust_remote_code: bool = False,
) -> HookedVideoTransformer:
    """A model on the meta device, from its config.json: its shape and hook points, and no number.

    Arguments and errors are those of `read_shape`.
    """
    read = read_shape(name, dtype=dtype, base=base, trust_remote_code=trust_remote_code)
    parts = convert(read.module, read.family, name=read.name)
    return HookedVideoTransformer(parts, tokenizer=read.tokenizer, pixels=read.pixels, template=read.template)


def weight_bytes(model: HookedVideoTransformer) -> int:
    """Bytes of all weights, of those that stand in two places once."""
    return sum(each.numel() * each.element_size() for each in {id(one): one for one in model.parameters()}.values())


def n_parameters(model: HookedVideoTransformer) -> int:
    """Numbers of all weights, of those that stand in two places once."""
    return sum(prod(each.shape) for each in {id(one): one for one in model.parameters()}.values())


def prompt_shape(model: HookedVideoTransformer, question: Question) -> Prompt:
    """What `model.prompt(question)` gives, but for its numbers: which positions there are, and what each is.

    1. The grid of the video's tokens: of frames as the checkpoint prepares them; where it has no preprocessor file, of
       frames as large as the tower's config says.
    2. The text: by the tokenizer and the template; where there is no tokenizer, a word is a token for every
       `LETTERS_IN_A_TOKEN` letters, in the template "vicuna".
    3. What the vision tower and the embedding would give is on the meta device.

    Raises:
        PromptError: more tokens than the context holds; no tower size in config.json and no preprocessor.
        VideoError: the clip cannot be read.
    """
    front, n_frames = model.frontend, len(question.video.frames) if model.pixel_settings is None else 0
    # 1.
    pixels = torch.empty(n_frames, 3, *_side(model)) if n_frames else model.pixels(question.video)
    layout = video_layout_of(front, pixels, Clock.of(question.video))
    # 2.
    if model.tokenizer is None:
        tokenizer, template, video_token, placeholder = (
            _counting_tokenizer(),
            template_named(_TEMPLATE),
            1,
            _PLACEHOLDER,
        )
    else:
        tokenizer, placeholder, video_token = model.tokenizer, video_placeholder(model), front.video_token
        template = template_of(model, model.template)
    coded = encode_question(question, template, tokenizer, layout, video_token_id=video_token, placeholder=placeholder)
    n_pos = len(coded.input_ids)
    if n_pos > model.cfg.n_ctx:
        raise PromptError(
            f"the prompt has {n_pos} tokens ({len(coded.tokens['video'])} of them video: {layout.grid[0]} frames), "
            f"more than the context of {model.cfg.n_ctx}: sample fewer frames or shorten the text"
        )
    # 3.
    empty = torch.empty(1, n_pos, model.cfg.d_model, dtype=model.cfg.dtype, device="meta")
    table = torch.empty(1, n_pos, model.cfg.d_head, dtype=model.cfg.dtype, device="meta")
    return Prompt(
        input_ids=coded.input_ids[None],
        tokens=coded.tokens,
        residual=empty,
        rotary=(table, table),
        answer_token=coded.answer_token,
        option_tokens=coded.option_tokens,
        text=coded.text,
        question=question,
    )


def _side(model: HookedVideoTransformer) -> tuple[int, int]:
    """Height and width of the frames that the tower's config names."""
    side: Any = getattr(getattr(model.frontend.config, "vision_config", None), "image_size", None)
    if isinstance(side, int):
        return side, side
    if isinstance(side, (list, tuple)) and len(side) == 2:
        return int(side[0]), int(side[1])
    raise PromptError(
        f"{model.cfg.model_name}: config.json does not say how large frames are (vision_config.image_size is "
        f"{side!r}): put the preprocessor's file (video_preprocessor_config.json, preprocessor_config.json) beside it"
    )


def _counting_tokenizer() -> Any:
    """A tokenizer that knows no word: it only says how many tokens a text has, and where they lie."""
    from tokenizers import AddedToken, Regex, Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"<word>": 0, _PLACEHOLDER: 1}, unk_token="<word>"))
    piece = Regex(rf" ?\w{{1,{LETTERS_IN_A_TOKEN}}}| ?[^\w\s]|\s")
    words.pre_tokenizer = pre_tokenizers.Split(piece, behavior="isolated")
    words.add_special_tokens([AddedToken(_PLACEHOLDER, special=True, normalized=False)])
    return PreTrainedTokenizerFast(tokenizer_object=words)
