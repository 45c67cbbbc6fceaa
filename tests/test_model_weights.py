"""Checkpoints in layouts that transformers has no class for: built by the family, weights mapped from their files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from einops import rearrange
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from videolens.errors import ModelError
from videolens.model.checkpoints.weights import without_storage
from videolens.model.families import Family, register
from videolens.model.transformer import HookedVideoTransformer

VIDEO = 7
TEXT: dict[str, Any] = dict(
    vocab_size=8, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, head_dim=8
)


class _Odd(nn.Module):
    """A Llama, a tower of one matrix, a newline parameter and a buffer, under names of their own."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.language = LlamaForCausalLM(LlamaConfig(**config.llm_config.to_dict()))
        self.tower = nn.Linear(3 * config.patch.size**2, 16)
        self.newline = nn.Parameter(torch.zeros(16))
        self.register_buffer("scale", torch.tensor(3.0))
        self.register_buffer("position_ids", torch.arange(5), persistent=False)


def _features(parts: Any, pixels: Tensor, config: Any) -> Tensor:
    size = config.patch.size
    return parts["tower"](rearrange(pixels, "b f c (y p) (x q) -> b f (y x) (c p q)", p=size, q=size))


ODD = Family(
    model_type="odd",
    architecture=_Odd,
    decoder="language.model",
    unembed="language.lm_head",
    parts={"tower": "tower", "newline": "newline"},
    features=_features,
    project=lambda parts, features, config, grid: features.flatten(1, 2),
    grid=lambda config, frames, height, width: (frames, height // config.patch.size, width // config.patch.size),
    video_token=lambda config: VIDEO,
    rename=((r"^llm\.", "language."), (r"^vision\.", "tower.")),
    ignore=(r"^unused\.",),
)


def odd_checkpoint(directory: Path, *, dtype: torch.dtype = torch.float32, tied: bool = False, shards: int = 1) -> Any:
    """Write a random one in its own layout; gives the module it was written from."""
    from videolens.model.checkpoints.settings import PlainConfig

    settings = {
        "model_type": "odd",
        "architectures": ["OddForVideo"],
        "torch_dtype": str(dtype).removeprefix("torch."),
        "llm_config": TEXT | {"tie_word_embeddings": tied},
        "patch": {"size": 4},
    }
    module = _Odd(PlainConfig(settings)).to(dtype).eval()
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)
    weights = {
        key.replace("language.", "llm.").replace("tower.", "vision."): value.contiguous().clone()
        for key, value in module.state_dict().items()
        if not (tied and key == "language.lm_head.weight")
    }
    weights["unused.weight"] = torch.zeros(2)
    weights["llm.model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.zeros(2)
    (directory / "config.json").write_text(json.dumps(settings))
    if shards == 1:
        save_file(weights, directory / "model.safetensors")
    else:
        where = {key: f"model-{n % shards + 1:05d}-of-{shards:05d}.safetensors" for n, key in enumerate(weights)}
        for file in set(where.values()):
            save_file({key: weights[key] for key in weights if where[key] == file}, directory / file)
        (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    return module


@pytest.fixture(autouse=True)
def family() -> None:
    register(ODD)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("shards", [1, 3])
def test_it_is_the_module_that_was_written(tmp_path, dtype, tied, shards) -> None:
    module = odd_checkpoint(tmp_path, dtype=dtype, tied=tied, shards=shards)
    model = HookedVideoTransformer.from_pretrained(tmp_path)
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}
    assert (model.unembed.weight is model.frontend.embed.weight) == tied
    pixels = torch.randn(1, 2, 3, 8, 8)
    prompt = model.prompt_from_ids([1, VIDEO, 2, 3], pixels)
    table = module.language.get_input_embeddings()
    features = _features({"tower": module.tower}, pixels.to(dtype), model.frontend.config).flatten(1, 2)
    embeds = torch.cat([table(torch.tensor([[1]])), features, table(torch.tensor([[2, 3]]))], dim=1)
    with torch.no_grad():
        expected = module.language(inputs_embeds=embeds).logits.float()
    assert (model(prompt).float() - expected).abs().max() <= (1e-5 if dtype is torch.float32 else 0.05) * expected.std()


def test_a_dtype_that_was_asked_for(tmp_path) -> None:
    odd_checkpoint(tmp_path)
    half = HookedVideoTransformer.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in half.parameters()} == {torch.bfloat16}
    assert half.frontend.rotary.module.inv_freq.dtype == torch.float32  # angles are exact in every dtype


def test_tied_by_the_config_but_stored_apart(tmp_path) -> None:
    odd_checkpoint(tmp_path, tied=True)
    file = tmp_path / "model.safetensors"
    weights = load_file(file)
    save_file(weights | {"llm.lm_head.weight": torch.zeros(8, 16)}, file)
    model = HookedVideoTransformer.from_pretrained(tmp_path)
    assert not model.unembed.weight.any() and model.frontend.embed.weight.all()


def test_buffers_are_computed_parameters_have_no_storage() -> None:
    with without_storage():
        linear, embedding = nn.Linear(2, 2), nn.Embedding(3, 2)
        linear.register_buffer("angles", torch.arange(3.0))
        embedding.weight = linear.weight
    assert linear.weight.is_meta and embedding.weight is linear.weight and linear.bias.is_meta
    assert linear.angles.tolist() == [0, 1, 2]
    assert not nn.Linear(2, 2).weight.is_meta


def test_writing_to_a_model_does_not_write_to_its_file(tmp_path) -> None:
    odd_checkpoint(tmp_path)
    before = (tmp_path / "model.safetensors").read_bytes()
    model = HookedVideoTransformer.from_pretrained(tmp_path)
    for parameter in model.parameters():
        parameter.zero_()
    assert (tmp_path / "model.safetensors").read_bytes() == before


def test_what_does_not_fit_is_named_with_file_and_shape(tmp_path) -> None:
    odd_checkpoint(tmp_path, shards=2)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())["weight_map"]
    key = "llm.model.layers.1.self_attn.q_proj.weight"
    file = tmp_path / index[key]
    weights = load_file(file)
    save_file(weights | {key: weights[key][:3].clone()}, file)
    with pytest.raises(ModelError, match=rf"{key} in {file.name} is \[3, 16\], expected \[16, 16\]"):
        HookedVideoTransformer.from_pretrained(tmp_path)
    save_file({name: each for name, each in weights.items() if name != key} | {"llm.lora": torch.zeros(1)}, file)
    index.pop(key)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    with pytest.raises(ModelError, match=r"1 weights are missing.*q_proj\.weight \[16, 16\].*expected: llm\.lora in"):
        HookedVideoTransformer.from_pretrained(tmp_path)


def test_two_keys_for_one_weight(tmp_path) -> None:
    odd_checkpoint(tmp_path)
    file = tmp_path / "model.safetensors"
    save_file(load_file(file) | {"tower.bias": torch.zeros(16)}, file)
    with pytest.raises(ModelError, match=r"model\.safetensors: '(vision|tower)\.bias' and .* both renamed to"):
        HookedVideoTransformer.from_pretrained(tmp_path)


def test_a_config_that_the_family_cannot_use(tmp_path) -> None:
    odd_checkpoint(tmp_path)
    path = tmp_path / "config.json"
    settings = json.loads(path.read_text())
    del settings["llm_config"]
    path.write_text(json.dumps(settings))
    with pytest.raises(ModelError, match=r"config\.json does not describe a 'odd' model.*llm_config"):
        HookedVideoTransformer.from_pretrained(tmp_path)
