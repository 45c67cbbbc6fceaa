"""How a model turns a question, or token ids and pixels, into a `Prompt`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from operator import index
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from videolens.errors import ModelError, PromptError, refusing
from videolens.model.families import Clock
from videolens.model.finite import check_made
from videolens.model.running import Running
from videolens.model.vision.frontend import FrontEnd
from videolens.model.wording import template_of, video_placeholder
from videolens.prompt.encoding import encode_question
from videolens.prompt.prompt import Prompt
from videolens.prompt.template import PromptTemplate
from videolens.prompt.tokens import TokenMap
from videolens.prompt.video_layout import VideoLayout
from videolens.question import Question
from videolens.video.video import Video


def prompt_from_question(
    model: Running, question: object, template: PromptTemplate | str | None, prepare: Callable[[Video], Tensor]
) -> Prompt:
    """See `HookedVideoTransformer.prompt`; `prepare` is its `pixels`."""
    placeholder = video_placeholder(model)
    if not isinstance(question, Question):
        raise PromptError(f"a prompt is made of one Question(video, stem, …), got {type(question).__name__}")
    front = model.frontend
    template = template_of(model, template)
    video = question.video
    pixels, clock = prepare(video), Clock.of(video)
    layout = video_layout_of(front, pixels, clock)
    with refusing(PromptError, f"the tokenizer of {model.cfg.model_name!r} cannot write the question as tokens"):
        coded = encode_question(
            question, template, model.tokenizer, layout, video_token_id=front.video_token, placeholder=placeholder
        )
    model.check_ids(coded.input_ids[None])
    known = {name: getattr(coded, name) for name in ("answer_token", "option_tokens", "text")}
    return _finish(model, coded.input_ids[None], pixels[None], coded.tokens, clock, question=question, **known)


def prompt_from_ids(
    model: Running,
    input_ids: Tensor | Sequence[int],
    pixel_values: Tensor | None,
    spans: Mapping[str, Any] | None = None,
    *,
    seconds: Tensor | Sequence[float] | None = None,
    answer_token: int | None = None,
    option_tokens: Sequence[int] = (),
) -> Prompt:
    """A prompt from token ids and pixels, as any other code prepares them.

    Args:
        input_ids: [batch pos] or [pos], with one video placeholder (it is repeated) or one for every video token.
        pixel_values: prepared pixels [batch frame channel height width]; a batch of one serves all rows. None: no
            video.
        spans: positions by name ("stem", "option A", "true option", …), counted after the video tokens are in
            place. "video", the frames and "last" are found; positions that no span names get their role from their
            place.
        seconds: the time of each frame.
        answer_token: id of the right answer's first token, if known; the same for all rows of a batch.
        option_tokens: ids of the options' first tokens, in order. With one for every option in `spans`,
            `answer_token` also says which is the true option.

    Raises:
        PromptError: shapes or numbers of placeholders do not fit, more tokens than the context holds, an answer
            that is not among the options.
        SelectionError: spans overlap, lie outside the prompt, or have an unknown name.
    """
    ids = _as_tensor("input_ids", input_ids)
    if ids.dtype.is_floating_point or ids.dtype == torch.bool or ids.ndim not in (1, 2) or ids.shape[-1] == 0:
        raise PromptError(f"input_ids must be integers [batch pos] or [pos], got {ids.dtype} {tuple(ids.shape)}")
    ids = torch.atleast_2d(ids.to(torch.int64)).cpu()
    model.check_ids(ids)
    answer = None if answer_token is None else _token_ids(model, "answer_token", [answer_token])[0]
    options = _token_ids(model, "option_tokens", option_tokens)
    times = None if seconds is None else _as_tensor("seconds", seconds).to(torch.float64)
    found = model.frontend.video_positions(ids)
    named = {} if spans is None else spans
    if pixel_values is None:
        if len(found):
            raise PromptError(f"input_ids hold {len(found)} video placeholders, but no pixel_values were given")
        tokens = TokenMap.from_spans(ids.shape[1], named, grid=(0, 0, 0), video=found)
        tokens = _with_answer(tokens, answer, options)
        return _finish(model, ids, None, tokens, None, answer_token=answer, option_tokens=options)
    pixels = _checked_pixels(_as_tensor("pixel_values", pixel_values), len(ids))
    frames = pixels.shape[1]
    if times is not None and len(times) != frames:
        raise PromptError(f"{len(times)} frame times were given for {frames} frames: give one per frame")
    clock = Clock(torch.full((frames,), torch.nan, dtype=torch.float64) if times is None else times)
    layout = video_layout_of(model.frontend, pixels, clock)
    ids, found = _repeated(model.frontend, ids, found, layout, pixels)
    tokens = _with_answer(_with_video(model, ids, found, layout, named), answer, options)
    return _finish(model, ids, pixels, tokens, clock, answer_token=answer, option_tokens=options)


def video_layout_of(
    front: FrontEnd, pixels: Float[Tensor, "*clip frame channel height width"], clock: Clock
) -> VideoLayout:
    """What stands for a clip in a prompt."""
    frames, _, height, width = pixels.shape[-4:]
    what = f"{frames} frames of {height} × {width} pixels give no grid of video tokens: config.json contradicts itself"
    with refusing(ModelError, what):
        return front.family.layout(front.config, front.family.grid(front.config, frames, height, width), clock)


def _repeated(
    front: FrontEnd,
    ids: Int64[Tensor, "batch pos"],
    found: Int64[Tensor, " given"],
    layout: VideoLayout,
    pixels: Float[Tensor, "clip frame channel height width"],
) -> tuple[Int64[Tensor, "batch longer"], Int64[Tensor, " placeholder"]]:
    """The ids with one placeholder for every video token, where one or all were given; and where these are."""
    needed, grid = layout.n_placeholders, layout.grid
    if len(found) == 1 and needed > 1:
        at = int(found[0])
        ids = torch.cat([ids[:, :at], ids[:, at : at + 1].expand(-1, needed), ids[:, at + 1 :]], dim=1)
        found = at + torch.arange(needed)
    if len(found) != needed:
        frames, _, height, width = pixels.shape[1:]
        raise PromptError(
            f"{frames} frames of {height} × {width} pixels are {grid[0]} × {grid[1]} × {grid[2]} = {needed} video "
            f"tokens, but input_ids hold {len(found)} placeholders (token {front.video_token}): give one, or all "
            f"{needed}"
        )
    return ids, found


def _with_video(
    model: Running,
    ids: Int64[Tensor, "batch pos"],
    found: Int64[Tensor, " placeholder"],
    layout: VideoLayout,
    named: Mapping[str, Any],
) -> TokenMap:
    """The token map of ids whose placeholders, at `found`, are what the layout says."""
    texts = None
    if model.tokenizer is not None:
        names = model.tokenizer.convert_ids_to_tokens(ids[0].tolist())
        texts = [name if name is not None else f"<{token}>" for name, token in zip(names, ids[0].tolist(), strict=True)]
    # of the placeholders, those that the layout fills with video; a newline among them is none
    filled = torch.cat([torch.full((piece.n,), piece.role == "video") for piece in layout.pieces])
    known = dict(named)
    for role in ("newline", "timestamp", "separator"):
        of_role = torch.cat([torch.full((piece.n,), piece.role == role) for piece in layout.pieces])
        if bool(of_role.any()) and role not in known:
            known[role] = found[of_role]
    tokens = TokenMap.from_spans(
        ids.shape[1], known, grid=layout.grid, video=found[filled], seconds=layout.seconds, texts=texts
    )
    # a newline that the model has a parameter for belongs to its frame too
    frame_of, times_of = tokens.frame.clone(), tokens.seconds.clone()
    frame_of[found] = torch.cat([torch.full((piece.n,), piece.frame) for piece in layout.pieces])
    times_of[found] = layout.seconds[frame_of[found]]
    return replace(tokens, frame=frame_of, seconds=times_of, merged=layout.merged)


def _as_tensor(name: str, values: Any) -> Tensor:
    try:
        return torch.as_tensor(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise PromptError(
            f"{name} are no array of numbers ({error}): give a tensor, or lists of equal length"
        ) from error


def _token_ids(model: Running, name: str, tokens: Sequence[int]) -> tuple[int, ...]:
    try:
        ids = tuple(index(token) for token in tokens)
    except TypeError as error:
        raise PromptError(f"{name} is {tokens!r}: give token ids, which are whole numbers") from error
    if ids and not 0 <= min(ids) <= max(ids) < model.cfg.d_vocab:
        raise PromptError(f"{name} {list(ids)} lies outside the vocabulary, 0 … {model.cfg.d_vocab - 1}")
    return ids


def _with_answer(tokens: TokenMap, answer: int | None, options: tuple[int, ...]) -> TokenMap:
    """The map with the option whose token `answer` is; an answer that contradicts options or map is an error."""
    if answer is None or not options:
        return tokens
    if answer not in options:
        raise PromptError(f"answer_token {answer} is not among option_tokens {list(options)}: give one of them")
    if len(options) != tokens.n_options or options.count(answer) != 1:
        return tokens
    if tokens.answer not in (None, options.index(answer)):
        raise PromptError(
            f"the span 'true option' is option {tokens.answer} (from 0), but answer_token {answer} is that of option "
            f"{options.index(answer)} of option_tokens {list(options)}"
        )
    return replace(tokens, answer=options.index(answer))


def _checked_pixels(pixels: Tensor, batch: int) -> Float[Tensor, "batch frame channel height width"]:
    if pixels.ndim == 4:
        pixels = pixels[None]
    if pixels.ndim != 5 or not pixels.dtype.is_floating_point:
        raise PromptError(
            f"pixel_values must be floating point [batch frame channel height width], got {pixels.dtype} "
            f"{tuple(pixels.shape)}; model.pixels(video.frames) prepares them"
        )
    if not bool(pixels.isfinite().all()):
        raise PromptError(
            "pixel_values hold values that are not finite (NaN or infinity): check how they were prepared"
        )
    if pixels.shape[2] != 3:
        raise PromptError(f"pixel_values {tuple(pixels.shape)} [batch frame channel height width] must have 3 channels")
    if len(pixels) not in (1, batch):
        raise PromptError(f"{batch} rows of input_ids need 1 or {batch} clips, got pixel_values {tuple(pixels.shape)}")
    return pixels


@torch.no_grad()
def _finish(
    model: Running,
    ids: Int64[Tensor, "batch pos"],
    pixels: Float[Tensor, "clip frame channel height width"] | None,
    tokens: TokenMap,
    clock: Clock | None,
    **known: Any,
) -> Prompt:
    """Run the tower once per clip, put the video in its place, and check the whole against the context."""
    front = model.frontend
    batch, n_pos = ids.shape
    if n_pos > model.cfg.n_ctx:
        raise PromptError(
            f"the prompt has {n_pos} tokens ({len(tokens['video'])} of them video: {tokens.grid[0]} frames), more "
            f"than the context of {model.cfg.n_ctx}: sample fewer frames or shorten the text"
        )
    ids = ids.to(front.device)
    features = video = None
    stacked: Sequence[Tensor] = ()
    if pixels is not None:
        features = front.features(pixels)
        check_made(features, "the vision tower's features of this clip", front.parts)
        pixels = pixels.to(front.device, front.dtype)
        video = front.project(features, tokens.grid)
        check_made(video, "the projector's video tokens", front.parts, front.single)
        stacked = front.deepstack(features, tokens.grid, ids[: len(features)])
        for layer, added in enumerate(stacked):
            check_made(added, f"the deepstack features that are added after layer {layer}", front.parts)
        placeholders = len(front.video_positions(ids))
        if video.shape[1] != placeholders:
            raise ModelError(
                f"the front end made {video.shape[1]} video tokens for a grid of {tokens.grid}, {placeholders} "
                f"expected: the family {model.cfg.model_type!r} contradicts itself"
            )
        pixels, features, video, *stacked = (
            one.expand(batch, *one.shape[1:]) for one in (pixels, features, video, *stacked)
        )
    residual = front.embed_text(ids)
    if video is not None:
        residual = residual.masked_scatter((ids == front.video_token)[..., None], video)
    elif front.family.deepstack is not None:
        stacked = [torch.zeros_like(residual)] * front.family.deepstack.layers(front.config)
    check_made(residual, "the embeddings of this prompt's words", front.embed)
    axes = front.family.positions
    along = torch.arange(n_pos) if axes is None or clock is None else axes(front.config, tokens, clock)
    with refusing(ModelError, "the rotary settings of config.json (rope_parameters) cannot be followed"):
        cos, sin = front.rotary(residual, along.to(ids.device).unsqueeze(-2))
    return Prompt(
        input_ids=ids,
        tokens=tokens,
        residual=residual,
        rotary=(cos.expand(batch, -1, -1), sin.expand(batch, -1, -1)),
        deepstack=tuple(stacked),
        pixel_values=pixels,
        video_features=features,
        made_by=front.maker,
        # where a longer prompt goes on, which need not be after the largest position (merged frames far apart in time)
        next_position=(int(along[..., -1].max()) + 1,) * batch,
        **known,
    )
