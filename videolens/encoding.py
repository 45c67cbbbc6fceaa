"""From a question to token ids, and what each of them is.

Roles are known while the prompt's text is put together from its pieces, and the tokenizer says which characters each
token covers; so where a span lies is never searched for, and an option may repeat the words of the stem.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from videolens.errors import PromptError
from videolens.question import Question
from videolens.spans import ROLES
from videolens.template import Piece, PromptTemplate
from videolens.tokens import TokenMap

__all__ = ["EncodedQuestion", "VideoLayout", "encode_question", "pieces_of_tokens"]


@dataclass(frozen=True, eq=False)
class VideoLayout:
    """The tokens that take the place of a prompt's one video placeholder, in order.

    n: tokens, video tokens and separators together. A separator has role `separator`, row and column −1, and the frame
    it belongs to, or −1.
    """

    ids: Int64[Tensor, " n"]
    role: Int64[Tensor, " n"]
    frame: Int64[Tensor, " n"]
    row: Int64[Tensor, " n"]
    column: Int64[Tensor, " n"]
    seconds: Float64[Tensor, " n"]
    grid: tuple[int, int, int]

    @classmethod
    def plain(
        cls, token_id: int, grid: tuple[int, int, int], *, seconds: Float64[Tensor, " frames"] | None = None
    ) -> VideoLayout:
        """frames × rows × columns copies of `token_id`, frame-major and row-major, with nothing between them.

        Args:
            token_id: the id of every video token.
            grid: (frames, rows, columns).
            seconds: the time of each frame in seconds; NaN where omitted.
        """
        frames, rows, columns = grid
        times = torch.full((frames,), torch.nan, dtype=torch.float64) if seconds is None else seconds
        if len(times) != frames:
            raise PromptError(f"{len(times)} frame times were given for a grid of {frames} frames: give one per frame")
        index = torch.arange(frames * rows * columns)
        frame = index // (rows * columns)
        return cls(
            ids=torch.full_like(index, token_id),
            role=torch.full_like(index, ROLES.index("video")),
            frame=frame,
            row=index // columns % rows,
            column=index % columns,
            seconds=times[frame],
            grid=(frames, rows, columns),
        )


@dataclass(frozen=True, eq=False)
class EncodedQuestion:
    """A question as token ids, before any model has seen it.

    Attributes:
        input_ids: token ids with the video's in place of its placeholder.
        tokens: what each position is.
        text: the prompt, with one placeholder for the video.
        answer_token: first token that the right answer adds to the prompt; None if it is not known.
        option_tokens: the same for every choice, in order.
    """

    input_ids: Int64[Tensor, " pos"]
    tokens: TokenMap
    text: str
    answer_token: int | None
    option_tokens: tuple[int, ...]


def encode_question(
    question: Question,
    template: PromptTemplate,
    tokenizer: Any,
    layout: VideoLayout,
    *,
    video_token_id: int,
    placeholder: str = "<video>",
) -> EncodedQuestion:
    """Token ids and token map of a question.

    1. The template gives pieces of text with roles; joined, they are the prompt.
    2. Each token belongs to the piece that holds the last of its characters (`pieces_of_tokens`).
    3. The placeholder's one token gives way to the tokens of `layout`.
    4. The answer's token is the first that tokenizing prompt and answer together adds.

    Args:
        question: what is asked.
        template: the words around it.
        tokenizer: a fast Hugging Face tokenizer (one that gives character offsets).
        layout: the tokens that stand for the video.
        video_token_id: id of the placeholder in the tokenizer.
        placeholder: the placeholder as text.

    Raises:
        PromptError: no options, a tokenizer without offsets, or the placeholder is not exactly one token of the prompt.
    """
    # 1.
    pieces = template.render(question, placeholder=placeholder)
    text = "".join(piece.text for piece in pieces)
    if not getattr(tokenizer, "is_fast", False):
        raise PromptError(
            f"{type(tokenizer).__name__} gives no character offsets, and token spans come from them: "
            "load the fast tokenizer (tokenizer.json)"
        )
    coded = tokenizer(text, return_offsets_mapping=True)
    ids: list[int] = coded["input_ids"]

    # 2.
    owner = pieces_of_tokens(coded["offset_mapping"], pieces)
    found = [i for i, token in enumerate(ids) if token == video_token_id]
    if len(found) != 1 or pieces[owner[found[0]]].role != "video":
        raise PromptError(
            f"the video placeholder {placeholder!r} (token {video_token_id}) is {len(found)} tokens of the prompt, not "
            f"one in its place: question and options must not hold it, and the tokenizer must know it. Prompt: {text!r}"
        )

    # 3.
    at = found[0]
    head, tail = [pieces[i] for i in owner[:at]], [pieces[i] for i in owner[at + 1 :]]
    # a template may begin with the video; what the tokenizer puts before it is then no part of the video
    head = [piece if piece.role != "video" else Piece("", "system") for piece in head]

    def around(before: list[int], video: Tensor, after: list[int]) -> Tensor:
        return torch.cat([torch.tensor(before, dtype=video.dtype), video, torch.tensor(after, dtype=video.dtype)])

    def only(video: Tensor, outside: float | int) -> Tensor:
        return torch.cat([video.new_full((len(head),), outside), video, video.new_full((len(tail),), outside)])

    roles = [[ROLES.index(piece.role) for piece in part] for part in (head, tail)]
    options = [[piece.option for piece in part] for part in (head, tail)]
    names = tokenizer.convert_ids_to_tokens(ids)
    video_names = tokenizer.convert_ids_to_tokens(layout.ids.tolist())
    tokens = TokenMap(
        role=around(roles[0], layout.role, roles[1]),
        frame=only(layout.frame, -1),
        row=only(layout.row, -1),
        column=only(layout.column, -1),
        seconds=only(layout.seconds, torch.nan),
        option=around(options[0], torch.full_like(layout.ids, -1), options[1]),
        grid=layout.grid,
        answer=question.answer_index if question.style == "multiple choice" else None,
        texts=(*names[:at], *video_names, *names[at + 1 :]),
    )

    # 4.
    right, choices = template.continuations(question)
    return EncodedQuestion(
        input_ids=around(ids[:at], layout.ids, ids[at + 1 :]),
        tokens=tokens,
        text=text,
        answer_token=None if right is None else _next_token(tokenizer, text, ids, right),
        option_tokens=tuple(_next_token(tokenizer, text, ids, choice) for choice in choices),
    )


def pieces_of_tokens(offsets: Sequence[tuple[int, int]], pieces: Sequence[Piece]) -> list[int]:
    """Which piece each token belongs to: the one that holds the last of the token's characters.

    So a token that joins the space before a word to the word goes with the word. A token without characters goes with
    the character that it stands before, and special tokens at the front of the prompt with the first piece.

    Args:
        offsets: for each token, the characters (first, one past last) of the joined text that it covers.
        pieces: the text in order.

    Raises:
        PromptError: the tokenizer adds special tokens after the prompt, where the answer should follow.
    """
    ends = list(accumulate(len(piece.text) for piece in pieces))
    owners, place, reached = [], 0, 0
    for first, past in offsets:
        if past < reached:
            raise PromptError(
                "the tokenizer puts a special token after the prompt, so the model would answer after the end: "
                "set tokenizer.add_eos_token = False"
            )
        reached = past
        character = min(max(first, past - 1), ends[-1] - 1)
        while character >= ends[place]:
            place += 1
        owners.append(place)
    return owners


def _next_token(tokenizer: Any, text: str, ids: list[int], continuation: str) -> int:
    """The first token that `continuation` adds to the prompt.

    Where the tokenizer would join it to the end of the prompt ("(" and "A" to "(A"), the model, which sees the prompt's
    own tokens, is asked for the continuation as a token of its own.
    """
    longer = tokenizer(text + continuation, return_offsets_mapping=True)
    if len(longer["input_ids"]) > len(ids) and longer["input_ids"][: len(ids)] == ids:
        return int(longer["input_ids"][len(ids)])
    for token, (first, past) in zip(longer["input_ids"], longer["offset_mapping"], strict=True):
        if past > first == len(text):
            return int(token)
    token = tokenizer.convert_tokens_to_ids(continuation.strip())
    if token is None or token == tokenizer.unk_token_id:
        raise PromptError(
            f"the tokenizer has no token for the answer {continuation!r} after {text[-20:]!r}: end the prompt where a "
            "word ends, or choose an answer that begins with a token of its own"
        )
    return int(token)
