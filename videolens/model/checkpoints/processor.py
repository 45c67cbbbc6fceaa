"""What the processor that comes with a checkpoint makes of a question, beside our prompt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor

from videolens.prompt.prompt import Prompt


@dataclass(frozen=True)
class Processed:
    """What a processor hands to the original.

    Attributes:
        input_ids: of the question, video tokens in place.
        others: what else it hands over, by name, pixels included.
    """

    input_ids: Int64[Tensor, " pos"]
    others: Mapping[str, Any]


def processed(directory: Path, prompt: Prompt, placeholder: str, trust_remote_code: bool) -> Processed | str:
    """A prompt's text and frames through the processor of its checkpoint; or why that cannot be done.

    The frames are those of the prompt, with what a reader of transformers says of them (`VideoMetadata`): it does not
    choose any of its own. Processors of videos need torchvision.

    Args:
        directory: of the checkpoint.
        prompt: of a question.
        placeholder: what stands for the video in `prompt.text`.
    """
    if prompt.question is None or prompt.text is None:
        return "asked with token ids, which no processor takes"
    from transformers import AutoProcessor
    from transformers.video_utils import VideoMetadata

    video = prompt.question.video
    assert video.fps is not None and video.sampled_fps is not None
    # of the part that was sampled: the number of frames by which processors work out the rate of sampled frames
    total = round(len(video) * video.fps / video.sampled_fps)
    said = VideoMetadata(total_num_frames=total, fps=video.fps, frames_indices=video.indices.tolist())
    try:
        processor = AutoProcessor.from_pretrained(str(directory), trust_remote_code=trust_remote_code)
        if getattr(processor, "video_processor", None) is None:
            return f"{type(processor).__name__} takes no videos"
        found = processor(
            text=[prompt.text.replace(placeholder, processor.video_token)],
            videos=[video.frames.numpy()],
            video_metadata=[said],
            do_sample_frames=False,
            return_tensors="pt",
        )
    except Exception as error:  # whatever keeps transformers from building or using its own processor
        return f"transformers cannot use its processor: {type(error).__name__}: {' '.join(str(error).split())[:120]}"
    others = {name: value for name, value in found.items() if name not in ("input_ids", "attention_mask")}
    return Processed(torch.as_tensor(found["input_ids"])[0], others)


def tokens_apart(prompt: Prompt, other: Processed) -> tuple[float, str]:
    """(how many token ids differ, where they first do)."""
    mine, theirs = prompt.input_ids[0].cpu(), other.input_ids
    common = min(len(mine), len(theirs))
    unequal = (mine[:common] != theirs[:common]).nonzero().flatten().tolist()
    apart = len(unequal) + abs(len(mine) - len(theirs))
    if not apart:
        return 0.0, f"all {len(mine)}"
    first = unequal[0] if unequal else common
    return float(apart), f"{len(mine)} and {len(theirs)} ids; the first that differs is at position {first}"
