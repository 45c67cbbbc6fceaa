"""Writing results side by side into a directory, and saying which weights made them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from videolens.experiments.flow.result import FlowMap
from videolens.model.checkpoints.bundled import bundled_names, bundled_path
from videolens.model.checkpoints.files import short_name
from videolens.model.transformer import HookedVideoTransformer

_LARGEST_HASHED = 2**30


def save_figure(figure: Figure, path: Path) -> None:
    """As PNG, sharp enough for print."""
    figure.savefig(path, dpi=200)


def save_flows(out: Path, flows: Mapping[str, FlowMap]) -> None:
    """`flow.csv` and `flow.parquet`: all maps in one table with the column `model` in front; and each map by itself."""
    parts = []
    for name, flow in flows.items():
        part = flow.to_dataframe()
        part.insert(0, "model", name)
        parts.append(part)
        flow.save(out / "maps" / short_name(name), overwrite=True)
    table = pd.concat(parts, ignore_index=True)
    table.to_csv(out / "flow.csv", index=False)
    table.to_parquet(out / "flow.parquet", index=False)


def describe(name: str, model: HookedVideoTransformer) -> str:
    """Size and weights of a model, in words."""
    cfg = model.cfg
    count = sum(parameter.numel() for parameter in {id(p): p for p in model.parameters()}.values())
    size = f"{count / 1e9:.1f} B" if count >= 1e9 else f"{count / 1e6:.1f} M"
    words = f"{size} parameters, {cfg.n_layers} layers, {cfg.n_heads} heads, width {cfg.d_model}, {cfg.model_type}"
    words += f", {str(cfg.dtype).removeprefix('torch.')} on {cfg.device}"
    mark = fingerprint(name)
    return f"{words}, weights sha256 {mark[:12]}" if mark else words


def fingerprint(name: str) -> str | None:
    """SHA-256 of a checkpoint's weights; None for a hub name, or where there is more than a gigabyte of them."""
    directory = bundled_path(name) if name in bundled_names() else Path(name)
    files = sorted(directory.glob("*.safetensors")) if directory.is_dir() else []
    if not files or sum(file.stat().st_size for file in files) > _LARGEST_HASHED:
        return None
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()
