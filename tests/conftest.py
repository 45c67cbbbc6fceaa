"""Every test runs with the package's shape annotations checked, on one thread, from fixed seeds.

The fixtures are those that several files use. A file may have a `model` of its own: the prompts are then asked of it.
"""

from __future__ import annotations

import gc
import os
import random
from typing import TYPE_CHECKING

# Before torch is imported anywhere: sums in one order, and nothing looked up on a network.
os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

# What is imported stays: the collector need not go through half a million objects again and again, nor when all ends
# (a sixth of the time that importing the tests takes, and two seconds), see `pytest_collection_finish`.
gc.disable()

from helpers import shape_checks

# The hook rewrites modules while they are imported, so it comes before the first import of videolens.
shape_checks.install("videolens")

import hypothesis
import pytest

# Nothing heavy is imported here, but where it is used: xdist's own process, which runs no test, reads this file too.
if TYPE_CHECKING:
    import torch
    from transformer_lens import ActivationCache

    import videolens as vl

# Derandomised: a failure that CI finds is one that anybody can find again. No deadline: shared cores are not a clock.
hypothesis.settings.register_profile("videolens", derandomize=True, deadline=None, max_examples=50)
hypothesis.settings.load_profile("videolens")


def pytest_collection_finish() -> None:
    """Everything is imported: the collector works from here on, on what the tests make."""
    gc.enable()
    gc.freeze()


@pytest.fixture(autouse=True)
def fixed_seeds() -> None:
    """The same random numbers in every test, whatever ran before it."""
    import numpy as np
    import torch

    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def model() -> vl.HookedVideoTransformer:
    """Three layers, four heads, random weights, no tokenizer."""
    from helpers.prompts import tiny_model

    return tiny_model()


@pytest.fixture(scope="module")
def prompt(model: vl.HookedVideoTransformer) -> vl.Prompt:
    """25 positions with two options, of which the first is right."""
    from helpers.prompts import tiny_prompt

    return tiny_prompt(model)


@pytest.fixture(scope="module")
def clean(prompt: vl.Prompt) -> vl.Prompt:
    """The prompt, where there is a corrupted one beside it."""
    return prompt


@pytest.fixture(scope="module")
def corrupted(model: vl.HookedVideoTransformer) -> vl.Prompt:
    """Another video and other words in the same places; the second option is right."""
    from helpers.prompts import tiny_prompt

    return tiny_prompt(model, seed=1, answer=1)


@pytest.fixture(scope="module")
def run(model: vl.HookedVideoTransformer, prompt: vl.Prompt) -> tuple[torch.Tensor, ActivationCache]:
    """Logits and activations of the prompt."""
    return model.run_with_cache(prompt)


@pytest.fixture(scope="module")
def shapes() -> vl.HookedVideoTransformer:
    """The bundled model."""
    import videolens as vl

    return vl.HookedVideoTransformer.from_pretrained("shapes")


@pytest.fixture
def nothing_built(monkeypatch: pytest.MonkeyPatch) -> None:
    """No checkpoint gets as far as a model."""

    def never(*arguments: object, **options: object) -> None:
        raise AssertionError("a model was built")

    monkeypatch.setattr("videolens.model.checkpoints.read._by_transformers", never)
    monkeypatch.setattr("videolens.model.checkpoints.read.build", never)
