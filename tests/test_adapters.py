"""Adapters of PEFT, merged into their base at load: compared with peft's own forward, with arithmetic by hand for every
family, and refused where they would be left out.

Needs peft (`pip install 'videolens[peft]'`), which the development extra installs; without it the tests that merge are
skipped and those that refuse are not.
"""

from __future__ import annotations

import copy
import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.families import CASES, Case, each_family
from helpers.families.case import CLIP
from helpers.models import tiny_inputs, tiny_llava_next_video
from helpers.prompts import tiny_prompt
from helpers.tokenizer import tiny_tokenizer
from safetensors.torch import load_file, save_file
from torch import Tensor

import videolens as vl
from videolens.errors import ModelError
from videolens.model.checkpoints.adapters import MERGED
from videolens.model.checkpoints.check import check_model, default_clip
from videolens.runs.config import read_config
from videolens.runs.fingerprint import model_fingerprint

load = vl.HookedVideoTransformer.from_pretrained
KEY = "base_model.model.model.language_model.layers.1.self_attn.q_proj.lora_A.weight"
"""Of a weight in an adapter's file."""
TIED: dict[str, Any] = {"text": {"tie_word_embeddings": True}, "tie_word_embeddings": True}


@pytest.fixture(scope="module")
def peft() -> Any:
    """The library."""
    return pytest.importorskip("peft", reason="merges adapters: pip install 'videolens[peft]'")


def named(kind: str, peft: Any, **options: Any) -> Any:
    """A config of a type, for the decoder's projections if nothing else is said."""
    special: dict[str, Any] = {
        "IA3": {"feedforward_modules": r".*down_proj"},
        "LN_TUNING": {"target_modules": ["input_layernorm"]},
        "OFT": {"oft_block_size": 4, "r": 0},
        "BOFT": {"boft_block_size": 4},
        "ADALORA": {"total_step": 10},
        "FOURIERFT": {"n_frequency": 20},
    }
    settings = {"target_modules": r".*language_model.*(q_proj|v_proj|down_proj)"} | special.get(kind, {}) | options
    return peft.mapping.PEFT_TYPE_TO_CONFIG_MAPPING[kind](**settings)


def trained(peft: Any, directory: Path, config: Any, **base: Any) -> Tensor:
    """Write an adapter with random weights and its base below a directory.

    Returns:
        the logits of peft's own model, the adapter's layers apart from the weights [batch pos d_vocab].
    """
    base = {"scale": 0.15} | base  # gentle weights: float32's rounding stays well below 1e-5
    tiny_llava_next_video(directory / "base", **base)
    config.base_model_name_or_path = str(directory / "base")
    adapted = peft.PeftModel(tiny_llava_next_video(**base), config).eval()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in adapted.parameters():
            if weight.requires_grad:
                weight.add_(0.1 * torch.randn(weight.shape, generator=generator))
    adapted.save_pretrained(directory / "adapter")
    return original(adapted)


@torch.no_grad()
def original(model: Any) -> Tensor:
    """Logits of a model as transformers calls it, on the prompt of `ours`."""
    _, ids, pixels = tiny_inputs()
    given = {"input_ids": ids, "pixel_values_videos": pixels, "attention_mask": torch.ones_like(ids)}
    return model(**given).logits


def ours(directory: Path, **how: Any) -> Tensor:
    """Logits of a checkpoint as it is read here."""
    model = load(directory, **how)
    return model(tiny_prompt(model))


def apart(one: Tensor, other: Tensor) -> float:
    """The largest difference, in standard deviations."""
    return float((one - other).abs().max() / other.std())


# -- merged ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", MERGED)
def test_merged_logits_are_those_of_peft(kind: str, peft: Any, tmp_path: Path) -> None:
    expected = trained(peft, tmp_path, named(kind, peft))
    before = (tmp_path / "base/model.safetensors").read_bytes()
    assert apart(ours(tmp_path / "adapter"), expected) <= 1e-5
    assert apart(ours(tmp_path / "base"), expected) > 0.1, "the adapter changes nothing"
    assert (tmp_path / "base/model.safetensors").read_bytes() == before, (
        "weights are mapped, and files stay as they were"
    )


