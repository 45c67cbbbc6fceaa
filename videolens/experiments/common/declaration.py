"""How an experiment names itself: one declaration, in the `__init__` of its folder.

Config, command line, page and public names are made from it; nothing else lists experiments. Importing a declaration
imports nothing that is heavy: the folder's modules are imported when they are used.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any


@dataclass(frozen=True)
class Declaration:
    """An experiment, declared.

    Attributes:
        name: its folder, and what a run's config calls it.
        title: what it is called on a page.
        public: the names that `videolens` gives out, and the module of the folder that each lives in.
        result: the class of its results, in the folder's module `result`.
        short: a short name for its command, where its own is long or not what one would look for.
        example: options that the example in its command's help needs.
        experiment: the class that asks questions, in the folder's module `experiment`; None where it is not asked
            question by question, and so cannot stand in a run's config.
    """

    name: str
    title: str
    result: str
    public: Mapping[str, str] = field(default_factory=dict)
    experiment: str | None = None
    short: str | None = None
    example: str = ""

    def module(self, name: str) -> Any:
        """A module of the folder: "experiment", "result", "figure" or "section"."""
        return import_module(f"videolens.experiments.{self.name}.{name}")

    @property
    def experiment_class(self) -> Any:
        """The class whose instances are asked: it takes a model and, by keyword, plain data."""
        assert self.experiment is not None, f"{self.name} is not asked question by question"
        return getattr(self.module("experiment"), self.experiment)

    @property
    def result_class(self) -> Any:
        """The class whose `load` reads what a result has saved."""
        return getattr(self.module("result"), self.result)
