"""Which model and which software made a result: every result that is written to disk carries this."""

from __future__ import annotations

import platform
from copy import deepcopy
from dataclasses import field
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from videolens._version import __version__
from videolens.experiments.common.experiment import Gathered, Skip
from videolens.model.transformer import HookedVideoTransformer

SETTINGS = ConfigDict(extra="forbid")
"""How the settings of results are checked: a field that is not known is an error."""


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class Made:
    """How a result was made, as far as that is the same for all results.

    Attributes:
        model: the name or directory the model was loaded from.
        revision: of the checkpoint, where it has one.
        dtype, device: what the model ran in and on.
        versions: of Python and the packages that matter.
        n_asked: questions asked, before any was left out.
        seed: of the bootstrap, and of whatever else is drawn.
        skipped: what was left out, and why.
        forwards: what a question has cost, in plain forwards, on average; None where it is not counted.
        full_forwards: what it costs by the published procedure.
        verified: largest |Δlogit| between the engine and plain forwards in a verified sample, in standard deviations
            of the logits; None where nothing was verified.
        noise: by how much a change of one question differs when its numbers are rounded elsewhere (root mean square, in
            percent); None in float32, where that is nothing, and where it is not measured.
        seconds: time it took, the vision tower included; None for a result of a run.
    """

    model: str
    revision: str | None = None
    dtype: str = ""
    device: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    n_asked: int = 0
    seed: int = 0
    skipped: tuple[Skip, ...] = ()
    forwards: float | None = None
    full_forwards: float | None = None
    verified: float | None = None
    noise: float | None = None
    seconds: float | None = None

    def __getattribute__(self, name: str) -> Any:
        value = super().__getattribute__(name)
        handed_out = isinstance(value, (dict, list)) and not name.startswith("__")
        return deepcopy(value) if handed_out else value


def made_with(model: HookedVideoTransformer, gathered: Gathered | None = None) -> dict[str, Any]:
    """The fields of `Made`, but for the seed: of the model, the software, and what asking all questions gave."""
    cfg = model.cfg
    found: dict[str, Any] = {
        "model": str(getattr(cfg, "model_name", "") or ""),
        "revision": getattr(cfg, "revision", None),
        "dtype": str(cfg.dtype).removeprefix("torch."),
        "device": str(cfg.device),
        "versions": versions(),
    }
    if gathered is not None:
        found |= {"n_asked": gathered.n_asked, "skipped": gathered.skipped, "seconds": gathered.seconds}
        if gathered.cost is not None:
            found |= vars(gathered.cost)
    return found


def versions() -> dict[str, str]:
    """Version of this package, of Python, and of the packages that a number can depend on."""
    found = {"videolens": __version__, "python": platform.python_version()}
    for name in ("torch", "transformers", "transformer-lens", "av"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found