OPTIONS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "DoRA": ({"use_dora": True}, {}),
    "rank-stabilised, ranks by layer": ({"use_rslora": True, "rank_pattern": {"layers.1.self_attn.q_proj": 3}}, {}),
    "biases": ({"bias": "all"}, {"text": {"attention_bias": True}}),
    "the whole projector": ({"modules_to_save": ["multi_modal_projector"]}, {}),
    "some layers": ({"target_modules": ["o_proj"], "layers_to_transform": [0, 2]}, {}),
    "vision tower": ({"target_modules": r".*vision_tower.*(q_proj|fc1)"}, {}),
    "new words": ({"trainable_token_indices": [5, 7]}, {}),
    "words and unembedding": ({"target_modules": ["embed_tokens", "lm_head"]}, {}),
    "words, tied": ({"target_modules": ["embed_tokens"]}, TIED),
    "unembedding, tied": ({"target_modules": ["lm_head"]}, TIED),
    "whole embedding, tied": ({"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"]}, TIED),
    "new words, tied": ({"target_modules": ["q_proj"], "trainable_token_indices": [5, 7]}, TIED),
    "begun from noise": ({"init_lora_weights": "gaussian"}, {}),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_what_lora_can_do_besides(name: str, peft: Any, tmp_path: Path) -> None:
    options, base = OPTIONS[name]
    expected = trained(peft, tmp_path, named("LORA", peft, **options), **base)
    assert apart(ours(tmp_path / "adapter"), expected) <= 1e-5
    assert apart(ours(tmp_path / "base"), expected) > 0.01


def test_half_precision_is_rounded_once(peft: Any, tmp_path: Path) -> None:
    trained(peft, tmp_path, named("LORA", peft))
    held = load_file(tmp_path / "adapter/adapter_model.safetensors")
    a, b = (held[KEY.replace("lora_A", part)] for part in ("lora_A", "lora_B"))
    assert a.dtype == torch.float32
    base = tiny_llava_next_video(scale=0.15).to(torch.bfloat16).get_decoder().layers[1].self_attn.q_proj.weight
    model = load(tmp_path / "adapter", dtype="bfloat16")
    assert torch.equal(model.blocks[1].attn.q.weight, (base.float() + b @ a).to(torch.bfloat16))
    assert not torch.equal(model.blocks[1].attn.q.weight, base + (b @ a).to(torch.bfloat16)), "rounded twice"


PROJECTED = re.compile(r"\.(q_proj|qkv_proj|wqkv|o_proj|down_proj|gate_up_proj)\.weight$")


def by_hand(case: Case, directory: Path, rename: Callable[[str], str] = lambda key: key) -> None:
    """Below a directory: a base, an adapter for it in the file format of peft, and the sum of both, W + 2 B A."""
    state, config = case.layout(case.plain) if case.layout else (case.plain.state_dict(), {})
    generator = torch.Generator().manual_seed(1)
    weights, merged = {}, dict(state)
    for key in filter(PROJECTED.search, state):
        a, b = (
            0.3 * torch.randn(shape, generator=generator) for shape in ((2, state[key].shape[1]), (len(state[key]), 2))
        )
        name = "base_model.model." + rename(key.removesuffix(".weight"))
        weights |= {f"{name}.lora_A.weight": a, f"{name}.lora_B.weight": b}
        merged[key] = state[key] + 2 * b @ a
    assert len(weights) > 8
    for part in ("base", "merged", "adapter"):
        (directory / part).mkdir()
    case.write(directory / "base", case.plain)
    if case.layout:
        case.write(directory / "merged", case.plain, layout=lambda module: (merged, config))
    else:
        changed = copy.deepcopy(case.plain)
        changed.load_state_dict(merged)
        case.write(directory / "merged", changed)
    save_file(weights, directory / "adapter/adapter_model.safetensors")
    targets = sorted({PROJECTED.search(key)[1] for key in filter(PROJECTED.search, state)})
    settings = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": targets, "task_type": "CAUSAL_LM"}
    (directory / "adapter/adapter_config.json").write_text(json.dumps(settings))


@each_family
def test_every_family_takes_adapters(name: str, peft: Any, tmp_path: Path) -> None:
    by_hand(CASES[name], tmp_path)
    model, expected = load(tmp_path / "adapter", base=tmp_path / "base"), load(tmp_path / "merged")
    for (key, weight), other in zip(model.named_parameters(), expected.parameters(), strict=True):
        assert torch.allclose(weight, other, atol=1e-6), key
    assert model.tokenizer is not None and model.pixel_settings is not None, "its base's"
    assert model.template == expected.template and model.cfg.model_name == str(tmp_path / "adapter")


def test_names_of_an_older_transformers(peft: Any, tmp_path: Path) -> None:
    """Before version 5 the decoder was `language_model.model`, and adapters say so."""
    by_hand(
        CASES["llava_next_video"],
        tmp_path,
        lambda key: key.replace("model.language_model.", "language_model.model.", 1),
    )
    model, expected = load(tmp_path / "adapter", base=tmp_path / "base"), load(tmp_path / "merged")
    assert torch.allclose(model.blocks[2].mlp.down.weight, expected.blocks[2].mlp.down.weight, atol=1e-6)


