"""From a question to token ids, and what each of them is.

Roles are known while the prompt's text is put together from its pieces, and the tokenizer says which characters each
token covers; so where a span lies is never searched for, and an option may repeat the words of the stem.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import Any

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from videolens.errors import PromptError, check_text
from videolens.prompt.plain_text import Coder, coder_for, control_tokens
from videolens.prompt.selections import ROLES
from videolens.prompt.template import Piece, PromptTemplate
from videolens.prompt.tokens import TokenMap
from videolens.prompt.video_layout import VideoLayout
from videolens.question import Question


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

    1. The template gives pieces of text with roles, the layout those that stand for the video. Joined, they are the
       prompt. Control tokens in the question's words are text.
    2. Each token belongs to the piece that holds the last of its characters (`pieces_of_tokens`).
    3. Placeholders of video pieces fill the grid in order.
    4. The answer's token is the first that tokenizing prompt and answer together adds.

    Args:
        question: what is asked.
        template: the words around it.
        tokenizer: a fast Hugging Face tokenizer (one that gives character offsets).
        layout: what stands for the video.
        video_token_id: id of the placeholder in the tokenizer.
        placeholder: the placeholder as text.

    Raises:
        PromptError: no options, a tokenizer without offsets, placeholders that are not one token each, a lone
            surrogate, or a control token in the question's words that this tokenizer cannot read as text.
    """
    # 1. pieces of text
    asked = template.render(question, placeholder=placeholder)
    text = "".join(piece.text for piece in asked)
    _check_fast(tokenizer)
    words = (question.stem, question.completion, question.answer, *question.choices)
    for several in (words, [piece.text for piece in asked]):
        for said in filter(None, several):
            check_text("the text", said, error=PromptError)
    coder = coder_for(tokenizer, placeholder, words)
    template = template.with_texts(coder.mark)
    asked = template.render(question, placeholder=coder.mark(placeholder))
    video = [Piece(coder.mark(piece.text or placeholder * piece.n), piece.role) for piece in layout.pieces]
    at = next(i for i, piece in enumerate(asked) if piece.role == "video")
    pieces = [*asked[:at], *video, *asked[at + 1 :]]
    coded = coder.encode("".join(piece.text for piece in pieces))
    ids = torch.tensor(coded.ids, dtype=torch.int64)

    # 2. tokens of the pieces
    owner = torch.tensor(pieces_of_tokens(coded.offsets, pieces))
    inside = (at <= owner) & (owner < at + len(video))
    # what the tokenizer puts before a prompt that begins with the video is no part of the video
    leading = inside & (torch.tensor([past for _, past in coded.offsets]) == 0)
    of_video = torch.where(inside & ~leading, owner - at, -1)
    held = torch.tensor([i >= 0 and layout.pieces[i].text is None for i in of_video.tolist()])
    found = ids == video_token_id
    if not torch.equal(found, held) or int(found.sum()) != layout.n_placeholders:
        raise PromptError(
            f"the video placeholder {placeholder!r} (token {video_token_id}) is {int(found.sum())} tokens of the "
            f"prompt, of which {int((found & (of_video >= 0)).sum())} are in its place; {layout.n_placeholders} are "
            f"expected: the tokenizer must know it as one token. Prompt: {text!r}"
        )

    # 3. the video's grid
    roles = torch.tensor([ROLES.index(pieces[i].role) for i in owner.tolist()])
    role = roles.masked_fill(leading, ROLES.index("system"))
    tokens = TokenMap(
        **_places(layout, of_video, role == ROLES.index("video")),
        role=role,
        option=torch.tensor([pieces[i].option for i in owner.tolist()]),
        grid=layout.grid,
        answer=question.answer_index if question.style == "multiple choice" else None,
        texts=tuple(tokenizer.convert_ids_to_tokens(ids.tolist())),
        merged=layout.merged,
    )

    # 4. the answer's token
    (right, choices), marked = template.continuations(question), "".join(piece.text for piece in asked)
    next_token = partial(_next_token, coder, marked, coder.encode(marked).ids)
    answer = None if right is None else next_token(right)
    return EncodedQuestion(ids, tokens, text, answer_token=answer, option_tokens=tuple(map(next_token, choices)))


def _check_fast(tokenizer: Any) -> None:
    if not getattr(tokenizer, "is_fast", False):
        raise PromptError(
            f"{type(tokenizer).__name__} gives no character offsets, and token spans come from them: "
            "load the fast tokenizer (tokenizer.json)"
        )


def _places(layout: VideoLayout, of_video: Int64[Tensor, " pos"], is_video: Bool[Tensor, " pos"]) -> dict[str, Any]:
    """Frame, row, column and seconds of every position, by name.

    Args:
        layout: what stands for the video.
        of_video: which of its pieces a position belongs to, else −1.
        is_video: whether a position is a video token.
    """
    frames, rows, columns = layout.grid
    cells = torch.arange(frames * rows * columns)
    frame, row, column = torch.full((3, len(of_video)), -1)
    seconds = torch.full((len(of_video),), torch.nan, dtype=torch.float64)
    inside = of_video >= 0
    frame[inside] = torch.tensor([layout.pieces[i].frame for i in of_video[inside].tolist()], dtype=torch.int64)
    row[is_video], column[is_video] = cells // columns % rows, cells % columns
    seconds[inside] = layout.seconds[frame[inside]]
    return {"frame": frame, "row": row, "column": column, "seconds": seconds}


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


def _next_token(coder: Coder, text: str, ids: list[int], continuation: str) -> int:
    """The first token that `continuation` adds to the prompt.

    Where the tokenizer would join it to the end of the prompt ("(" and "A" to "(A"), the model, which sees the prompt's
    own tokens, is asked for the continuation as a token of its own.
    """
    longer = coder.encode(text + continuation)
    if len(longer.ids) > len(ids) and longer.ids[: len(ids)] == ids:
        return int(longer.ids[len(ids)])
    for token, (first, past) in zip(longer.ids, longer.offsets, strict=True):
        if past > first == len(text):
            return int(token)
    tokenizer = coder.tokenizer
    token = tokenizer.convert_tokens_to_ids(continuation.strip())
    if token is None or token == tokenizer.unk_token_id or token in control_tokens(tokenizer).values():
        raise PromptError(
            f"the tokenizer has no token for the answer {continuation!r} after {text[-20:]!r}: end the prompt where a "
            "word ends, or choose an answer that begins with a token of its own"
        )
    return int(token)
