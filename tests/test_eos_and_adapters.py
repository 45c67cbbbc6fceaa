"""What a checkpoint's other files say counts: every id that ends an answer; weights of adapters are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.models import EOS, tiny_llava_next_video
from helpers.prompts import tiny_prompt
from helpers.tokenizer import tiny_tokenizer
from safetensors.torch import load_file, save_file
from torch import nn

import videolens as vl
from videolens.errors import ModelError

load = vl.HookedVideoTransformer.from_pretrained


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    tiny_llava_next_video(tmp_path)
    return tmp_path


def write(path: Path, content: Any) -> None:
    path.write_text(content if isinstance(content, str) else json.dumps(content))


# -- every id that ends an answer --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("named", "expected"), [([17, 23], {17, 23}), (17, {17}), (None, set()), ([], set())])
def test_all_ids_that_end_an_answer_are_read(checkpoint: Path, named: Any, expected: set[int]) -> None:
    write(checkpoint / "generation_config.json", {"eos_token_id": named})
    tiny_tokenizer().save_pretrained(checkpoint)
    settings = json.loads((checkpoint / "config.json").read_text())
    settings["eos_token_id"], settings["text_config"]["eos_token_id"] = 31, [EOS, 33]
    write(checkpoint / "config.json", settings)
    assert set(load(checkpoint).eos_tokens) == {EOS, 31, 33} | expected


def test_a_model_that_is_loaded_already_brings_its_own() -> None:
    module = tiny_llava_next_video()
    module.generation_config.eos_token_id = [7, 9]
    assert vl.HookedVideoTransformer.from_hugging_face(module).eos_tokens == [EOS, 7, 9]


def test_generation_ends_at_any_of_them(checkpoint: Path) -> None:
    model = load(checkpoint)
    written = model.generate(tiny_prompt(model), 4, stop_at_eos=False).tokens[0].tolist()
    assert EOS not in written
    write(checkpoint / "generation_config.json", {"eos_token_id": [80, written[1]]})
    model = load(checkpoint)
    assert model.generate(tiny_prompt(model), 4).tokens[0].tolist() == written[: written.index(written[1]) + 1]


@pytest.mark.parametrize("content", ["{", [], {"eos_token_id": "</s>"}, {"eos_token_id": [1.5]}, {"eos_token_id": {}}])
def test_a_generation_config_that_is_wrong(checkpoint: Path, content: Any) -> None:
    write(checkpoint / "generation_config.json", content)
    with pytest.raises(ModelError, match=r"generation_config\.json"):
        load(checkpoint)


# -- adapters ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "key", ["model.language_model.layers.0.self_attn.q_proj.lora_A.default.weight", "vision_tower.x.base_layer.weight"]
)
def test_weights_of_an_adapter_among_others_are_refused(checkpoint: Path, key: str) -> None:
    file = checkpoint / "model.safetensors"
    save_file(load_file(file) | {key: torch.zeros(2, 2)}, file, {"format": "pt"})
    with pytest.raises(ModelError, match=r"1 weights of an adapter.*merge_and_unload"):
        load(checkpoint)


class Lora(nn.Module):
    """What PEFT puts in the place of a linear layer; its `weight` is the base layer's."""

    def __init__(self, base_layer: nn.Linear) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.lora_A = nn.ModuleDict({"default": nn.Linear(base_layer.in_features, 2, bias=False)})
        self.in_features, self.out_features, self.bias = base_layer.in_features, base_layer.out_features, None

    @property
    def weight(self) -> nn.Parameter:
        return self.base_layer.weight


@pytest.mark.parametrize("where", ["language_model.layers.1.self_attn", "encoder.layers.0.self_attn"])
def test_a_loaded_model_with_an_adapter_is_refused(where: str) -> None:
    module = tiny_llava_next_video()
    owner = next(each for name, each in module.named_modules() if name.endswith(where))
    name, linear = next((name, each) for name, each in owner.named_modules() if isinstance(each, nn.Linear))
    parent, _, leaf = name.rpartition(".")
    setattr(owner.get_submodule(parent), leaf, Lora(linear))
    with pytest.raises(ModelError, match=r"weights of an adapter.*merge_and_unload"):
        vl.HookedVideoTransformer.from_hugging_face(module)
