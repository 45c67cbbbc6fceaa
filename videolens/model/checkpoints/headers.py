"""What the weight files of a checkpoint hold, by their index and headers: no weight is read."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from videolens.errors import ModelError
from videolens.model.checkpoints.settings import is_there, read_settings
from videolens.reading import Fields, fields_from, parse_json

_LONGEST_HEADER = 100 * 2**20
_BITS = {"BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "U16": 16, "I16": 16, "F16": 16, "BF16": 16}
_BITS |= {"U32": 32, "I32": 32, "F32": 32, "U64": 64, "I64": 64, "F64": 64}
INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"
_PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt")
_PICKLED_HINT = (
    "pickled weights can run code when they are opened and are refused: where you trust them, "
    "`state = torch.load(file, map_location='cpu', weights_only=True)`, then "
    "`safetensors.torch.save_file({key: weight.clone() for key, weight in state.items()}, 'model.safetensors')`"
)

GGUF = (
    "a GGUF file holds the text tower alone, in blocks that no layer of torch multiplies by, and is not read: use the "
    "checkpoint in safetensors it was made from, or one that bitsandbytes has quantised"
)


_Size = Annotated[int, Field(ge=0, lt=2**62)]


class _Tensor(Fields):
    """What the header of a safetensors file says of a weight."""

    dtype: str
    shape: list[_Size]
    data_offsets: tuple[_Size, _Size] = Field(strict=False)


@dataclass(frozen=True)
class Stored:
    """A weight in a file: where, in which shape, and in which dtype, as safetensors calls it ("BF16")."""

    file: Path
    shape: tuple[int, ...]
    dtype: str


def stored_weights(directory: Path) -> dict[str, Stored]:
    """What the weight files hold, from the index and their headers; no weight is read.

    1. Which files: those of model.safetensors.index.json, else model.safetensors, else the only *.safetensors file.
    2. Each file is there and as long as its header says.
    3. Each holds what the index says.

    Raises:
        ModelError: one of them does not hold; names the file and what was expected of it.
    """
    # 1. which files
    index = directory / INDEX
    claimed: dict[str, str] = {}
    if is_there(index):
        claimed = read_settings(index).get("weight_map") or {}
        if not isinstance(claimed, dict) or not claimed or not all(map(_is_file_name, claimed.values())):
            raise ModelError(f'{index} has no "weight_map"; expected one from the key of each weight to its file')
        files = [directory / file for file in sorted(set(claimed.values()))]
    else:
        files = [directory / SINGLE] if (directory / SINGLE).is_file() else sorted(directory.glob("*.safetensors"))
        if len(files) != 1:
            raise ModelError(_no_weights(directory, files))
    # 2. each file is there and whole
    found: dict[str, Stored] = {}
    for file in files:
        if not file.is_file():
            keys = [key for key, where in claimed.items() if where == file.name]
            raise ModelError(
                f"{file} is missing; {INDEX} expects it to hold {len(keys)} weights ({keys[0]!r}, …): fetch all "
                f"{len(files)} files of the checkpoint"
            )
        found |= file_weights(file)
    # 3. each holds what the index says
    for key, file_name in claimed.items():
        if key not in found or found[key].file.name != file_name:
            raise ModelError(f"{directory / file_name} does not hold {key!r}, which {INDEX} expects in it")
    return found


def _no_weights(directory: Path, files: list[Path]) -> str:
    if files:
        names = [file.name for file in files]
        return f"{directory} holds {names}, but neither {SINGLE} nor {INDEX}, which says what is in which file"
    if packed := sorted(path.name for path in directory.glob("*.gguf")):
        return f"{directory} holds {packed}: {GGUF}"
    pickled = sorted(path.name for pattern in _PICKLED for path in directory.glob(pattern))
    held = f"only {pickled}; {_PICKLED_HINT}" if pickled else f"expected {SINGLE}, or {INDEX} and its files"
    return f"{directory} holds no *.safetensors file, {held}"


def _is_file_name(name: Any) -> bool:
    """Whether it names a file in the folder itself."""
    return isinstance(name, str) and name not in ("", ".", "..") and not {"/", "\\", "\0"} & set(name)


def file_weights(file: Path) -> dict[str, Stored]:
    """The entries of a safetensors file: 8 bytes with the length of a JSON header, the header, then the weights.

    Weights lie one behind the other, without gaps, each as long as its shape and dtype say.

    Raises:
        ModelError: it is damaged, truncated or of another format; names what was expected.
    """
    size = 0
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if length > min(size - 8, _LONGEST_HEADER):
                raise ValueError(f"its header should take {length} bytes")
            entries = parse_json(stream.read(length), where="its header")
        if not isinstance(entries, dict):
            raise ValueError(f"its header is {entries!r:.40}")
        entries.pop("__metadata__", None)
        said = {key: fields_from(_Tensor, entry, repr(key)) for key, entry in entries.items()}
    except (OSError, ValueError) as error:  # VideolensError is a ValueError
        raise ModelError(
            f"{file} cannot be read as safetensors: {size} bytes, {error}; it is truncated or of another format, fetch "
            "it again"
        ) from error
    end = 0
    for key, each in sorted(said.items(), key=lambda one: one[1].data_offsets):
        first, stop = each.data_offsets
        numbers = math.prod(each.shape)
        if first != end or (stop - first != -(-numbers * _BITS.get(each.dtype, 0) // 8) and each.dtype in _BITS):
            raise ModelError(
                f"{file} is damaged: {key!r} should lie at bytes {first} to {stop}, behind others that end at {end}, "
                f"and be {numbers} numbers of {each.dtype}: fetch it again"
            )
        end = stop
    if size != 8 + length + end:
        numbers = sum(math.prod(each.shape) for each in said.values())
        raise ModelError(
            f"{file} has {size} bytes; its header expects {8 + length + end} ({numbers} numbers): it is truncated or "
            "damaged, fetch it again"
        )
    return {key: Stored(file, tuple(each.shape), each.dtype) for key, each in said.items()}
