"""One `Case` for every family that the package knows, by the name of its file in videolens/model/families.

What is the same for all families is tested over this table: test_family_parity.py, test_family_tokens.py,
test_family_pixels.py, test_family_questions.py. A new family is a new file here; what is special about it is tested in
a file of its own.
"""

from __future__ import annotations

from importlib.util import find_spec

import pytest

from helpers.families import (
    internvl,
    internvl_chat,
    internvl_chat_qwen,
    llava_next_video,
    llava_onevision,
    llava_qwen,
    perception_lm,
    pllava,
    qwen,
    qwen3_vl,
    smolvlm,
    video_llama_3,
    video_llava,
    videollama3_qwen2,
)
from helpers.families.case import Case, Variant, family_named

__all__ = ["CASES", "NEEDS", "Case", "Variant", "each_family", "family_named"]

CASES: dict[str, Case] = {
    "internvl": internvl.CASE,
    "internvl_chat": internvl_chat.CASE,
    "internvl_chat_qwen": internvl_chat_qwen.CASE,
    "llava_next_video": llava_next_video.CASE,
    "llava_onevision": llava_onevision.CASE,
    "llava_qwen": llava_qwen.CASE,
    "pllava": pllava.CASE,
    "qwen2_5_vl": qwen.QWEN2_5_VL,
    "qwen2_vl": qwen.QWEN2_VL,
    "qwen3_vl": qwen3_vl.CASE,
    "smolvlm": smolvlm.CASE,
    "video_llama_3": video_llama_3.CASE,
    "video_llava": video_llava.CASE,
    "videollama3_qwen2": videollama3_qwen2.CASE,
}
NEEDS = {"perception_lm": "timm"}
"""Families that transformers builds with another package only; where it is not installed, they have no case."""
if find_spec(NEEDS["perception_lm"]) is not None:
    CASES["perception_lm"] = perception_lm.CASE
each_family = pytest.mark.parametrize("name", CASES)
