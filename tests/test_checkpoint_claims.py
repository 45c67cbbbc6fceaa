"""What a checkpoint's files claim is checked before anything is built: sizes against the headers, fields by kind."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jaxtyping
import pytest
import torch
from helpers.families import CASES
from safetensors.torch import save_file

import videolens as vl
from videolens.errors import ModelError
from videolens.model.vision.pixels import FILES, preparation_of

NAMES = ("llava_next_video", "pllava", "qwen2_vl", "internvl_chat")


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> dict[str, Path]:
    made = {}
    for name in NAMES:
        made[name] = tmp_path_factory.mktemp(name)
        CASES[name].write(made[name], CASES[name].plain)
    return made


@pytest.fixture
def copy(whole, tmp_path) -> Callable[[str], Path]:
    return lambda name="llava_next_video": shutil.copytree(whole[name], tmp_path / name)


def changed(file: Path, *path: str, value: Any) -> None:
    """With something else at a place; `...` takes it away."""
    content = json.loads(file.read_text())
    part = content
    for key in path[:-1]:
        part = part[key]
    if value is ...:
        del part[path[-1]]
    else:
        part[path[-1]] = value
    file.write_text(json.dumps(content))


def refused(directory: Path, said: str, *, most_s: float = 5.0) -> None:
    began = time.process_time()
    with pytest.raises(ModelError, match=said) as caught:
        vl.HookedVideoTransformer.from_pretrained(directory)
    assert time.process_time() - began < most_s and len(str(caught.value)) > 20


@pytest.mark.usefixtures("nothing_built")
@pytest.mark.parametrize(
    ("name", "path", "value", "said"),
    [
        ("llava_next_video", ("text_config", "num_hidden_layers"), 10**9, "num_hidden_layers 1000000000"),
        (
            "llava_next_video",
            ("vision_config", "num_hidden_layers"),
            10**9,
            "vision_config.num_hidden_layers 1000000000",
        ),
        ("llava_next_video", ("text_config",), ..., "describes a model of .* numbers"),
        ("llava_next_video", ("text_config", "vocab_size"), 10**6, r"embed_tokens.weight \[1000000, "),
        ("llava_next_video", ("text_config", "intermediate_size"), 10**7, r"\[10000000, "),
        ("llava_next_video", ("vision_config", "image_size"), 10**6, "describes a model of"),
        ("pllava", ("text_config", "num_hidden_layers"), 10**9, "num_hidden_layers 1000000000"),
        ("pllava", ("text_config", "vocab_size"), 10**6, r"\[1000000, "),
        ("qwen2_vl", ("vision_config", "depth"), 10**9, "depth 1000000000"),
        ("internvl_chat", ("llm_config", "num_hidden_layers"), 10**9, "num_hidden_layers 1000000000"),
    ],
)
def test_a_size_that_the_files_do_not_hold(copy, name: str, path: tuple[str, ...], value: Any, said: str) -> None:
    directory = copy(name)
    changed(directory / "config.json", *path, value=value)
    refused(directory, said)


@pytest.mark.usefixtures("nothing_built")
@pytest.mark.parametrize("name", NAMES)
def test_a_width_too_large_even_to_be_counted(copy, name: str) -> None:
    """The meta device counts numbers, but not 2**62 of them: every width is compared first."""
    directory = copy(name)
    whole = json.loads((directory / "config.json").read_text())
    places = [
        (part, key)
        for part, settings in [("", whole), *whole.items()]
        if isinstance(settings, dict)
        for key, value in settings.items()
        if key.endswith(("hidden_size", "vocab_size", "image_size", "_heads", "intermediate_size")) and value
    ]
    assert len(places) > 4, "the checkpoint says its widths"
    for part, key in places:
        content = json.loads(json.dumps(whole))
        (content[part] if part else content)[key] = 2**31
        (directory / "config.json").write_text(json.dumps(content))
        refused(directory, f"{key} 2147483648, and the files hold")


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("architectures",), 5, "architectures.*5"),
        (("quantization_config",), "x", "quantization_config.*'x'"),
        (("auto_map",), "x", "auto_map.*'x'"),
        (("model_type",), ["a"], "model_type"),
        (("spatial_pool_stride",), 0, "spatial_pool_stride"),
        (("vision_feature_layer",), -99, "vision_feature_layer -99.* hidden states"),
        (("vision_feature_layer",), "x", "x"),
        (("video_token_index",), -5, "video_token_ind|video_token_id"),
        (("text_config", "rms_norm_eps"), "x", "rms_norm_eps|x"),
        (("text_config",), "x", "config"),
        (("vision_config", "patch_size"), 0, "config"),
        (("prompt_template",), 5, "prompt_template"),
    ],
)
def test_settings_of_the_wrong_kind(copy, path: tuple[str, ...], value: Any, said: str) -> None:
    directory = copy()
    changed(directory / "config.json", *path, value=value)
    refused(directory, said, most_s=20)


def test_settings_that_are_nested_without_end(copy) -> None:
    directory = copy()
    (directory / "config.json").write_text('{"a":' * 50_000)
    refused(directory, "nested")
    (directory / "config.json").unlink()
    (directory / "config.json").symlink_to("nowhere")
    refused(directory, "which the link leads to")


@pytest.mark.parametrize("value", ["x", -1, 1.5, [None, "x"], {}, 2**40])
def test_ids_that_are_none(copy, value: Any) -> None:
    directory = copy()
    (directory / "generation_config.json").write_text(json.dumps({"eos_token_id": value}))
    refused(directory, "generation_config.json.*eos_token_id")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokenizer_config.json", "["),
        ("tokenizer_config.json", "[1]"),
        ("tokenizer.json", "{"),
        ("tokenizer.json", '{"version": "1.0", "model": 3}'),
        ("special_tokens_map.json", '{"a":' * 5000),
        ("chat_template.json", "{}"),
    ],
)
def test_a_tokenizer_that_cannot_be_read(copy, name: str, content: str) -> None:
    directory = copy()
    (directory / name).write_text(content)
    refused(directory, name.replace(".", r"\."), most_s=20)


def entries(file: Path) -> tuple[dict[str, Any], bytes]:
    content = file.read_bytes()
    length = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def overlapping(header: dict[str, Any]) -> None:
    one, other, *_ = [key for key in header if key != "__metadata__"]
    header[other]["data_offsets"] = header[one]["data_offsets"]


def of_another_size(header: dict[str, Any]) -> None:
    next(entry for key, entry in header.items() if key != "__metadata__")["shape"] = [10**9, 10**9]


def of_another_kind(value: Any, field: str) -> Callable[[dict[str, Any]], None]:
    def change(header: dict[str, Any]) -> None:
        next(entry for key, entry in header.items() if key != "__metadata__")[field] = value

    return change


@pytest.mark.parametrize(
    "change",
    [
        overlapping,
        of_another_size,
        *(of_another_kind(value, "shape") for value in ("x", [-1], [1.5], None, [[1]], [2**70])),
        *(of_another_kind(value, "dtype") for value in (5, None, ["F32"])),
        *(of_another_kind(value, "data_offsets") for value in ([0], [5, 1], "x", [0, 2**70], [-4, 0], None)),
    ],
)
def test_headers_that_contradict_themselves(copy, change: Callable[[dict[str, Any]], None]) -> None:
    file = copy() / "model.safetensors"
    header, weights = entries(file)
    change(header)
    text = json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + weights)
    refused(file.parent, r"model\.safetensors")


@pytest.mark.parametrize(
    "head", [b"", b"\x01", b"\xff" * 8, (2**40).to_bytes(8, "little"), b"\x02" + b"\0" * 7 + b"[]"]
)
def test_headers_that_are_none(copy, head: bytes) -> None:
    file = copy() / "model.safetensors"
    file.write_bytes(head)
    refused(file.parent, "cannot be read as safetensors")


def test_an_index_that_leads_out_of_the_directory(copy, tmp_path) -> None:
    directory = copy()
    save_file({"a": torch.zeros(1)}, tmp_path / "outside.safetensors")
    index = {"weight_map": {"a": "../outside.safetensors"}}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    refused(directory, "weight_map")


@pytest.mark.parametrize(
    "settings",
    [
        [],
        {"size": "x"},
        {"size": {"shortest_edge": 10**9}},
        {"size": {"shortest_edge": -1}},
        {"size": {"height": [], "width": 1}},
        {"crop_size": 0},
        {"image_mean": 5},
        {"image_mean": [0.5]},
        {"image_std": [0, 0, 0]},
        {"image_std": [0.5, "x", 0.5]},
        {"rescale_factor": "x"},
        {"resample": [3]},
        {"do_resize": "no"},
        {"video_processor": 3},
        {"patch_size": 0},
        {"max_pixels": 1e300},
    ],
)
@pytest.mark.parametrize("name", FILES)
def test_preprocessor_settings_that_cannot_be_followed(tmp_path, name: str, settings: Any) -> None:
    content = settings if isinstance(settings, list) else {"size": 224, "image_mean": [0.5] * 3} | settings
    (tmp_path / name).write_text(json.dumps(content))
    with pytest.raises(ModelError, match=name.replace(".", r"\.")):
        preparation_of(tmp_path)


def test_frames_far_larger_than_the_tower_takes(copy) -> None:
    directory = copy()
    [file] = [directory / name for name in FILES if (directory / name).is_file()]
    file.write_text(json.dumps(json.loads(file.read_text()) | {"size": 4000, "crop_size": 4000}))
    refused(directory, "frames of 4000 pixels, and the vision tower takes 32", most_s=20)


@pytest.mark.parametrize("name", [None, 3, b"shapes", "x" * 5000, "a\0b", "~no_such_user_here"])
def test_names_that_are_none(monkeypatch, name: Any) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ModelError, match="bundled models"):
        vl.HookedVideoTransformer.from_pretrained(name)
