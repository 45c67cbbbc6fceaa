"""Quantised checkpoints: those of bitsandbytes stay quantised and give what transformers gives; others are refused.

Needs bitsandbytes (`pip install 'videolens[bitsandbytes]'`, 43 MB), which has a CPU backend; without it only what is
refused is tested.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.checkpoints import randomise
from helpers.families import CASES
from helpers.models import tiny_config, tiny_inputs, tiny_llava_next_video
from helpers.prompts import SPANS
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import BitsAndBytesConfig, LlavaNextVideoForConditionalGeneration

import videolens as vl
from videolens.errors import ModelError
from videolens.experiments.common.gradients import check_passes_gradients
from videolens.model.decoder.layers import bias_or_zeros, is_quantised, matrix

load = vl.HookedVideoTransformer.from_pretrained
WAYS: dict[str, dict[str, Any]] = {
    "nf4, twice": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True},
    "fp4": {"load_in_4bit": True},
    "int8": {"load_in_8bit": True, "llm_int8_threshold": 0.0},
}
SAID = {"quant_method": "bitsandbytes", "load_in_8bit": True}


@pytest.fixture(scope="module", params=WAYS)
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint as bitsandbytes and transformers write it."""
    pytest.importorskip("bitsandbytes", reason="quantised layers: pip install 'videolens[bitsandbytes]'")
    plain, directory = tmp_path_factory.mktemp("plain"), tmp_path_factory.mktemp("quantised")
    config = tiny_config(text={"hidden_size": 64, "intermediate_size": 128, "head_dim": 16})
    randomise(LlavaNextVideoForConditionalGeneration(config)).save_pretrained(plain)
    how = BitsAndBytesConfig(bnb_4bit_compute_dtype=torch.float32, **WAYS[request.param])
    original(plain, quantization_config=how).save_pretrained(directory)
    return directory


def original(directory: Path, **how: Any) -> Any:
    """As transformers loads it."""
    found = LlavaNextVideoForConditionalGeneration.from_pretrained(directory, dtype=torch.float32, **how)
    return found.eval()


def asked(model: vl.HookedVideoTransformer) -> vl.Prompt:
    """A question about a random clip."""
    ids, _, pixels = tiny_inputs()
    spans = {"stem": SPANS["stem"], "true option": SPANS["option A"], "false options": SPANS["option B"]}
    return model.prompt_from_ids(ids, pixels, spans, option_tokens=(5, 6), answer_token=5)


@torch.no_grad()
def test_it_gives_what_the_original_gives_and_stays_quantised(written: Path) -> None:
    model, reference = load(written), original(written)
    prompt = asked(model)
    residuals: list[Tensor] = []
    for layer in reference.get_decoder().layers:
        layer.register_forward_hook(
            lambda module, args, out: residuals.append(out if isinstance(out, Tensor) else out[0])
        )
    given = {"input_ids": prompt.input_ids, "pixel_values_videos": prompt.pixel_values}
    wanted = reference(**given, attention_mask=torch.ones_like(prompt.input_ids)).logits
    logits, cache = model.run_with_cache(prompt)
    assert (logits - wanted).abs().max() <= 1e-4 * wanted.std()
    for layer, residual in enumerate(residuals):
        assert (cache["resid_post", layer] - residual).abs().max() <= 1e-4 * residual.std()
    linears = [getattr(model.blocks[0].attn, name) for name in "qkvo"] + [model.blocks[2].mlp.down]
    assert all(map(is_quantised, linears))
    assert cache["v", 0].dtype == torch.float32 and cache["blocks.0.mlp.hook_post"].shape[-1] == 128
    floats = sum(weight.numel() for weight in reference.dequantize().parameters())
    assert f"{floats / 1e6:.1f} M parameters" in repr(model), "those that the packed ones stand for"


@torch.no_grad()
def test_a_later_row_changes_no_earlier_one_and_the_engine_is_exact(written: Path) -> None:
    model = load(written)
    prompt = asked(model)
    cuts = [vl.Knockout("video", "last", layers=[layer]) for layer in range(3)]
    cuts += [vl.Knockout.route("cross-frame", layers=[0, 1])]
    exact, full = (vl.sweep(model, prompt, cuts, engine=engine).logits for engine in ("exact", "full"))
    assert (exact - full).abs().max() <= 1e-4 * full.std()
    assert (full[0] - full[1]).abs().max() > 1e-3 * full.std()
    before, after = model(prompt), model.run_with_hooks(prompt, fwd_hooks=cuts[0].hooks(prompt))
    assert torch.equal(before[:, :-1], after[:, :-1])
    compiled = model.compile(vl.Pathway.closed(n_layers=3, video_to_question=[1], question_to_last=[2]))
    masked = model.run_with_hooks(prompt, fwd_hooks=compiled.pathway.hooks(prompt))
    assert (compiled(prompt)[:, -1] - masked[:, -1]).abs().max() <= 1e-4 * masked.std()


