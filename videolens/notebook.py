"""Objects that show themselves in a notebook: what they look like is found when a cell asks."""

from __future__ import annotations

from importlib import import_module


class Shown:
    """Has a picture of itself for a notebook; its plain `repr` stays one line.

    The room `displays` draws it. It stands above everything that it draws, so it is found by its name, as a result's
    figure is.
    """

    def _repr_html_(self) -> str | None:
        found: str | None = import_module("videolens.displays.pictures").html_of(self)
        return found
