"""Exact evaluation of many interventions on one prompt, without computing again what none of them changes."""

from videolens.engine.full import last_logits
from videolens.engine.planning import Plan, check_engine, plan
from videolens.engine.sweeping import Sweep, evaluate, sweep
from videolens.engine.unchanged import Base, base

__all__ = ["Base", "Plan", "Sweep", "base", "check_engine", "evaluate", "last_logits", "plan", "sweep"]
