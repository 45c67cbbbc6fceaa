"""Exact evaluation of many interventions on one prompt, without computing again what none of them changes."""

from videolens.engine.full import last_logits
from videolens.engine.planning import Plan, plan
from videolens.engine.sweeping import Sweep, check_engine, evaluate, sweep

__all__ = ["Plan", "Sweep", "check_engine", "evaluate", "last_logits", "plan", "sweep"]
