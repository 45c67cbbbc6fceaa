"""Frames for tests of pixels."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def clip(height: int, width: int, *, frames: int = 2) -> Tensor:
    """Up to four frames with edges and gradients [frame height width channel]."""
    y, x = np.mgrid[:height, :width]
    waves = np.stack([np.sin(x / 3) + np.cos(y / 5), np.cos(x / 7 + y / 4), (x + y) % 37 / 18 - 1], axis=-1)
    frame = np.clip(127.5 + 90 * waves, 0, 255).astype(np.uint8)
    frame[height // 3 : height // 2, width // 4 : width // 2] = (255, 0, 10)
    shown = [frame, frame[::-1], frame[:, ::-1], 255 - frame]
    return torch.from_numpy(np.stack(shown[:frames]).copy())
