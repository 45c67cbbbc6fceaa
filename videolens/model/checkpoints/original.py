"""The original of a checkpoint, as transformers runs it on the prompts of this package."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from videolens.model.checkpoints.files import Located
from videolens.model.checkpoints.merging import attach
from videolens.model.checkpoints.quietly import without_bars
from videolens.model.families import Family
from videolens.prompt.prompt import Prompt


@dataclass(frozen=True)
class Recorded:
    """What one way of computing gives: streams [pos d_model], before layer 0 and after every layer; last logits too."""

    streams: list[Tensor]
    logits: Float[Tensor, "pos d_vocab"]


def originals(
    family: Family,
    located: Located,
    prompt: Prompt,
    dtype: torch.dtype,
    trust_remote_code: bool,
    handed: Mapping[str, Any],
) -> dict[str, Recorded]:
    """What the transformers class of a family gives for a prompt, with attention "eager" and "sdpa".

    Args:
        located: the checkpoint. An adapter's layers are put in place by peft, and stay apart from the weights.
        prompt: one, with pixels, on the CPU.
        handed: what the checkpoint's own processor hands over beside ids and pixels, such as times; empty where it
            cannot be built.
    """
    import transformers

    assert isinstance(family.architecture, str)
    with without_bars():
        original = getattr(transformers, family.architecture).from_pretrained(
            str(located.directory), dtype=dtype, use_safetensors=True, trust_remote_code=trust_remote_code
        )
    original.eval()
    if located.adapter is not None:
        attach(original, located.adapter, family)
    streams: list[Tensor] = []
    layers = original.get_submodule(family.decoder).layers
    layers[0].register_forward_pre_hook(
        lambda module, args, kwargs: streams.append(args[0] if args else kwargs["hidden_states"]), with_kwargs=True
    )
    for layer in layers:
        layer.register_forward_hook(
            lambda module, args, output: streams.append(output if isinstance(output, Tensor) else output[0])
        )
    times = {name: torch.as_tensor(handed[name]) for name in ("second_per_grid_ts",) if name in handed}
    found = {}
    for path in ("eager", "sdpa"):
        original.set_attn_implementation(path)
        streams.clear()
        logits = original(**_inputs(original, prompt) | times, use_cache=False).logits
        found[path] = Recorded([stream[0].float() for stream in streams], logits[0].float())
    return found


def _inputs(original: Any, prompt: Prompt) -> dict[str, Any]:
    """A prompt's ids and pixels under the names, and in the layout, that the original's `forward` has for them."""
    named = set(inspect.signature(original.forward).parameters)
    ids, pixels = prompt.input_ids, prompt.pixel_values
    assert pixels is not None
    given: dict[str, Any] = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if "pixel_attention_mask" in named:  # of images beside one another; every pixel counts
        return {**given, "pixel_values": pixels}
    if "pixel_values_videos" not in named:  # frames are images to it
        return {**given, "pixel_values": pixels.flatten(0, 1)}
    if "video_grid_thw" not in named:
        return {**given, "pixel_values_videos": pixels}
    config, tokens = original.config, prompt.tokens
    frames, rows, columns = tokens.grid
    patch = config.vision_config.patch_size
    merge = pixels.shape[-1] // patch // columns
    given["pixel_values_videos"] = flat_patches(pixels, patch=patch, merge=merge, group=tokens.merged)
    given["video_grid_thw"] = torch.tensor([[frames, rows * merge, columns * merge]])
    if "video_merge_sizes" in named:
        given["video_merge_sizes"] = torch.tensor([merge])
        given["video_compression_mask"] = torch.ones(frames * rows * columns, dtype=torch.bool)
    if "mm_token_type_ids" in named:
        given["mm_token_type_ids"] = 2 * (ids == config.video_token_id).int()
    if "second_per_grid_ts" in named:
        fps = None if prompt.question is None else prompt.question.video.sampled_fps
        # as the processor computes it, transformers' `processing_qwen2_5_vl.py`
        given["second_per_grid_ts"] = torch.tensor([1.0 if fps is None else tokens.merged / fps])
    return given


def flat_patches(
    pixels: Float[Tensor, "batch frame channel height width"], *, patch: int, merge: int, group: int
) -> Float[Tensor, "patch values"]:
    """Frames as video processors of transformers flatten them; the last frame is repeated to fill its group."""
    missing = -pixels.shape[1] % group
    pixels = torch.cat([pixels, pixels[:, -1:].expand(-1, missing, -1, -1, -1)], dim=1)
    flat = "b (t group) c (row mh ph) (column mw pw) -> (b t row column mh mw) (c group ph pw)"
    return rearrange(pixels, flat, group=group, mh=merge, mw=merge, ph=patch, pw=patch)