def test_what_needs_weights_that_are_numbers_is_refused(written: Path) -> None:
    model = load(written)
    for name in ("W_Q", "W_O", "W_in", "W_out"):
        with pytest.raises(ModelError, match=r"quantised \(torch\.u?int8\).*activations are at the hook points"):
            getattr(model, name)
    with pytest.raises(ModelError, match="quantised"):
        load(written, fold_ln=True)
    with pytest.raises(ModelError, match=r"no gradient passes a quantised layer.*was quantised from"):
        check_passes_gradients(model, "blocks.")
    with pytest.raises(ModelError, match=r"no gradient passes a quantised layer"):
        vl.attribute(model, [asked(model)], progress=False)
    assert model.b_O.dtype == torch.float32 and not model.b_O.any()


def test_a_model_that_is_loaded_already(written: Path) -> None:
    model = vl.HookedVideoTransformer.from_hugging_face(original(written))
    assert torch.equal(model(asked(model)), load(written)(asked(load(written))))


@torch.no_grad()
@pytest.mark.parametrize("threshold", [6.0, 0.0])
def test_why_outliers_are_refused(threshold: float) -> None:
    """bitsandbytes itself: with a threshold, what the first rows give depends on rows that come after them."""
    bnb = pytest.importorskip("bitsandbytes", reason="quantised layers: pip install 'videolens[bitsandbytes]'")
    generator = torch.Generator().manual_seed(0)
    layer = bnb.nn.Linear8bitLt(64, 64, bias=False, has_fp16_weights=False, threshold=threshold).eval()
    weight = torch.randn(64, 64, generator=generator)
    layer.weight = bnb.nn.Int8Params(weight, requires_grad=False, has_fp16_weights=False)
    layer = layer.to("cpu")
    x = 3 * torch.randn(1, 9, 64, generator=generator)
    whole, first = layer(x), layer(x[:, :4])
    moved = (whole[:, :4] - first).abs().max() / whole.std()
    assert moved > 1e-3 if threshold else moved == 0


# -- refused, with and without bitsandbytes ----------------------------------------------------------------------------


def says(directory: Path, **settings: Any) -> Path:
    """A checkpoint whose config says that it is quantised."""
    path = directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"quantization_config": settings}))
    return directory


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """A checkpoint that is not quantised."""
    tiny_llava_next_video(tmp_path)
    return tmp_path


@pytest.mark.parametrize("threshold", [{}, {"llm_int8_threshold": 6.0}])
def test_eight_bits_with_outliers(plain: Path, threshold: dict[str, float]) -> None:
    with pytest.raises(ModelError, match=r"llm_int8_threshold 6\.0: all rows together.*Put 0\.0 there"):
        load(says(plain, **SAID, **threshold))


def test_another_method(plain: Path) -> None:
    with pytest.raises(ModelError, match=r"quantised \(gptq\).*bitsandbytes has quantised.*was quantised from"):
        load(says(plain, quant_method="gptq"))


def test_without_the_library(plain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(ModelError, match=r"bitsandbytes cannot be imported.*pip install 'videolens\[bitsandbytes\]'"):
        load(says(plain, quant_method="bitsandbytes", load_in_4bit=True))


def test_a_layout_of_no_class(tmp_path: Path) -> None:
    CASES["pllava"].write(tmp_path, CASES["pllava"].plain)
    with pytest.raises(ModelError, match=r"transformers.* has no class for the layout of 'llava'"):
        load(says(tmp_path, quant_method="bitsandbytes", load_in_4bit=True))


def test_packed_weights_that_no_config_speaks_of(plain: Path) -> None:
    file = plain / "model.safetensors"
    held = load_file(file)
    key = next(key for key in held if key.endswith("q_proj.weight"))
    save_file(held | {key: held[key].to(torch.int8)}, file, {"format": "pt"})
    with pytest.raises(ModelError, match=r"q_proj.*is stored as I8.*quantised weights are not read"):
        load(plain)


def test_the_base_of_an_adapter(plain: Path) -> None:
    says(plain, quant_method="bitsandbytes", load_in_4bit=True)
    adapter = plain / "adapter"
    adapter.mkdir()
    save_file({"base_model.model.x.lora_A.weight": torch.zeros(1, 1)}, adapter / "adapter_model.safetensors")
    (adapter / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 1}))
    with pytest.raises(ModelError, match=r"rounded to their few bits: give base= the checkpoint"):
        load(adapter, base=plain)


def test_gguf(tmp_path: Path) -> None:
    tiny_llava_next_video(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "model.gguf")
    for given in (tmp_path, tmp_path / "model.gguf"):
        with pytest.raises(ModelError, match=r"model\.gguf.*GGUF file holds the text tower alone.*not read: use"):
            load(given)


def test_a_packed_layer_has_no_matrix() -> None:
    """By hand: a layer with whole numbers in the place of its weights."""
    linear = nn.Linear(4, 2, bias=False)
    assert matrix(linear) is linear.weight and torch.equal(bias_or_zeros(linear), torch.zeros(2))
    linear.weight = nn.Parameter(torch.zeros(4, 1, dtype=torch.uint8), requires_grad=False)
    assert is_quantised(linear) and bias_or_zeros(linear).dtype == torch.float32
    with pytest.raises(ModelError, match=r"quantised \(torch\.uint8\)"):
        matrix(linear)
