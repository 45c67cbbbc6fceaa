"""Each way in which a checkpoint cannot be used is one error before anything heavy: what, where, and what to do."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.models import VIDEO, tiny_inputs, tiny_llava_next_video
from safetensors.torch import load_file, save_file

from videolens.errors import ModelError, PromptError
from videolens.model.families import _FAMILIES, family_of, register
from videolens.model.transformer import HookedVideoTransformer

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory) -> dict[str, Path]:
    folders = {name: tmp_path_factory.mktemp(name) for name in ("single", "sharded")}
    tiny_llava_next_video().save_pretrained(folders["single"])
    tiny_llava_next_video().save_pretrained(folders["sharded"], max_shard_size="40KB")
    return folders


@pytest.fixture
def single(checkpoints, tmp_path) -> Path:
    """A copy that a test may damage."""
    return shutil.copytree(checkpoints["single"], tmp_path / "single")


@pytest.fixture
def sharded(checkpoints, tmp_path) -> Path:
    return shutil.copytree(checkpoints["sharded"], tmp_path / "sharded")


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def refused(directory: Path, *parts: str, **options: object) -> str:
    """The message of the one error, which holds these parts."""
    with pytest.raises(ModelError) as caught:
        HookedVideoTransformer.from_pretrained(directory, **options)
    message = str(caught.value)
    for part in parts:
        assert part in message, f"{part!r} is not in: {message}"
    return message


@pytest.fixture
def nothing_heavy(nothing_built, monkeypatch) -> None:
    """No model is built and no weight is read."""

    def never(*arguments: object, **options: object) -> None:
        raise AssertionError("weights were read")

    monkeypatch.setattr("safetensors.safe_open", never)


@pytest.mark.usefixtures("nothing_heavy")
class TestBeforeAnythingIsRead:
    def test_unknown_architecture(self, single) -> None:
        edit(single / "config.json", model_type="llava_nxt_video", architectures=["Other"])
        refused(
            single,
            str(single / "config.json"),
            "did you mean 'llava_next_video'",
            "needs a file in videolens/model/families",
        )

    def test_text_only(self, single) -> None:
        edit(single / "config.json", model_type="llama", architectures=["LlamaForCausalLM"])
        refused(single, "unknown model_type 'llama'", "text-only", "'llava_next_video'")

    def test_code_of_its_own(self, single) -> None:
        (single / "modeling_other.py").write_text("raise SystemExit('this ran')")
        edit(single / "config.json", model_type="other", auto_map={"AutoModel": "modeling_other.OtherModel"})
        refused(single, "config.json", "modeling_other.py", "refused", "trust_remote_code=True")
        refused(single, "unknown model_type 'other'", trust_remote_code=True)  # nothing here reads it all the same

    @pytest.mark.parametrize(("text", "said"), [("{", "is not JSON"), ("[1]", "holds a list"), ("", "is not JSON")])
    def test_corrupt_config(self, single, text, said) -> None:
        (single / "config.json").write_text(text)
        refused(single, str(single / "config.json"), said, "expected an object of settings")

    def test_config_that_is_no_text(self, single) -> None:
        (single / "config.json").write_bytes(bytes(range(256)))
        refused(single, str(single / "config.json"), "cannot be read", "UTF-8")

    def test_quantised(self, single) -> None:
        edit(single / "config.json", quantization_config={"quant_method": "awq"})
        refused(single, str(single / "config.json"), "quantised (awq)", "expected plain float weights")

    def test_pickled(self, single) -> None:
        (single / SINGLE).rename(single / "pytorch_model.bin")
        refused(single, str(single), "['pytorch_model.bin']", "refused", "safetensors.torch.save_file")

    def test_no_weights_at_all(self, single) -> None:
        (single / SINGLE).unlink()
        refused(single, str(single), "holds no *.safetensors file", f"expected {SINGLE}, or {INDEX}")

    @pytest.mark.parametrize("kept", [0, 5, 200, 5000, -1])
    def test_truncated(self, single, kept) -> None:
        file = single / SINGLE
        whole = file.read_bytes()
        file.write_bytes(whole[:kept])
        refused(single, str(file), f"{len(whole[:kept])} bytes", "truncated")

    def test_too_long(self, single) -> None:
        file = single / SINGLE
        file.write_bytes(file.read_bytes() + bytes(3))
        refused(single, str(file), "its header expects", "damaged")

    def test_of_another_format(self, single) -> None:
        (single / SINGLE).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
        refused(single, str(single / SINGLE), "cannot be read as safetensors")

    def test_missing_shard(self, sharded) -> None:
        first = sorted(sharded.glob("*.safetensors"))[0]
        first.unlink()
        refused(sharded, f"{first} is missing", INDEX, "expects it to hold")

    def test_truncated_shard(self, sharded) -> None:
        last = sorted(sharded.glob("*.safetensors"))[-1]
        last.write_bytes(last.read_bytes()[:-10])
        refused(sharded, str(last), "truncated")

    def test_shards_without_an_index(self, sharded) -> None:
        (sharded / INDEX).unlink()
        refused(sharded, str(sharded), f"neither {SINGLE} nor {INDEX}")

    def test_shard_that_is_another_ones(self, sharded) -> None:
        one, other, *_ = sorted(sharded.glob("*.safetensors"))
        shutil.copy(one, other)
        refused(sharded, "does not hold", f"{INDEX} expects in it")

    @pytest.mark.parametrize("index", ["{", "{}", '{"weight_map": {"a": 1}}', '{"weight_map": [1]}'])
    def test_corrupt_index(self, sharded, index) -> None:
        (sharded / INDEX).write_text(index)
        refused(sharded, str(sharded / INDEX), "expected")


def test_a_missing_key(single) -> None:
    weights = load_file(single / SINGLE)
    name = next(name for name in weights if name.endswith("layers.1.self_attn.q_proj.weight"))
    weights.pop(name)
    save_file(weights, single / SINGLE, {"format": "pt"})
    refused(single, f"1 weights are missing from {SINGLE}", "layers.1.self_attn.q_proj.weight [32, 32]")


def test_a_key_of_the_wrong_shape(single) -> None:
    weights = load_file(single / SINGLE)
    name = next(name for name in weights if name.endswith("layers.1.self_attn.q_proj.weight"))
    save_file(weights | {name: weights[name][:4].clone()}, single / SINGLE, {"format": "pt"})
    refused(single, f"{name} in {SINGLE} is [4, 32], expected [32, 32]")


def test_layers_that_the_config_leaves_out(single) -> None:
    settings = json.loads((single / "config.json").read_text())
    settings["text_config"]["num_hidden_layers"] = 2
    (single / "config.json").write_text(json.dumps(settings))
    refused(single, "were not expected", "layers.2.")


def test_other_weights_that_are_left_over_are_a_warning(single) -> None:
    save_file(load_file(single / SINGLE) | {"audio.weight": torch.zeros(2)}, single / SINGLE, {"format": "pt"})
    with pytest.warns(UserWarning, match=r"1 weights are not used.*audio\.weight"):
        HookedVideoTransformer.from_pretrained(single)


def test_a_config_that_says_nonsense(single) -> None:
    settings = json.loads((single / "config.json").read_text())
    settings["text_config"]["hidden_size"] = "wide"
    (single / "config.json").write_text(json.dumps(settings))
    refused(single, str(single))


def test_a_corrupt_tokenizer(single) -> None:
    (single / "tokenizer.json").write_text("{")
    refused(single, str(single), "tokenizer.json", "cannot be read")


def test_code_runs_only_where_it_is_trusted(single, tmp_path, monkeypatch) -> None:
    # a family whose class transformers finds through the checkpoint's own code
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    mark = tmp_path / "ran"
    (single / "modeling_own.py").write_text(
        f"open({str(mark)!r}, 'w').close()\n"
        "from transformers import LlavaNextVideoConfig, LlavaNextVideoForConditionalGeneration\n"
        "class OwnConfig(LlavaNextVideoConfig):\n    model_type = 'own_video'\n"
        "class OwnModel(LlavaNextVideoForConditionalGeneration):\n    config_class = OwnConfig\n"
    )
    weights = {name: value.clone() for name, value in tiny_llava_next_video().state_dict().items()}
    save_file(weights, single / SINGLE, {"format": "pt"})  # names as the class has them
    code = {"AutoConfig": "modeling_own.OwnConfig", "AutoModel": "modeling_own.OwnModel"}
    edit(single / "config.json", model_type="own_video", auto_map=code)
    own = register(replace(family_of("llava_next_video"), model_type="own_video", architecture="AutoModel"))
    try:
        refused(single, "modeling_own.py", "refused", "trust_remote_code=True")
        assert not mark.exists()
        model = HookedVideoTransformer.from_pretrained(single, trust_remote_code=True)
        assert mark.exists() and model.cfg.n_layers == 3
    finally:
        _FAMILIES.pop((own.model_type, own.architectures, own.decoders))


def test_more_frames_than_the_context_holds(single) -> None:
    model = HookedVideoTransformer.from_pretrained(single)
    ids, _, pixels = tiny_inputs(frames=40)
    assert int((ids == VIDEO).sum()) == 1
    with pytest.raises(PromptError, match=r"128"):
        model.prompt_from_ids(ids, pixels)
