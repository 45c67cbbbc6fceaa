"""A checkpoint loaded both ways, here and by transformers, and how far the two are apart."""

from __future__ import annotations

import gc
import math
import os
from dataclasses import dataclass
from typing import Any

import torch
from einops import repeat

from videolens.errors import PromptError, VideoError
from videolens.model.agreement import apart
from videolens.model.checkpoints.files import find
from videolens.model.checkpoints.original import Recorded, flat_patches, originals
from videolens.model.checkpoints.processor import Processed, processed, tokens_apart
from videolens.model.families import Family
from videolens.model.transformer import HookedVideoTransformer
from videolens.prompt.prompt import Prompt
from videolens.question import Question
from videolens.video.video import Video

TOLERANCES = {torch.float32: 1e-4, torch.float64: 1e-4, torch.bfloat16: 0.05, torch.float16: 0.02}
"""Largest difference allowed, of the standard deviation of what is compared. In half precision, where the original
differs from itself between eager attention and SDPA, twice that difference if it is more."""


@dataclass(frozen=True)
class Compared:
    """One line of a check.

    Attributes:
        what: "pixels", "token ids", "layer-0 residual", "residual per layer", "logits", "top-5 words".
        pair: what was compared with what.
        difference: the largest, in standard deviations (pixels: in levels of 255; words and ids:
            how many differ); None: not compared.
        tolerance: the largest allowed; None: reported, not judged.
        note: where it was largest, or why it was not compared.
    """

    what: str
    pair: str
    difference: float | None
    tolerance: float | None
    note: str = ""

    @property
    def passed(self) -> bool:
        """Within tolerance, or not judged. Not a number is never within tolerance."""
        return self.difference is None or self.tolerance is None or self.difference <= self.tolerance


@dataclass(frozen=True)
class Check:
    """What a check found.

    Attributes:
        lines: in order.
        notes: what could not be compared, and with what the model was asked.
    """

    model: str
    dtype: torch.dtype
    lines: tuple[Compared, ...]
    notes: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether every line is."""
        return all(line.passed for line in self.lines)

    def markdown(self) -> str:
        """The parity table."""
        rows = ["| what | compared | largest difference | tolerance | |", "|---|---|---|---|---|"]
        for line in self.lines:
            found = "–" if line.difference is None else f"{line.difference:.1e}"
            allowed = "–" if line.tolerance is None else f"{line.tolerance:.1e}"
            judged = "not judged" if line.tolerance is None else "ok" if line.passed else "**too far**"
            verdict = "not compared" if line.difference is None else judged
            note = f"{verdict}; {line.note}" if line.note else verdict
            rows.append(f"| {line.what} | {line.pair} | {found} | {allowed} | {note} |")
        head = f"{self.model}, {str(self.dtype).removeprefix('torch.')}"
        return "\n".join([head, "", *rows, "", *self.notes])


def default_clip(n_frames: int = 8) -> Video:
    """A light square that moves to the right, 2 frames a second; a `VideoError` if it has no frames."""
    if n_frames < 1:
        raise VideoError(f"a clip has 1 frame or more, {n_frames} were asked for")
    frames = torch.zeros(n_frames, 96, 128, 3, dtype=torch.uint8)
    for i in range(n_frames):
        left = 8 + i * 80 // n_frames
        frames[i] = 40 + 10 * i
        frames[i, 32:64, left : left + 32] = torch.tensor([230, 200, 40], dtype=torch.uint8)
    return Video.from_array(frames, fps=2.0)


@torch.no_grad()
def check_model(
    name: str | os.PathLike[str],
    *,
    video: Video | None = None,
    dtype: torch.dtype = torch.float32,
    base: str | os.PathLike[str] | None = None,
    trust_remote_code: bool = False,
) -> Check:
    """Compare a checkpoint as this package runs it with the original in transformers, on one question about one clip.

    1. Load it here; make the prompt; keep residuals and logits, with fused attention and eagerly.
    2. Let go of it and load the original, so that only one of them is in memory. Give it the same ids and pixels, and
       the times that the checkpoint's own processor hands over, with eager attention and with SDPA. Where that
       processor cannot be built (those of videos need torchvision), times are computed as it does.
    3. Compare. Where transformers has no class for the layout, only our two ways are compared, and that is said.

    Args:
        name: a bundled model, a directory, or a repository on the hub.
        video: what to ask about; None: `default_clip()`.
        dtype: of both. Only float32 can show that they compute the same.
        base: what an adapter is for, as in `from_pretrained`. Here it is merged; in the original its layers stay apart.

    Raises:
        ModelError: it cannot be found or loaded.
    """
    video = default_clip() if video is None else video
    located = find(name, base=base, trust_remote_code=trust_remote_code)
    directory = located.directory
    # 1. here
    model = HookedVideoTransformer.from_pretrained(name, dtype=dtype, base=base, trust_remote_code=trust_remote_code)
    family, config, tokenizer = model.frontend.family, model.frontend.config, model.tokenizer
    prompt, asked = _prompt(model, video)
    ours = {path: _ours(model, prompt, path) for path in ("sdpa", "eager")}
    tolerance = TOLERANCES.get(dtype, 0.05)
    placeholder = "" if tokenizer is None else tokenizer.convert_ids_to_tokens(model.frontend.video_token)
    processor = processed(directory, prompt, placeholder, trust_remote_code)
    lines = [_pixels(directory, video, prompt, family, config), _ids(prompt, processor)]
    notes = [asked]
    if located.adapter is not None:
        notes.append(f"An adapter ({located.adapter.kind}), merged here; in the original its layers are peft's own.")
    del model
    gc.collect()
    # 2. and 3. the original, and the comparison
    if isinstance(family.architecture, str):
        handed = {} if isinstance(processor, str) else processor.others
        theirs = originals(family, located, prompt, dtype, trust_remote_code, handed)
        if dtype not in (torch.float32, torch.float64):
            apart = _lines("", theirs["eager"], theirs["sdpa"], None, tokenizer)[:3]
            tolerance = max(tolerance, *(2 * (line.difference or 0.0) for line in apart))
        for mine in ("sdpa", "eager"):
            lines += _lines(f"ours ({mine}), original (eager)", ours[mine], theirs["eager"], tolerance, tokenizer)
        lines += _lines("ours (sdpa), original (sdpa)", ours["sdpa"], theirs["sdpa"], tolerance, tokenizer)
        lines += _lines("original (sdpa), original (eager)", theirs["sdpa"], theirs["eager"], None, tokenizer)
    else:
        lines += _lines("ours (sdpa), ours (eager)", ours["sdpa"], ours["eager"], tolerance, tokenizer)
        notes.append(
            f"transformers has no class for the layout of {family.model_type!r}: only our own two ways of computing "
            "attention were compared. docs/models.md says how its conversion is proven"
        )
    return Check(os.fspath(name), dtype, tuple(lines), tuple(notes))


def _prompt(model: HookedVideoTransformer, video: Video) -> tuple[Prompt, str]:
    """A question in the checkpoint's own words, else in those of "vicuna", else of the first token ids."""
    question = Question(video, "What happens in the video?", ["It moves to the right", "It stands still"])
    if model.tokenizer is None:
        ids = [i for i in range(1, 17) if i != model.frontend.video_token]
        ids = [*ids[:4], model.frontend.video_token, *ids[4:]]
        return model.prompt_from_ids(ids, model.pixels(video.frames)[None]), "No tokenizer files: asked with token ids."
    try:
        prompt = model.prompt(question)
    except PromptError as error:
        if model.template is not None:
            raise
        prompt = model.prompt(question, "vicuna")
        return prompt, f"Asked with the template 'vicuna', because: {error}"
    return prompt, f"Asked: {prompt.text!r}"


