"""`videolens models`: what checkpoints are read, and which published ones are not."""

from __future__ import annotations

import argparse

from videolens.commands.shared import Commands, add_command, quiet, tell


def add(commands: Commands) -> None:
    """Its options."""
    models = add_command(
        commands,
        "models",
        example="videolens models",
        help="list the families of models that are known, with their status",
        description="Families by the model_type of config.json: those that are read, and published ones that are not, "
        "with the reason. Then the bundled models.",
    )
    models.add_argument("--markdown", action="store_true", help="the tables of docs/models.md, and nothing else")
    models.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Print what is known."""
    quiet()
    from videolens.model.checkpoints.bundled import bundled_names

    if options.markdown:
        tell(markdown())
        return
    from videolens.model.families import overview

    for row in overview():
        said = [row["published as"], row["vision → video tokens"], row["decoder"]]
        said += [f"compared with {row['compared with']}"] if row["compared with"] else []
        tell(f"{row['family']}: {row['status']}\n    {'; '.join(filter(None, said))}")
    tell(f"\nbundled: {', '.join(bundled_names())}")


def markdown() -> str:
    """Two tables: families that are read, and those that are not."""
    from videolens.model.families import overview

    read, other = ([row for row in overview() if (row["status"] == "read") == wanted] for wanted in (True, False))
    for row in read:
        name, _, architectures = row["family"].partition(" ")
        row["family"] = f"`{name}`" + (
            f" {architectures.replace('(', '(`').replace(')', '`)')}" if architectures else ""
        )
        row["template"] = row["template"] if row["template"] == "its own" else f"`{row['template']}`"
        del row["status"]
    for row in other:
        row["family"] = ", ".join(f"`{name}`" for name in row["family"].split(", "))
        row["why not"] = row["status"].removeprefix("not read: ")
    kept = [{key: row[key] for key in ("family", "published as", "why not")} for row in other]
    return "\n\n".join(_table(rows) for rows in (read, kept))


def _table(rows: list[dict[str, str]]) -> str:
    head = [f"| {' | '.join(rows[0])} |", "|" + "---|" * len(rows[0])]
    return "\n".join([*head, *(f"| {' | '.join(row.values())} |" for row in rows)])
