"""A model that can be solved by hand: 2 frames × 2 patches × 3 text tokens, three layers, one head, integer weights.

A *ball* of some colour is in frame 0, a *seeker* in frame 1. In layer 0 the seeker looks at the ball and takes its
colour (cross-frame), in layer 1 the question takes it from the seeker (video → question), in layer 2 the last token
takes it from the question (question → last). Every other token looks at blank patches, whose value is zero. Attention
is one-hot: the winner's score leads by more than 100, so that the softmax is exactly 0 or 1 where values differ from
zero.

Residual stream, 16 dimensions (a token has exactly four entries of 2, so its root mean square is exactly 1; having
taken a colour it has three entries of 4 more, so exactly 2):

    0 red  1 blue | 2 blank  3 ball  4 seeker  5 question  6 last | 7 8 9 filler | 10 red taken  11 blue taken
    12 13 filler

The logit of RED is dimension 10 after the final norm: 2 where a token has taken red, 0 otherwise; BLUE is dimension 11.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaModel

from videolens.model.families import Family, Parts, register
from videolens.model.transformer import HookedVideoTransformer
from videolens.prompt.prompt import Prompt

VIDEO, QUESTION, SUFFIX, LAST, RED, BLUE = range(6)
BALL_RED, BALL_BLUE, BLANK, SEEKER = range(4)  # what a patch shows: its level in the first channel
_PATCH = {BALL_RED: (3, 0, 7, 8), BALL_BLUE: (3, 1, 7, 8), BLANK: (2, 7, 8, 9), SEEKER: (4, 7, 8, 9)}
_TEXT = {QUESTION: (5, 7, 8, 9), SUFFIX: (2, 7, 8, 9), LAST: (6, 7, 8, 9)}
_SHARP = 64.0  # scores: 16384 for what is sought (where it has taken a colour), 8192 for blanks, 0 for the rest


class _Micro(nn.Module):
    """A Llama of transformers, and a "vision tower" that only reads each pixel's first channel."""

    def __init__(self) -> None:
        super().__init__()
        text = LlamaConfig(
            vocab_size=6,
            hidden_size=16,
            intermediate_size=4,
            num_hidden_layers=3,
            num_attention_heads=1,
            num_key_value_heads=1,
            head_dim=4,
            rms_norm_eps=1e-12,
            max_position_embeddings=16,
            # the second rotary pair turns by 1e-15 a position: not at all
            rope_parameters={"rope_type": "default", "rope_theta": 1e30},
        )
        self.config: Any = SimpleNamespace(
            model_type="micro", get_text_config=lambda: text, _name_or_path="micro", vision_config=SimpleNamespace()
        )
        self.decoder, self.lm_head = LlamaModel(text), nn.Linear(16, 6, bias=False)
        self.projector = nn.Embedding(4, 16)
        for parameter in self.parameters():
            parameter.data.zero_()
        for norm in [self.decoder.norm, *(each for layer in self.decoder.layers for each in _norms(layer))]:
            norm.weight.data.fill_(1.0)
        for weight, rows in ((self.projector.weight, _PATCH), (self.decoder.embed_tokens.weight, _TEXT)):
            for row, entries in rows.items():
                weight.data[row, list(entries)] = 2.0
        # who looks for what in which layer, and where the colour it takes is written
        for layer, (seeking, sought, red) in zip(self.decoder.layers, ((4, 3, 0), (5, 4, 10), (6, 5, 10)), strict=True):
            attention = layer.self_attn
            attention.q_proj.weight.data[1, seeking] = 4 * _SHARP
            attention.q_proj.weight.data[3, [2, 3, 4, 5, 6]] = _SHARP  # everybody is content with blanks
            attention.k_proj.weight.data[1, sought] = _SHARP
            attention.k_proj.weight.data[3, 2] = _SHARP
            for value in (0, 1):  # red, blue
                attention.v_proj.weight.data[value, red + value] = 1.0
                attention.o_proj.weight.data[[10 + value, 12, 13], value] = 2.0
        self.lm_head.weight.data[RED, 10] = self.lm_head.weight.data[BLUE, 11] = 1.0


def _norms(layer: Any) -> tuple[Any, Any]:
    return layer.input_layernorm, layer.post_attention_layernorm


def _features(parts: Parts, pixels: Tensor, config: Any) -> Tensor:
    return rearrange(pixels[:, :, :1], "batch frame channel row column -> batch frame (row column) channel")


def _project(parts: Parts, features: Tensor, config: Any, grid: tuple[int, int, int]) -> Tensor:
    return parts["projector"](rearrange(features, "batch frame patch 1 -> batch (frame patch)").long())


MICRO = Family(
    model_type="micro",
    architecture="none",
    decoder="decoder",
    unembed="lm_head",
    parts={"projector": "projector"},
    features=_features,
    project=_project,
    grid=lambda config, frames, height, width: (frames, height, width),
    video_token=lambda config: VIDEO,
)


def micro_model() -> HookedVideoTransformer:
    """The model of this file, through the same conversion as a real one."""
    register(MICRO)
    return HookedVideoTransformer.from_hugging_face(_Micro())


def micro_prompt(model: HookedVideoTransformer, *frames: tuple[int, int]) -> Prompt:
    """Two frames of two patches, then question, suffix and last: seven positions."""
    pixels = torch.tensor(frames, dtype=torch.float32)[None, :, None, None, :].repeat(1, 1, 3, 1, 1)
    return model.prompt_from_ids([VIDEO, QUESTION, SUFFIX, LAST], pixels, spans={"stem": [4]}, answer_token=RED)