# -- what lies beside --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pair(peft: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with base/ and adapter/; tests copy it before they change it."""
    directory = tmp_path_factory.mktemp("pair")
    trained(peft, directory, named("LORA", peft))
    return directory


@pytest.fixture
def copied(pair: Path, tmp_path: Path) -> Path:
    """A copy of `pair` that may be changed."""
    shutil.copytree(pair, tmp_path, dirs_exist_ok=True)
    change(tmp_path, base_model_name_or_path=str(tmp_path / "base"))
    return tmp_path


def change(directory: Path, **settings: Any) -> None:
    """Other settings in the adapter's config."""
    path = directory / "adapter/adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))


def test_a_bundled_model_can_be_a_base(peft: Any, tmp_path: Path) -> None:
    model = load("shapes")
    a, b = torch.ones(1, model.cfg.d_model), torch.ones(model.cfg.d_model, 1)
    key = "base_model.model.model.language_model.layers.2.self_attn.o_proj"
    save_file({f"{key}.lora_A.weight": a, f"{key}.lora_B.weight": b}, tmp_path / "adapter_model.safetensors")
    settings = {"peft_type": "LORA", "r": 1, "lora_alpha": 1, "target_modules": r".*layers\.2\.self_attn\.o_proj"}
    settings |= {"base_model_name_or_path": "shapes"}
    (tmp_path / "adapter_config.json").write_text(json.dumps(settings))
    adapted = load(tmp_path)
    question = vl.load_dataset("shapes", task="moving direction", n=1)[0]
    assert adapted.prompt(question).text == model.prompt(question).text
    for layer, (one, other) in enumerate(zip(model.W_O, adapted.W_O, strict=True)):
        assert torch.equal(one, other) == (layer != 2)
    assert torch.allclose(adapted.W_O[2], model.W_O[2] + 1, atol=1e-6)


def test_what_lies_beside_an_adapter_comes_first(copied: Path) -> None:
    tiny_tokenizer().save_pretrained(copied / "base")
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = "the adapter's"
    tokenizer.save_pretrained(copied / "adapter")
    (copied / "adapter/generation_config.json").write_text('{"eos_token_id": 17}')
    (copied / "base/generation_config.json").write_text('{"eos_token_id": 19}')
    model = load(copied / "adapter", base=copied / "base")
    assert model.tokenizer.chat_template == "the adapter's" and {17, 19} <= set(model.eos_tokens)


def test_a_run_knows_adapter_and_base(copied: Path) -> None:
    def fingerprint() -> dict[str, Any]:
        return model_fingerprint(str(copied / "adapter"), base=str(copied / "base"), trust_remote_code=False)

    first = fingerprint()
    assert {"adapter_model.safetensors", "base/model.safetensors", "base/config.json"} <= set(first["files"])
    config = json.loads((copied / "base/config.json").read_text())
    (copied / "base/config.json").write_text(json.dumps(config | {"x": 1}))
    second = fingerprint()
    assert first["sha256"] != second["sha256"]
    given = {"model": {"name": "a", "base": "b"}, "dataset": "shapes", "experiments": ["accuracy"]}
    assert read_config(given).model["base"] == "b" and "base" not in read_config(given | {"model": "a"}).model


def test_check_compares_with_the_layers_apart(copied: Path) -> None:
    settings = {"size": {"shortest_edge": 16}, "crop_size": {"height": 16, "width": 16}, "resample": 3, **CLIP}
    (copied / "base/preprocessor_config.json").write_text(json.dumps(settings))
    found = check_model(copied / "adapter", video=default_clip(3))
    assert found.passed, found.markdown()
    assert any("adapter" in note for note in found.notes)


# -- refused -----------------------------------------------------------------------------------------------------------


def damaged(path: Path) -> None:
    """The second half of a file is lost."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def weights(path: Path, edit: Callable[[dict[str, Tensor]], Any]) -> None:
    """Other weights in an adapter's file."""
    held = load_file(path)
    edit(held)
    save_file(held, path)


