"""A prompt: everything a model needs to answer one video question, and what each of its positions is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from videolens.errors import PromptError
from videolens.question import Question
from videolens.tokens import TokenMap

__all__ = ["Prompt"]


@dataclass(frozen=True, eq=False)
class Prompt:
    """One prompt, or a batch of prompts with the same layout.

    batch: prompts; pos: positions, video tokens in place; frame, channel, height, width: of the pixels that the vision
    tower sees; d_model: width of the residual stream; d_rotary: width of the rotary tables.

    A `Prompt` has `.shape`, `.to`, `.cpu`, `len` and indexing as a tensor of token ids has, so it can be handed to
    TransformerLens functions that only pass their tokens on to the model.

    Attributes:
        input_ids: token ids, the video placeholder repeated for every video token.
        tokens: what each position is; shared by the batch. Stays on the CPU.
        residual: the stream that enters layer 0 (embeddings with the projected video in place). Read only: models
            copy it before a hook may edit it.
        rotary: cosine and sine tables of every position.
        pixel_values: prepared pixels; None when there is no video.
        video_features: what the vision tower gives, before the projector.
        answer_token: id of the first token of the right answer at the last position, if the answer is known.
        option_tokens: the same for every option, in order; empty for an open-ended prompt.
        text: the prompt as a string, with one placeholder for the video.
        question: where it came from.

    Raises:
        PromptError: shapes disagree.
    """

    input_ids: Int64[Tensor, "batch pos"]
    tokens: TokenMap
    residual: Float[Tensor, "batch pos d_model"]
    rotary: tuple[Float[Tensor, "batch pos d_rotary"], Float[Tensor, "batch pos d_rotary"]]
    pixel_values: Float[Tensor, "batch frame channel height width"] | None = None
    video_features: Float[Tensor, "batch ..."] | None = None
    answer_token: int | None = None
    option_tokens: tuple[int, ...] = ()
    text: str | None = None
    question: Question | None = None

    def __post_init__(self) -> None:
        shape = tuple(self.input_ids.shape)
        if len(shape) != 2:
            raise PromptError(f"input_ids must have shape [batch pos], got {list(shape)}: add the batch dimension")
        if self.tokens.n_pos != shape[1]:
            raise PromptError(
                f"the token map has {self.tokens.n_pos} positions, input_ids of shape {shape} have {shape[1]}"
            )
        parts = {"residual": self.residual, "rotary cosines": self.rotary[0], "rotary sines": self.rotary[1]}
        for name, tensor in parts.items():
            if tuple(tensor.shape[:2]) != shape:
                raise PromptError(f"{name} have shape {tuple(tensor.shape)}, input_ids {shape}: [batch pos] must agree")
        for name, pixels in (("pixel_values", self.pixel_values), ("video_features", self.video_features)):
            if pixels is not None and len(pixels) != shape[0]:
                raise PromptError(f"{name} have shape {tuple(pixels.shape)}, input_ids {shape}: batches must agree")

    @property
    def shape(self) -> torch.Size:
        """(batch, pos)."""
        return self.input_ids.shape

    @property
    def device(self) -> torch.device:
        """Where the tensors are."""
        return self.input_ids.device

    def to(self, device: torch.device | str) -> Prompt:
        """This prompt with its tensors on `device`; the token map stays on the CPU."""
        return self._with(lambda tensor: tensor.to(device))

    def cpu(self) -> Prompt:
        """This prompt on the CPU."""
        return self.to("cpu")

    def __len__(self) -> int:
        return len(self.input_ids)

    def __getitem__(self, index: int | slice) -> Prompt:
        """One prompt of the batch, as a batch of one; or a slice of the batch."""
        if isinstance(index, int):
            if not -len(self) <= index < len(self):
                raise IndexError(f"prompt {index} of a batch of {len(self)}")
            index = slice(index % len(self), index % len(self) + 1)
        return self._with(lambda tensor: tensor[index])

    def __iter__(self) -> Iterator[Prompt]:
        return (self[i] for i in range(len(self)))

    def repeated(self, n: int) -> Prompt:
        """This prompt of one as a batch of n, without copies."""
        return self._with(lambda tensor: tensor.expand(n, *tensor.shape[1:]))

    def _with(self, change: Callable[[Tensor], Tensor]) -> Prompt:
        cos, sin = self.rotary
        return replace(
            self,
            input_ids=change(self.input_ids),
            residual=change(self.residual),
            rotary=(change(cos), change(sin)),
            pixel_values=None if self.pixel_values is None else change(self.pixel_values),
            video_features=None if self.video_features is None else change(self.video_features),
        )
