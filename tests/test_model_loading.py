"""Finding and reading checkpoints, and one clear error for each that cannot be read."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from helpers.models import tiny_inputs, tiny_llava_next_video
from helpers.tokenizer import tiny_tokenizer
from transformers import LlamaConfig, LlamaForCausalLM

from videolens.errors import ModelError
from videolens.model.checkpoints.bundled import bundled_names
from videolens.model.families import family_of, known_families
from videolens.model.transformer import HookedVideoTransformer

PREPROCESSOR = {"size": {"shortest_edge": 16}, "crop_size": {"height": 16, "width": 16}}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    directory = tmp_path_factory.mktemp("checkpoint")
    tiny_llava_next_video(directory)
    return directory


@pytest.fixture
def copy(checkpoint, tmp_path):
    """A copy that a test may damage."""
    return shutil.copytree(checkpoint, tmp_path / "copy")


def edit(path, **changes) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_directory_without_tokenizer_and_preprocessor_files_loads(checkpoint) -> None:
    model = HookedVideoTransformer.from_pretrained(str(checkpoint))
    assert model.tokenizer is None
    assert model.pixel_settings is None
    one, _, pixels = tiny_inputs()
    prompt = model.prompt_from_ids(one, pixels)
    assert model(prompt).shape == (1, 25, 96)
    assert len(model.generate(prompt, 2).tokens[0]) <= 2
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_tokenizer_preprocessor_and_template_are_read_where_they_are(copy) -> None:
    tiny_tokenizer().save_pretrained(copy)
    (copy / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR))
    edit(copy / "config.json", prompt_template="shapes")
    model = HookedVideoTransformer.from_pretrained(copy)
    assert model.to_single_token("red") == 10
    assert model.pixel_settings.size == 16
    assert model.template == "shapes"
    assert model.cfg.default_prepend_bos


def test_dtype_is_the_checkpoints_own_unless_asked(copy) -> None:
    assert HookedVideoTransformer.from_pretrained(copy).cfg.dtype == torch.float32
    half = HookedVideoTransformer.from_pretrained(copy, dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in half.parameters()} == {torch.bfloat16}
    tiny_llava_next_video().to(torch.float16).save_pretrained(copy)
    assert HookedVideoTransformer.from_pretrained(copy).cfg.dtype == torch.float16


def test_sharded_checkpoints_load(checkpoint, tmp_path) -> None:
    tiny_llava_next_video().save_pretrained(tmp_path, max_shard_size="40KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    one, _, pixels = tiny_inputs()
    logits = [
        m(m.prompt_from_ids(one, pixels)) for m in map(HookedVideoTransformer.from_pretrained, (checkpoint, tmp_path))
    ]
    assert torch.equal(*logits)


@pytest.mark.parametrize("name", bundled_names())
def test_bundled_models_load_by_name(name) -> None:
    model = HookedVideoTransformer.from_pretrained(name)
    assert model.tokenizer is not None
    assert model.pixel_settings is not None
    assert model.template == "shapes"
    assert model.cfg.n_layers == (8 if name in ("shapes-nohint", "shapes-qwen") else 12)


@pytest.mark.parametrize("name", ["shapse", "/no/such/directory", "./here", "a/b/c"])
def test_an_unknown_model_lists_the_bundled_ones(name) -> None:
    with pytest.raises(ModelError, match="unknown model") as caught:
        HookedVideoTransformer.from_pretrained(name)
    assert all(repr(known) in str(caught.value) for known in bundled_names())


def test_a_hub_name_that_cannot_be_reached_is_one_clear_error(monkeypatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ModelError, match="nobody/nothing"):
        HookedVideoTransformer.from_pretrained("nobody/nothing")


def test_a_file_and_an_empty_directory(tmp_path) -> None:
    with pytest.raises(ModelError, match=r"without config\.json"):
        HookedVideoTransformer.from_pretrained(tmp_path)
    (tmp_path / "weights.safetensors").write_text("")
    with pytest.raises(ModelError, match="is a file"):
        HookedVideoTransformer.from_pretrained(tmp_path / "weights.safetensors")


@pytest.mark.parametrize("model_type", ["llama", "no_such_type", None])
def test_text_only_and_unknown_architectures_list_the_known_ones(copy, model_type) -> None:
    edit(copy / "config.json", model_type=model_type)
    with pytest.raises(ModelError, match="'llava_next_video'"):
        HookedVideoTransformer.from_pretrained(copy)


def test_a_text_only_checkpoint(tmp_path) -> None:
    config = LlamaConfig(hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, vocab_size=9)
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"unknown model_type 'llama'.*text-only"):
        HookedVideoTransformer.from_pretrained(tmp_path)


def test_pickled_weights_are_refused(copy) -> None:
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"pytorch_model\.bin.*refused"):
        HookedVideoTransformer.from_pretrained(copy)


def test_truncated_weights_are_named(copy) -> None:
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    with pytest.raises(ModelError, match="cannot be read"):
        HookedVideoTransformer.from_pretrained(copy)


def test_missing_and_misshapen_weights_are_never_made_up(copy) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(copy / "model.safetensors")
    name = next(name for name in weights if name.endswith("layers.1.self_attn.q_proj.weight"))
    save_file(
        {key: value for key, value in weights.items() if key != name}, copy / "model.safetensors", {"format": "pt"}
    )
    with pytest.raises(ModelError, match=r"1 weights are missing.*q_proj"):
        HookedVideoTransformer.from_pretrained(copy)
    save_file(weights | {name: weights[name][:4].clone()}, copy / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match="q_proj"):
        HookedVideoTransformer.from_pretrained(copy)


def test_families_are_found_by_themselves() -> None:
    assert "llava_next_video" in known_families()
    assert family_of("llava_next_video").architecture == "LlavaNextVideoForConditionalGeneration"


def test_a_family_of_ones_own_is_one_registration() -> None:
    # helpers/micro.py holds a whole toy family; its model goes through the same conversion
    import helpers.micro

    model = helpers.micro.micro_model()
    assert model.cfg.model_type == "micro"
    assert "micro" in known_families()
