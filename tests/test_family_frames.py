"""What several families say of frames: sizes that a tower does not take, and squares that cannot be shuffled."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from helpers.families import family_named

from videolens.errors import ModelError
from videolens.model.families._frames import check_size, shuffled_side


@pytest.mark.parametrize("size", [20, [20, 20], (20, 20)])
def test_a_tower_takes_one_size(size) -> None:
    check_size(size, 20, 20)
    for height, width in ((20, 24), (24, 20), (24, 24)):
        with pytest.raises(ModelError, match=rf"takes frames of 20 × 20 pixels, got {height} × {width}.*model\.pixels"):
            check_size(size, height, width)


def test_squares_of_patches_become_places() -> None:
    assert shuffled_side(448, 448, patch=14, scale=2, size=448) == 16
    assert shuffled_side(384, 384, patch=16, scale=3, size=384) == 8
    for height, width in ((448, 420), (420 - 14, 420 - 14), (14, 14)):
        said = rf"{height} × {width} pixels give no square of 14 × 14 .* 2 × 2; prepare square frames of 448"
        with pytest.raises(ModelError, match=said):
            shuffled_side(height, width, patch=14, scale=2, size=448)


def test_perception_lm_says_its_patches_in_a_name() -> None:
    """Without timm, which its other tests need."""
    grid = family_named("perception_lm").grid
    tower = SimpleNamespace(architecture="vit_pe_core_large_patch14_448", model_args={"img_size": [448, 448]})
    config = SimpleNamespace(vision_config=tower, projector_pooling_ratio=2)
    assert grid(config, 3, 448, 448) == (3, 16, 16)
    with pytest.raises(ModelError, match="448 × 448 pixels, got 336 × 336"):
        grid(config, 3, 336, 336)
    tower.model_args = None  # any square
    assert grid(config, 3, 336, 336) == (3, 12, 12)
    for height, width in ((336, 448), (14, 14)):
        with pytest.raises(ModelError, match=f"got {height} × {width}"):
            grid(config, 3, height, width)
    tower.architecture = "vit_large"
    with pytest.raises(ModelError, match="'vit_large' does not say how large its patches are"):
        grid(config, 3, 448, 448)
