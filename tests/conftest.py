"""Every test runs with the package's shape annotations checked, on one thread, from fixed seeds."""

from __future__ import annotations

import os
import random

# Before torch is imported anywhere: sums in one order, and nothing looked up on a network.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from jaxtyping import install_import_hook

# The hook rewrites modules while they are imported, so it comes before the first import of videolens.
install_import_hook("videolens", "beartype.beartype")

import hypothesis
import numpy as np
import pytest
import torch

torch.set_num_threads(1)
# Derandomised: a failure that CI finds is one that anybody can find again. No deadline: shared cores are not a clock.
hypothesis.settings.register_profile("videolens", derandomize=True, deadline=None, max_examples=50)
hypothesis.settings.load_profile("videolens")


@pytest.fixture(autouse=True)
def fixed_seeds() -> None:
    """The same random numbers in every test, whatever ran before it."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
