"""videolens: see where information flows in a VideoLLM, cut what does not matter, and prove both.

Importing this package costs almost nothing: every public name is looked up when it is first used, so that torch,
transformers and TransformerLens are loaded by the code that needs them and not by the import statement.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# public name -> the module it lives in
_PUBLIC = {
    "AnswerTrace": "videolens.experiments.answer_trace.experiment",
    "AttentionMap": "videolens.experiments.attention_map.result",
    "FlowMap": "videolens.experiments.flow.experiment",
    "HookedVideoTransformer": "videolens.model.transformer",
    "Knockout": "videolens.interventions.knockout",
    "LogitLens": "videolens.experiments.logit_lens.experiment",
    "Patch": "videolens.interventions.patch",
    "PatchMap": "videolens.experiments.patch_map.result",
    "Pathway": "videolens.interventions.pathway",
    "PathwayAccuracy": "videolens.experiments.pathway.result",
    "Prompt": "videolens.prompt.prompt",
    "Question": "videolens.question",
    "ROUTES": "videolens.interventions.knockout",
    "RandomBlocking": "videolens.interventions.random_blocking",
    "Run": "videolens.runs",
    "SourceRun": "videolens.interventions.source",
    "TokenMap": "videolens.prompt.tokens",
    "Video": "videolens.video.video",
    "VideolensError": "videolens.errors",
    "answer_trace": "videolens.experiments.answer_trace.experiment",
    "attention_map": "videolens.experiments.attention_map.experiment",
    "bundled_path": "videolens.model.checkpoints.bundled",
    "check_claims": "videolens.experiments.claims.experiment",
    "choose_pathway": "videolens.experiments.pathway.choice",
    "evaluate_pathway": "videolens.experiments.pathway.experiment",
    "load_dataset": "videolens.datasets",
    "logit_lens": "videolens.experiments.logit_lens.experiment",
    "measure_accuracy": "videolens.experiments.accuracy.experiment",
    "measure_attention": "videolens.experiments.segment_attention.experiment",
    "patch_map": "videolens.experiments.patch_map.experiment",
    "plan_flow": "videolens.experiments.flow.plan",
    "run": "videolens.runs",
    "sweep": "videolens.engine",
    "trace_flow": "videolens.experiments.flow.experiment",
}

__all__ = [
    "ROUTES",
    "AnswerTrace",
    "AttentionMap",
    "FlowMap",
    "HookedVideoTransformer",
    "Knockout",
    "LogitLens",
    "Patch",
    "PatchMap",
    "Pathway",
    "PathwayAccuracy",
    "Prompt",
    "Question",
    "RandomBlocking",
    "Run",
    "SourceRun",
    "TokenMap",
    "Video",
    "VideolensError",
    "__version__",
    "answer_trace",
    "attention_map",
    "bundled_path",
    "check_claims",
    "choose_pathway",
    "evaluate_pathway",
    "load_dataset",
    "logit_lens",
    "measure_accuracy",
    "measure_attention",
    "patch_map",
    "plan_flow",
    "run",
    "sweep",
    "trace_flow",
]

if TYPE_CHECKING:
    from videolens.datasets import load_dataset
    from videolens.engine import sweep
    from videolens.errors import VideolensError
    from videolens.experiments.answer_trace.experiment import AnswerTrace, answer_trace
    from videolens.experiments.attention_map.result import AttentionMap
    from videolens.experiments.flow.experiment import FlowMap, trace_flow
    from videolens.experiments.flow.plan import plan_flow
    from videolens.experiments.logit_lens.experiment import LogitLens, logit_lens
    from videolens.experiments.patch_map.experiment import patch_map
    from videolens.experiments.patch_map.result import PatchMap
    from videolens.experiments.pathway.choice import choose_pathway
    from videolens.experiments.pathway.experiment import evaluate_pathway
    from videolens.experiments.pathway.result import PathwayAccuracy
    from videolens.interventions.knockout import ROUTES, Knockout
    from videolens.interventions.patch import Patch
    from videolens.interventions.pathway import Pathway
    from videolens.interventions.random_blocking import RandomBlocking
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
    value = getattr(import_module(_PUBLIC[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
