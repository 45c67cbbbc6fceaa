"""Random models of any size, in Hugging Face's own class, and prompts laid out as the paper's are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import CLIPVisionConfig, LlamaConfig, LlavaNextVideoConfig, LlavaNextVideoForConditionalGeneration

import videolens as vl
from videolens.prompt.prompt import Prompt

_SHARP = 1.5  # spread of queries and keys: scores have a standard deviation of 2, and half of all knockouts move the
# logits by more than 0.3 standard deviations; at 2.5 the model is chaotic, and rounding alone moves them by 5e-4
_PATCH = 2  # pixels of a patch's side: the tower is as small as it can be, unless its size matters


@dataclass(frozen=True)
class Shape:
    """Size of a decoder and layout of a prompt: text, video, stem, options, suffix.

    Attributes:
        n_layers, d_model, n_heads, d_mlp, d_vocab: of the decoder; all heads have keys of their own.
        frames, side: frames of side × side video tokens.
        before, stem, option, n_options, suffix: tokens of the text's parts.
        tower: width and layers of the vision tower, which sees 2 × side patches a side.
    """

    n_layers: int
    d_model: int
    n_heads: int
    d_mlp: int
    d_vocab: int = 32000
    frames: int = 8
    side: int = 12
    before: int = 60
    stem: int = 20
    option: int = 20
    n_options: int = 4
    suffix: int = 20
    tower: tuple[int, int] = (16, 1)

    @property
    def n_pos(self) -> int:
        """Tokens of the prompt."""
        text = self.before + self.stem + self.option * self.n_options + self.suffix
        return text + self.frames * self.side**2

    def __str__(self) -> str:
        return (
            f"L = {self.n_layers}, d_model = {self.d_model}, {self.n_heads} heads, d_mlp = {self.d_mlp}, vocabulary "
            f"{self.d_vocab}; {self.n_pos} tokens: {self.before} + {self.frames} × {self.side**2} video + {self.stem} "
            f"stem + {self.n_options} × {self.option} options + {self.suffix}"
        )


def random_original(shape: Shape, *, device: str = "cpu", dtype: torch.dtype = torch.float32, seed: int = 0) -> Any:
    """A random `LlavaNextVideoForConditionalGeneration` with fused (SDPA) attention.

    Weights are normal with a variance of 1 / fan-in, embeddings with 1. Queries and keys are `_SHARP` times that, so
    that scores have a standard deviation of about `_SHARP`² and attention is far from uniform.
    """
    vision = CLIPVisionConfig(
        hidden_size=shape.tower[0],
        intermediate_size=4 * shape.tower[0] if shape.tower[0] > 16 else 16,
        num_hidden_layers=shape.tower[1],
        num_attention_heads=max(1, shape.tower[0] // 64),
        image_size=2 * shape.side * _PATCH,  # pooled by two
        patch_size=_PATCH,
    )
    text = LlamaConfig(
        vocab_size=shape.d_vocab,
        hidden_size=shape.d_model,
        intermediate_size=shape.d_mlp,
        num_hidden_layers=shape.n_layers,
        num_attention_heads=shape.n_heads,
        num_key_value_heads=shape.n_heads,
        max_position_embeddings=shape.n_pos + 128,  # for what is generated
    )
    config = LlavaNextVideoConfig(
        vision_config=vision,
        text_config=text,
        video_token_index=shape.d_vocab - 1,
        image_token_index=shape.d_vocab - 2,
    )
    with _made_as(dtype, device):
        model = LlavaNextVideoForConditionalGeneration._from_config(config, attn_implementation="sdpa").eval()
    _randomise(model, torch.Generator(device).manual_seed(seed))
    return model


@torch.no_grad()
def _randomise(model: nn.Module, generator: torch.Generator) -> None:
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1:
            parameter.fill_(1.0 if "norm" in name and name.endswith("weight") else 0.0)
            continue
        fan_in = 1 if "embed" in name else parameter[0].numel()
        scale = _SHARP if name.endswith(("q_proj.weight", "k_proj.weight")) else 1.0
        parameter.normal_(generator=generator).mul_(scale * fan_in**-0.5)


@contextmanager
def _made_as(dtype: torch.dtype, device: str) -> Iterator[None]:
    """New tensors are of this kind."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            yield
    finally:
        torch.set_default_dtype(before)


def random_prompt(model: vl.HookedVideoTransformer, shape: Shape, *, seed: int = 0) -> Prompt:
    """Random text around a random clip; the answer is the first option."""
    generator = torch.Generator().manual_seed(seed)
    n_text = shape.n_pos - shape.frames * shape.side**2
    ids = torch.randint(3, shape.d_vocab - 2, (n_text,), generator=generator)
    placeholder = torch.tensor([shape.d_vocab - 1])
    pixel_side = 2 * shape.side * _PATCH
    pixels = torch.randn(1, shape.frames, 3, pixel_side, pixel_side, generator=generator)
    at = shape.before + shape.frames * shape.side**2
    spans: dict[str, Any] = {"stem": range(at, at := at + shape.stem)}
    for i in range(shape.n_options):
        spans[f"option {'ABCDEFGH'[i]}"] = range(at, at := at + shape.option)
    options = list(range(3, 3 + shape.n_options))
    return model.prompt_from_ids(
        torch.cat([ids[: shape.before], placeholder, ids[shape.before :]]),
        pixels,
        spans,
        option_tokens=options,
        answer_token=options[0],
    )


@torch.no_grad()
def original_logits(original: Any, prompt: Prompt) -> Tensor:
    """The last position's logits [d_vocab] by the original's own forward, from the same layer-0 residual as ours."""
    output = original(inputs_embeds=prompt.residual, logits_to_keep=1, use_cache=False)
    return output.logits[0, -1].float()
