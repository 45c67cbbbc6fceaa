"""A prompt: everything a model needs to answer one video question, and what each of its positions is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from videolens.errors import PromptError, check_whole
from videolens.notebook import Shown
from videolens.prompt.batched_tokens import TokenMaps
from videolens.prompt.tokens import TokenMap
from videolens.question import Question


class Maker(NamedTuple):
    """The front end that made a prompt: the model's name, and a digest of the weights of tower, projector, embedding.

    Front ends of equal weights have one digest, whatever their names and wherever they are.
    """

    name: str
    digest: str

    def __str__(self) -> str:
        return f"{self.name!r} (weights {self.digest[:8]})"


@dataclass(frozen=True, eq=False)
class Prompt(Shown):
    """One prompt, or a batch of prompts with the same layout.

    batch: prompts; pos: positions, video tokens in place; frame, channel, height, width: of the pixels that the vision
    tower sees; d_model: width of the residual stream; d_rotary: width of the rotary tables.

    A `Prompt` has `.shape`, `.to`, `.cpu`, `len` and indexing as a tensor of token ids has, so it can be handed to
    TransformerLens functions that only pass their tokens on to the model.

    Attributes:
        input_ids: token ids, the video placeholder repeated for every video token.
        tokens: what each position is; shared by the batch. Where its prompts differ (`Prompt.batch`), each single
            prompt has its own. Stays on the CPU.
        residual: the stream that enters layer 0 (embeddings with the projected video in place). Read only: models
            copy it before a hook may edit it.
        rotary: cosine and sine tables of every position.
        pixel_values: prepared pixels; None when there is no video.
        video_features: what the vision tower gives, before the projector.
        padding: positions of padding before each prompt of a batch of unequal ones; empty where there is none.
        next_position: rotary position of the first generated token, for each prompt; empty: the number of positions.
        answer_token: id of the first token of the right answer at the last position, if the answer is known.
        option_tokens: the same for every option, in order; empty for an open-ended prompt.
        text: the prompt as a string, with one placeholder for the video.
        question: where it came from.
        singles: the prompts that a batch of unequal ones was made of.
        made_by: the front end whose tokens, residual and features these are; other models refuse the prompt. None: put
            together by hand.
        deepstack: what is added to the stream after layer 0, 1, …, in models whose decoder takes features of the
            vision tower there: zeros where there is no video. Read only.

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
    padding: tuple[int, ...] = ()
    next_position: tuple[int, ...] = ()
    singles: tuple[Prompt, ...] = field(default=(), repr=False)
    made_by: Maker | None = field(default=None, repr=False)
    deepstack: tuple[Float[Tensor, "batch pos d_model"], ...] = ()

    def __post_init__(self) -> None:
        shape = tuple(self.input_ids.shape)
        if len(shape) != 2:
            raise PromptError(f"input_ids must have shape [batch pos], got {list(shape)}: add the batch dimension")
        if self.tokens.n_pos != shape[1]:
            raise PromptError(
                f"the token map has {self.tokens.n_pos} positions, input_ids of shape {shape} have {shape[1]}"
            )
        parts = {"residual": self.residual, "rotary cosines": self.rotary[0], "rotary sines": self.rotary[1]}
        parts |= {f"deepstack features after layer {i}": one for i, one in enumerate(self.deepstack)}
        for name, tensor in parts.items():
            if tuple(tensor.shape[:2]) != shape:
                raise PromptError(f"{name} have shape {tuple(tensor.shape)}, input_ids {shape}: [batch pos] must agree")
        for name, pixels in (("pixel_values", self.pixel_values), ("video_features", self.video_features)):
            if pixels is not None and len(pixels) != shape[0]:
                raise PromptError(f"{name} have shape {tuple(pixels.shape)}, input_ids {shape}: batches must agree")

    def __repr__(self) -> str:
        """In one line: what it is, not its tensors."""
        one = f"{self.shape[1]} positions" if len(self) == 1 else f"{len(self)} × {self.shape[1]} positions"
        about = f", {self.question.stem!r:.60}" if self.question is not None else ""
        by = f", made by {self.made_by.name!r}" if self.made_by is not None else ""
        return f"Prompt({one}{self.tokens.contents}{about}{by}; on {self.device})"

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

    @classmethod
    def batch(cls, prompts: Sequence[Prompt]) -> Prompt:
        """Prompts of unequal length as one batch, padded on the left: no row sees padding, and the last rows align.

        The batch knows its prompts' token maps, but no answers: `for single in batch` gives the prompts back.

        Raises:
            PromptError: no prompts, or some of them from different models.
        """
        singles = [single for prompt in prompts for single in prompt]
        if not singles:
            raise PromptError("a batch needs at least one prompt")
        widths = {single.residual.shape[-1] for single in singles}
        if len(widths) > 1:
            raise PromptError(f"prompts with residuals {sorted(widths)} wide belong to different models")
        if len(counts := {len(single.deepstack) for single in singles}) > 1:
            raise PromptError(f"prompts with deepstack features for {sorted(counts)} layers belong to different models")
        for single in singles:
            single.check_maker(singles[0], "prompts of one batch")
        longest = max(single.shape[1] for single in singles)
        padding = tuple(longest - single.shape[1] for single in singles)

        def joined(parts: Sequence[Tensor]) -> Tensor:
            # one row per position, whatever comes after
            gaps = [part.new_zeros(1, n, *part.shape[2:]) for part, n in zip(parts, padding, strict=True)]
            return torch.cat([torch.cat(pair, dim=1) for pair in zip(gaps, parts, strict=True)])

        maps = tuple(single.tokens.padded(n) for single, n in zip(singles, padding, strict=True))
        return cls(
            input_ids=joined([single.input_ids for single in singles]),
            tokens=TokenMaps(maps),
            residual=joined([single.residual for single in singles]),
            rotary=(joined([single.rotary[0] for single in singles]), joined([single.rotary[1] for single in singles])),
            deepstack=tuple(map(joined, zip(*(single.deepstack for single in singles), strict=True))),
            padding=padding,
            next_position=tuple(single.next_positions[0] for single in singles),
            singles=tuple(singles),
            made_by=singles[0].made_by,
        )

    @property
    def next_positions(self) -> tuple[int, ...]:
        """Rotary position of the first generated token, for each prompt."""
        return self.next_position or (self.shape[1],) * len(self)

    def __getitem__(self, index: int | slice) -> Prompt:
        """One prompt of the batch, as a batch of one, without padding; or a slice of the batch."""
        if isinstance(index, int):
            if not -len(self) <= index < len(self):
                raise IndexError(f"prompt {index} of a batch of {len(self)}")
            index = slice(index % len(self), index % len(self) + 1)
        if self.singles:
            chosen = self.singles[index]
            return chosen[0] if len(chosen) == 1 else Prompt.batch(chosen)
        part = self._with(lambda tensor: tensor[index])
        return replace(part, next_position=self.next_position[index])

    def __iter__(self) -> Iterator[Prompt]:
        return (self[i] for i in range(len(self)))

    def single(self, what: str) -> Prompt:
        """This prompt, where only one will do.

        Args:
            what: what it is needed for, as the message calls it: "a source run".

        Raises:
            PromptError: a batch of several prompts.
        """
        if len(self) != 1:
            raise PromptError(
                f"{what} needs a single prompt, got a batch of {len(self)}: take one, prompt[0], or all in turn, "
                "`for single in prompt`"
            )
        return self

    def check_maker(self, other: Prompt, what: str) -> None:
        """Raises:
        PromptError: this prompt and the other one were made by different models; `what` are both, in words.
        """
        makers = (self.made_by, other.made_by)
        if None not in makers and len({made_by.digest for made_by in makers if made_by}) > 1:
            raise PromptError(f"{what} must be made by one model, got those of {self.made_by} and {other.made_by}")

    def repeated(self, n: int) -> Prompt:
        """This prompt of one as a batch of n, without copies."""
        check_whole("n", n, least=1, most=2**20, error=PromptError)
        copies = self._with(lambda tensor: tensor.expand(n, *tensor.shape[1:]))
        return replace(copies, next_position=self.next_position * n)

    def _with(self, change: Callable[[Tensor], Tensor]) -> Prompt:
        cos, sin = self.rotary
        return replace(
            self,
            input_ids=change(self.input_ids),
            residual=change(self.residual),
            rotary=(change(cos), change(sin)),
            deepstack=tuple(map(change, self.deepstack)),
            pixel_values=None if self.pixel_values is None else change(self.pixel_values),
            video_features=None if self.video_features is None else change(self.video_features),
            singles=tuple(single._with(change) for single in self.singles),
        )
