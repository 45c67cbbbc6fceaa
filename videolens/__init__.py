"""videolens: see where information flows in a VideoLLM, cut what does not matter, and prove both.

Importing this package costs almost nothing: every public name is looked up when it is first used, so that torch,
transformers and TransformerLens are loaded by the code that needs them and not by the import statement.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from videolens._version import __version__
from videolens.experiments import declarations
from videolens.progress import hush_tqdm

# public name -> the module it lives in; the names of experiments stand in their own declarations
_PUBLIC = {
    "Add": "videolens.interventions.add",
    "HookedVideoTransformer": "videolens.model.transformer",
    "Knockout": "videolens.interventions.knockout",
    "Patch": "videolens.interventions.patch",
    "Pathway": "videolens.interventions.pathway",
    "Prompt": "videolens.prompt.prompt",
    "Question": "videolens.question",
    "ROUTES": "videolens.interventions.knockout",
    "RandomBlocking": "videolens.interventions.random_blocking",
    "Run": "videolens.runs",
    "Scale": "videolens.interventions.scale",
    "SourceRun": "videolens.interventions.source",
    "TokenMap": "videolens.prompt.tokens",
    "VIDEO_ROUTES": "videolens.interventions.knockout",
    "Video": "videolens.video.video",
    "VideolensError": "videolens.errors",
    "attention_masks": "videolens.interventions.attention_mask",
    "bundled_path": "videolens.model.checkpoints.bundled",
    "explore": "videolens.explorer.explore",
    "load_dataset": "videolens.datasets",
    "run": "videolens.runs",
    "sweep": "videolens.engine",
}
_PUBLIC |= {
    name: f"videolens.experiments.{experiment.name}.{module}"
    for experiment in declarations().values()
    for name, module in experiment.public.items()
}

__all__ = sorted([*_PUBLIC, "__version__"])

if TYPE_CHECKING:
    from videolens.datasets import load_dataset
    from videolens.engine import sweep
    from videolens.errors import VideolensError
    from videolens.experiments.answer_trace.experiment import AnswerTrace, answer_trace
    from videolens.experiments.attention_map.result import AttentionMap
    from videolens.experiments.attribution.experiment import attribute
    from videolens.experiments.attribution.result import Attribution
    from videolens.experiments.flow.experiment import trace_flow
    from videolens.experiments.flow.plan import plan_flow
    from videolens.experiments.flow.result import FlowMap
    from videolens.experiments.logit_lens.experiment import LogitLens, logit_lens
    from videolens.experiments.patch_map.experiment import patch_map
    from videolens.experiments.patch_map.result import PatchMap
    from videolens.experiments.pathway.choice import choose_pathway
    from videolens.experiments.pathway.experiment import evaluate_pathway
    from videolens.experiments.pathway.result import PathwayAccuracy
    from videolens.explorer.explore import explore
    from videolens.interventions.add import Add
    from videolens.interventions.attention_mask import attention_masks
    from videolens.interventions.knockout import ROUTES, VIDEO_ROUTES, Knockout
    from videolens.interventions.patch import Patch
    from videolens.interventions.pathway import Pathway
    from videolens.interventions.random_blocking import RandomBlocking
    from videolens.interventions.scale import Scale
    from videolens.interventions.source import SourceRun
    from videolens.model.checkpoints.bundled import bundled_path
    from videolens.model.transformer import HookedVideoTransformer
    from videolens.prompt.prompt import Prompt
    from videolens.prompt.tokens import TokenMap
    from videolens.question import Question
    from videolens.runs import Run, run
    from videolens.video.video import Video


def __getattr__(name: str) -> Any:
    """Import the module of a public name at its first use (PEP 562)."""
    if name not in _PUBLIC:
        raise AttributeError(f"module 'videolens' has no attribute {name!r}; public names: {', '.join(__all__)}")
    hush_tqdm()
    value = getattr(import_module(_PUBLIC[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return list(__all__)
