"""Random tiny checkpoints on disk as their authors publish them: weights, config, tokenizer, preprocessor files."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast


@dataclass(frozen=True)
class Storage:
    """How weights lie on disk.

    Attributes:
        dtype: of the files.
        shards: 1: model.safetensors; more: model-0000i-of-0000n.safetensors and their index.
    """

    dtype: torch.dtype = torch.float32
    shards: int = 1


STORAGES = {
    "fp32": Storage(),
    "fp32 sharded": Storage(shards=3),
    "bf16": Storage(torch.bfloat16),
    "fp16 sharded": Storage(torch.float16, shards=2),
}
"""For `@pytest.mark.parametrize("storage", STORAGES.values(), ids=STORAGES)`."""


@torch.no_grad()
def randomise(module: nn.Module, *, seed: int = 0, gain: float = 2.0) -> Any:
    """Random weights, large enough that attention is far from uniform; every norm and bias is random too.

    Projections have a standard deviation of `gain` / √(inputs), so that attention logits do not depend on a model's
    width. Tied parameters stay tied. Returns the module, in float32 and without dropout.
    """
    generator = torch.Generator().manual_seed(seed)
    module.float().eval()
    for name, parameter in module.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        last = name.rpartition(".")[2]
        if last.endswith("bias"):
            parameter.copy_(0.1 * noise)
        elif "norm" in name.lower() or ".ln" in name:
            parameter.copy_(1 + 0.2 * noise)
        elif parameter.ndim < 2 or "embedding" in name or "embed_tokens" in name:
            parameter.copy_(0.35 * noise)
        else:
            parameter.copy_(gain / parameter[0].numel() ** 0.5 * noise)
    return module


@torch.no_grad()
def rounded(module: nn.Module, storage: Storage) -> Any:
    """A copy with the weights that survive on disk, in float32 again: what a half-precision checkpoint holds."""
    other = copy.deepcopy(module)
    for parameter in other.parameters():
        parameter.copy_(parameter.to(storage.dtype).float())
    return other


def write_module(
    directory: Path, module: Any, storage: Storage = STORAGES["fp32"], *, files: Mapping[str, Any] | None = None
) -> Path:
    """A transformers model as transformers publishes it (its own key layout and config.json).

    Args:
        files: further JSON files by name, such as preprocessor_config.json.
    """
    half = copy.deepcopy(module).to(storage.dtype)
    n_bytes = sum(p.numel() * p.element_size() for p in half.parameters())
    biggest = max(p.numel() * p.element_size() for p in half.parameters())
    half.save_pretrained(directory, max_shard_size=max(n_bytes // storage.shards, biggest) + 1)
    found = len(list(directory.glob("*.safetensors")))
    assert (found > 1) == (storage.shards > 1), f"{found} files for {storage}"
    return _write_files(directory, files)


def write_state(
    directory: Path,
    state: Mapping[str, Tensor],
    config: Mapping[str, Any],
    storage: Storage = STORAGES["fp32"],
    *,
    files: Mapping[str, Any] | None = None,
) -> Path:
    """Tensors under the keys that a checkpoint was published with, and its config.json as it was published.

    Args:
        state: key → tensor. Tied weights: give one of the keys, as checkpoints do.
        config: what config.json says; `torch_dtype` is set from the storage.
        files: further JSON files by name.
    """
    tensors = {
        key: (value.to(storage.dtype) if value.is_floating_point() else value).clone().contiguous()
        for key, value in state.items()
    }
    names = dtype_name = str(storage.dtype).removeprefix("torch.")
    if storage.shards == 1:
        save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    else:
        where = {}
        keys = list(tensors)
        for i in range(storage.shards):
            names = f"model-{i + 1:05}-of-{storage.shards:05}.safetensors"
            part = {key: tensors[key] for key in keys[i :: storage.shards]}
            save_file(part, directory / names, metadata={"format": "pt"})
            where |= dict.fromkeys(part, names)
        total = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
        index = {"metadata": {"total_size": total}, "weight_map": where}
        (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    return _write_files(directory, {"config.json": {**config, "torch_dtype": dtype_name}, **(files or {})})


def _write_files(directory: Path, files: Mapping[str, Any] | None) -> Path:
    for name, content in (files or {}).items():
        (directory / name).write_text(json.dumps(content, indent=1))
    return directory


# -- tokenizers

FIRST_SPECIAL = 256


def special_ids(special: Sequence[str]) -> dict[str, int]:
    """The ids that `byte_tokenizer(special)` gives them: 256, 257, … in order."""
    return {token: FIRST_SPECIAL + i for i, token in enumerate(special)}


def byte_tokenizer(
    special: Sequence[str],
    *,
    bos: str | None = None,
    eos: str | None = None,
    pad: str | None = None,
    chat_template: str | None = None,
    prepend_bos: bool = False,
) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer without merges: any text is representable, one token a byte, and round trips exactly.

    Args:
        special: the family's own tokens (placeholders, <|im_start|>, …), each one token; `special_ids` says which.
        bos, eos, pad: which of them (or others, added after them) are that.
        chat_template: Jinja text, as checkpoints carry it.
        prepend_bos: whether every text gets the beginning-of-sequence token.
    """
    tokens = list(dict.fromkeys([*special, *(token for token in (bos, eos, pad) if token)]))
    vocab = {letter: i for i, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))} | special_ids(tokens)
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in tokens])
    if prepend_bos:
        assert bos is not None
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, special_ids(tokens)[bos])]
        )
    made = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=bos, eos_token=eos, pad_token=pad)
    if chat_template is not None:
        made.chat_template = chat_template
    return made
