"""The reference of the API: one page for each subject, from the docstrings.

Which names there are is read from the package itself, so that a new name, or a new experiment, has its page by being
there.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from functools import cached_property
from importlib import import_module
from typing import Any

import videolens
from videolens import errors, views
from videolens.experiments import declarations

SUBJECTS = {
    "videos-and-questions": ("Videos, questions, prompts", ("video", "question", "prompt")),
    "data-sets": ("Data sets", ("datasets",)),
    "model": ("Model", ("model",)),
    "interventions": ("Interventions", ("interventions",)),
    "engine": ("Engine", ("engine",)),
    "runs": ("Runs", ("runs",)),
    "explorer": ("Explorer", ("explorer",)),
    "errors": ("Errors", ("errors",)),
    "views": ("Views", ("views",)),
}
"""Pages beside those of the experiments: title, and the rooms of the package whose public names they hold."""

GIVEN = (
    "videolens.model.compiled.running.CompiledPathway",
    "videolens.engine.sweeping.Sweep",
    "videolens.explorer.explore.Explorer",
)
"""Classes that nobody imports, and that public functions give."""


def classes_of_errors() -> list[str]:
    """The paths of the classes of errors that a caller may catch."""
    kinds = [each for each in vars(errors).values() if inspect.isclass(each) and each.__module__ == errors.__name__]
    return [f"{each.__module__}.{each.__name__}" for each in kinds]


def subjects() -> dict[str, tuple[str, str, list[str]]]:
    """page → its title, what it begins with, and the paths of the objects that it shows."""
    public = {name: f"{module}.{name}" for name, module in videolens._PUBLIC.items()}
    public |= {f"views.{name}": f"{module}.{name}" for name, module in views._PUBLIC.items()}
    found: dict[str, tuple[str, str, list[str]]] = {}
    for page, (title, rooms) in SUBJECTS.items():
        own = [path for name, path in public.items() if _room(name, path) in rooms]
        own = sorted(own) + [path for path in GIVEN if path.split(".")[1] in rooms]
        found[page] = (title, "", classes_of_errors() if page == "errors" else own)
    for name, declaration in declarations().items():
        base = f"videolens.experiments.{name}"
        paths = [f"{base}.{module}.{each}" for each, module in declaration.public.items()]
        result = f"{base}.result.{declaration.result}"
        about = inspect.getdoc(import_module(base)) or ""
        functions_first = sorted({*paths, result}, key=lambda path: (path.rpartition(".")[2][0].isupper(), path))
        found[name.replace("_", "-")] = (name.replace("_", " ").capitalize(), about, functions_first)
    return found


def _room(name: str, path: str) -> str:
    return "views" if name.startswith("views.") else path.split(".")[1]


def called(path: str) -> str:
    """What an object is called in code: "vl.Knockout" if it is a name of the package, or its own name."""
    module, _, name = path.rpartition(".")
    if videolens._PUBLIC.get(name) == module:
        return f"vl.{name}"
    return f"videolens.views.{name}" if views._PUBLIC.get(name) == module else name


def pages() -> dict[str, str]:
    """Markdown of every page, by its file in the site."""
    found = {}
    for page, (title, about, paths) in subjects().items():
        shown = "\n\n".join(f"::: {path}\n    options: {{heading: {called(path)}}}" for path in paths)
        found[f"reference/{page}.md"] = f"# {title}\n\n{about}\n\n{shown}\n"
    return found


def without_docstring() -> Iterator[str]:
    """Every public object, and every public method and property of a public class, that says nothing of itself."""
    for _, _, paths in subjects().values():
        for path in paths:
            module, _, name = path.rpartition(".")
            thing = getattr(import_module(module), name)
            if (inspect.isclass(thing) or inspect.isfunction(thing)) and not inspect.getdoc(thing):
                yield path
            if inspect.isclass(thing):
                yield from (f"{path}.{each}" for each in _silent_members(thing))


def _silent_members(kind: type[Any]) -> Iterator[str]:
    for name in dir(kind):
        owner = next((base for base in kind.__mro__ if name in vars(base)), None)
        if name.startswith("_") or owner is None or not owner.__module__.startswith("videolens"):
            continue
        member = inspect.getattr_static(kind, name)
        member = getattr(member, "__func__", member)
        speaks = isinstance(member, (property, cached_property)) or inspect.isfunction(member)
        if speaks and not inspect.getdoc(member):
            yield name
