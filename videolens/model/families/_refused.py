"""Published families that are not read here, and why: what they compute is not what the decoder here computes.

Relied on: transformers 5.23, the models of these names.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

_EVERY_LAYER = (
    "a cut of attention would not be a cut: where there is no attention, tokens pass on what they know by another way, "
    "which no knockout of this package closes"
)
_LATER = "the engine, resumed and compiled runs are exact only where no token sees a later one"


class Refused(NamedTuple):
    """A family that is not read.

    Attributes:
        model_types: `config.model_type` of its checkpoints.
        published: what they are published as.
        why: in words, after "is not read: ".
        architectures: names in `config.architectures` that say so, whatever the model type.
    """

    model_types: tuple[str, ...]
    published: str
    why: str
    architectures: tuple[str, ...] = ()


REFUSED = (
    Refused(
        ("qwen3_5", "qwen3_5_moe", "qwen3_next"),
        "Qwen3.5, Qwen3-Next",
        f"three of four layers are gated DeltaNet, a recurrence in the place of attention; {_EVERY_LAYER}",
        ("Qwen3_5ForConditionalGeneration", "Qwen3_5MoeForConditionalGeneration", "Qwen3NextForCausalLM"),
    ),
    Refused(
        ("lfm2_vl", "lfm2"),
        "LFM2-VL",
        f"most layers are convolutions over the tokens, in the place of attention; {_EVERY_LAYER}",
        ("Lfm2VlForConditionalGeneration",),
    ),
    Refused(
        ("qwen3_vl_moe", "qwen3_omni_moe"),
        "Qwen3-VL-30B-A3B and 235B-A22B, Qwen3-Omni",
        "its MLPs are mixtures of experts, which the decoder here does not have: the dense Qwen3-VL are read",
        ("Qwen3VLMoeForConditionalGeneration", "Qwen3OmniMoeForConditionalGeneration"),
    ),
    Refused(
        ("gemma3", "gemma4", "gemma4_unified"),
        "Gemma 3, Gemma 4",
        f"a frame's tokens see later ones of the same frame; {_LATER}",
        ("Gemma3ForConditionalGeneration", "Gemma4ForConditionalGeneration", "Gemma4UnifiedForConditionalGeneration"),
    ),
    Refused(
        ("molmo2",),
        "Molmo2",
        f"tokens of all frames see one another, later ones too; {_LATER}",
        ("Molmo2ForConditionalGeneration",),
    ),
)


def refusal(model_type: str, architectures: Sequence[str]) -> str | None:
    """Why a published family is not read; None where nothing is known of it."""
    for one in REFUSED:
        if model_type in one.model_types or set(architectures) & set(one.architectures):
            return one.why
    return None
