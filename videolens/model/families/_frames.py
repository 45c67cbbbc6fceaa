"""Frames that a tower does not take: one size, and squares of patches that become one place."""

from __future__ import annotations

from typing import Any

from videolens.errors import ModelError


def check_size(vision: Any, height: int, width: int) -> None:
    """Refuse frames of another size in pixels than the square that a tower takes, `vision.image_size`.

    Raises:
        ModelError: says both sizes.
    """
    size = vision.image_size
    if (height, width) != (size, size):
        raise ModelError(
            f"the vision tower takes frames of {size} × {size} pixels, got {height} × {width}: prepare them with "
            "model.pixels"
        )