def _ours(model: HookedVideoTransformer, prompt: Prompt, path: str) -> Recorded:
    with model.attention_path(path):
        logits, cache = model.run_with_cache(
            prompt, names_filter=lambda name: name == "hook_embed" or name.endswith("hook_resid_post")
        )
    streams = [cache["hook_embed"], *(cache["resid_post", layer] for layer in range(model.cfg.n_layers))]
    return Recorded([stream[0].float().cpu() for stream in streams], logits[0].float().cpu())


def _ids(prompt: Prompt, processor: Processed | str) -> Compared:
    """Our token ids against those of the checkpoint's own processor."""
    pair = "ours, the processor of the checkpoint"
    if isinstance(processor, str):
        return Compared("token ids", pair, None, None, processor)
    apart, note = tokens_apart(prompt, processor)
    return Compared("token ids", pair, apart, 0.0, note)


def _pixels(directory: Any, video: Video, prompt: Prompt, family: Family, config: Any) -> Compared:
    """Prepared frames against the image processor of transformers, frame by frame."""
    pair = "ours, the image processor of transformers (PIL)"
    mine = prompt.pixel_values
    assert mine is not None
    if (why := family.unlike_processor) is not None:
        return Compared("pixels", pair, None, None, why)
    try:
        from transformers import AutoImageProcessor

        processor = AutoImageProcessor.from_pretrained(str(directory), backend="pil")
        images = [frame.numpy() for frame in video.frames]
        given = processor(images=images, return_tensors="pt")["pixel_values"]
    except Exception as error:  # whatever keeps transformers from reading its own file
        why = f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
        return Compared("pixels", pair, None, None, f"transformers cannot make its processor: {why}")
    given = given.flatten(0, -4) if given.ndim > 3 else given
    if given.ndim == 2:
        patch, columns = config.vision_config.patch_size, prompt.tokens.grid[2]
        group = given.shape[1] // (3 * patch * patch)
        each = repeat(mine[0], "frame c h w -> frame group c h w", group=group)
        mine = flat_patches(each, patch=patch, merge=mine.shape[-1] // patch // columns, group=group)
    else:
        mine = mine[0]
    if given.shape != mine.shape:
        note = f"its images are {tuple(given.shape)}, our frames {tuple(mine.shape)}: a video has limits of its own"
        return Compared("pixels", pair, None, None, note)
    std = max(getattr(processor, "image_std", None) or [1.0])
    apart, tolerance = float((given - mine.cpu()).abs().max()), 1.001 + 255 * 1e-2 * (mine.dtype != torch.float32)
    return Compared("pixels", pair, apart * std * 255, tolerance, "in levels of 255")


def _lines(pair: str, one: Recorded, other: Recorded, tolerance: float | None, tokenizer: Any) -> list[Compared]:
    off = [apart(a, b) for a, b in zip(one.streams, other.streams, strict=True)]
    worst = max(range(1, len(off)), key=lambda i: math.inf if math.isnan(off[i]) else off[i])
    words = [run.logits[-1].topk(5).indices.tolist() for run in (one, other)]
    shown = [tokenizer.decode([token]) if tokenizer is not None else str(token) for token in words[1]]
    # words of equal probability may change places, so that they are reported and not judged
    return [
        Compared("layer-0 residual", pair, off[0], tolerance),
        Compared("residual per layer", pair, off[worst], tolerance, f"largest after layer {worst - 1}"),
        Compared("logits", pair, apart(one.logits, other.logits), tolerance),
        Compared("top-5 words", pair, float(len(set(words[0]) ^ set(words[1])) // 2), None, " ".join(map(repr, shown))),
    ]
