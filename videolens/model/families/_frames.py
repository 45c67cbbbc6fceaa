"""What families say of frames that a tower does not take, or of which no whole places can be made."""

from __future__ import annotations

from collections.abc import Sequence

from videolens.errors import ModelError


def check_size(size: int | Sequence[int], height: int, width: int) -> None:
    """Refuse frames of another size than a tower takes, all in pixels.

    Args:
        size: of the tower's frames: one number for a square, or height and width.

    Raises:
        ModelError: says both sizes.
    """
    expected = (size, size) if isinstance(size, int) else tuple(size)
    if (height, width) != expected:
        raise ModelError(
            f"the vision tower takes frames of {expected[0]} × {expected[1]} pixels, got {height} × {width}: prepare "
            "them with model.pixels"
        )


def shuffled_side(height: int, width: int, *, patch: int, scale: int, size: object) -> int:
    """Places along a side of a square frame, each made of scale × scale patches (pixel shuffle).

    Args:
        height, width, patch: in pixels.
        size: of frames that fit, for the message.

    Raises:
        ModelError: frames are not square, or their patches are no whole number of such squares.
    """
    places, rest = divmod(height // patch, scale)
    if height != width or rest or not places:
        raise ModelError(
            f"frames of {height} × {width} pixels give no square of {patch} × {patch} patches that can be shuffled "
            f"{scale} × {scale}; prepare square frames of {size} pixels"
        )
    return places
