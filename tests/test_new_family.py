"""docs/contributing.md, "A new family", as a newcomer would try it: its template, filled in, is loaded and mapped."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from helpers.parity import byte_tokenizer, randomise, special_ids, write_state
from helpers.templates import filled_in, imported
from torch import nn

from videolens import Question, trace_flow
from videolens.model import families
from videolens.model.checkpoints.check import check_model, default_clip
from videolens.model.transformer import HookedVideoTransformer

VIDEO = special_ids(["<video>", "<s>"])["<video>"]
TEXT = {
    "vocab_size": 258,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
}
CONFIG = {"model_type": "echo_video", "video_token_id": VIDEO, "text_config": TEXT}
PIXELS = {"size": {"height": 16, "width": 16}, "image_mean": [0.5] * 3, "image_std": [0.5] * 3, "do_center_crop": False}


@pytest.fixture(autouse=True)
def family(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> families.Family:
    """The template's family, which is known in this file's tests and forgotten after each."""
    families.known_families()
    monkeypatch.setattr(families, "_FAMILIES", dict(families._FAMILIES))
    return imported(filled_in("family.py", tmp_path_factory.mktemp("family") / "echo_family.py")).FAMILY


def written(directory: Path, family: families.Family) -> nn.Module:
    """The original, and its checkpoint in a directory."""
    config = SimpleNamespace(text_config=SimpleNamespace(hidden_size=32, to_dict=lambda: TEXT))
    module = randomise(family.architecture(config))
    write_state(directory, module.state_dict(), CONFIG, files={"preprocessor_config.json": PIXELS})
    byte_tokenizer(["<video>", "<s>"], bos="<s>").save_pretrained(directory)
    return module


@torch.no_grad()
def test_a_new_family_is_loaded_from_a_directory_and_mapped(tmp_path: Path, family: families.Family) -> None:
    original = written(tmp_path, family)
    ours = HookedVideoTransformer.from_pretrained(tmp_path)
    question = Question(default_clip(3), "Where?", ["left", "right"], "right")
    prompt = ours.prompt(question)
    assert prompt.tokens.grid == (3, 2, 2) and prompt.tokens.n_options == 2
    # the same by hand: mean colours through the projector, in the place of the placeholders
    embedded = original.language_model.get_input_embeddings()(prompt.input_ids)
    colours = prompt.pixel_values.unflatten(-1, (2, 8)).unflatten(-3, (2, 8)).mean((-1, -3))
    embedded[0, prompt.tokens["video"]] = original.projector(colours[0].permute(0, 2, 3, 1).reshape(-1, 3))
    expected = original.language_model(inputs_embeds=embedded).logits
    assert (ours(prompt) - expected).abs().max() <= 1e-4 * expected.std()
    found = trace_flow(ours, [question], window=1, samples="all", progress=False)
    assert "cross-frame" in found.routes and len(found.to_dataframe())


def test_it_can_be_checked(tmp_path: Path, family: families.Family) -> None:
    written(tmp_path, family)
    assert check_model(tmp_path, video=default_clip(2)).passed
