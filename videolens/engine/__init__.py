"""Exact evaluation of many interventions on one prompt, without computing again what none of them changes."""

from videolens.engine.full import HookFunction, last_logits
from videolens.engine.planning import Plan, plan
from videolens.engine.stages import Intervention
from videolens.engine.sweeping import Sweep, check_engine, evaluate, sweep

__all__ = ["HookFunction", "Intervention", "Plan", "Sweep", "check_engine", "evaluate", "last_logits", "plan", "sweep"]