ELSEWHERE = KEY.replace("layers.1", "layers.7")
CONFIGS: dict[str, tuple[dict[str, Any], str]] = {
    "a type that adds tokens": ({"peft_type": "PREFIX_TUNING"}, r"'PREFIX_TUNING'.*not merged.*LORA"),
    "a type that nobody knows": ({"peft_type": "LORAX"}, r"'LORAX'.*merged are LORA, .*merge_and_unload"),
    "no type": ({"peft_type": None}, "peft_type: .*string.*None"),
    "words that switch it on": (
        {"alora_invocation_tokens": [3]},
        r"alora_invocation_tokens = \[3\].*behind some words",
    ),
    "layers repeated": ({"layer_replication": [[0, 2], [1, 3]]}, "layer_replication.*deeper"),
    "code by name": ({"megatron_config": {"a": 1}, "megatron_core": "os"}, "megatron_config.*Megatron"),
    "a base that its training changed": (
        {"init_lora_weights": "pissa"},
        "'pissa'.*not on the published base.*converted",
    ),
    "a setting of a later peft": ({"use_wonders": True}, r"does not know \['use_wonders'\].*pip install -U peft"),
    "modules that are not there": ({"target_modules": ["wonders"]}, "does not fit its base.*wonders.*base="),
    "more modules than weights": (
        {"target_modules": ["q_proj", "v_proj", "down_proj", "o_proj"]},
        "layers get no weights",
    ),
    "fewer modules than weights": (
        {"target_modules": r".*language_model.*q_proj"},
        r"weights have no place.*v_proj|down",
    ),
    "another rank": ({"r": 3}, "does not fit its base.*size mismatch"),
    "a rank that no memory holds": ({"r": 2**40}, "does not fit its base"),
    "a class that is no text": ({"auto_mapping": {"base_model_class": ["X"]}}, "base_model_class"),
    "another class": ({"auto_mapping": {"base_model_class": "Qwen2VLModel"}}, "for a 'Qwen2VLModel'.*LlavaNextVideo"),
    "a pattern that is none": ({"target_modules": "("}, "does not fit its base"),
    "no base": ({"base_model_name_or_path": None}, "does not name its base.*base=DIRECTORY_OR_NAME"),
    "a base that is not here": (
        {"base_model_name_or_path": "/no/such"},
        "adapter for '/no/such'.*cannot be loaded.*base=",
    ),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_config_that_cannot_be_followed(name: str, copied: Path) -> None:
    settings, said = CONFIGS[name]
    change(copied, **settings)
    with pytest.raises(ModelError, match=said):
        load(copied / "adapter")


FILES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "half a file": (damaged, "cannot be read as safetensors|is damaged|truncated"),
    "no file": (Path.unlink, "without adapter_model.safetensors.*pickled weights are not read"),
    "a pickle": (
        lambda path: path.rename(path.with_suffix(".bin")),
        r"adapter_model.bin.*pickled weights are not read",
    ),
    "not finite": (
        lambda path: weights(path, lambda held: held[KEY].fill_(torch.nan)),
        r"layers\.1.*lora_A.* is not finite",
    ),
    "a layer missing": (lambda path: weights(path, lambda held: held.pop(KEY)), r"1 layers get no weights.*layers\.1"),
    "whole numbers": (
        lambda path: weights(path, lambda held: held.update({KEY: held[KEY].to(torch.int8)})),
        "lora_A.*is stored as I8; expected one of",
    ),
    "one too many": (
        lambda path: weights(path, lambda held: held.update({ELSEWHERE: held[KEY].clone()})),
        r"1 of its weights have no place.*layers\.7",
    ),
    "trained beside it": (
        lambda path: (path.parent / "non_lora_trainables.bin").write_bytes(b"x"),
        "non_lora_trainables.bin beside the adapter.*merge both",
    ),
    "weights of a model beside it": (
        lambda path: save_file({"a": torch.zeros(1)}, path.parent / "model.safetensors"),
        "weights of a model and an adapter.*two directories",
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_files_that_are_not_an_adapter(name: str, copied: Path) -> None:
    edit, said = FILES[name]
    edit(copied / "adapter/adapter_model.safetensors")
    with pytest.raises(ModelError, match=said):
        load(copied / "adapter")


def test_an_adapter_for_another_base(copied: Path, tmp_path: Path) -> None:
    tiny_llava_next_video(tmp_path / "narrow", text={"hidden_size": 16})
    with pytest.raises(ModelError, match=r"does not fit its base.*size mismatch.*says that it is for .*base.*base="):
        load(copied / "adapter", base=tmp_path / "narrow")
    tiny_llava_next_video(tmp_path / "deep", text={"num_hidden_layers": 4})
    change(copied, target_modules=["q_proj", "v_proj", "down_proj"])
    with pytest.raises(ModelError, match=r"layers get no weights, such as .*(layers\.3|vision)"):
        load(copied / "adapter", base=tmp_path / "deep")
    with pytest.raises(ModelError, match="holds an adapter itself: merge one"):
        load(copied / "adapter", base=copied / "adapter")
    with pytest.raises(ModelError, match=r"base .* was given for .*base', which is no adapter"):
        load(copied / "base", base=copied / "base")


def test_without_peft_it_is_said_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    by_hand(CASES["llava_next_video"], tmp_path)
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ModelError, match=r"peft cannot be imported.*pip install 'videolens\[peft\]'"):
        load(tmp_path / "adapter", base=tmp_path / "base")
