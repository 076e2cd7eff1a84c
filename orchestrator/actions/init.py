"""init: a new project - Alembic's directory with the tenant loop in its env.py, and a fleet to edit."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.actions.new_files import template, write_new
from orchestrator.errors import UsageError

#: The fleet's file, as a project has it; every other command looks for it by this name.
FLEET_FILE = "tenants.yaml"
#: Beside the fleet's file, and named alike in the templates. Only with a file in it is versions/ kept by Git.
#: No __init__.py: a package called alembic would hide Alembic's own.
_ALEMBIC = ("alembic.ini", "alembic/env.py", "alembic/script.py.mako", "alembic/versions/README.md")


@dataclass(frozen=True, slots=True)
class NewProject:
    """What ``init`` made."""

    #: In the order in which one meets them.
    created: tuple[Path, ...]
    #: Commands to type next.
    next: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """As ``--json`` prints it."""
        return {"created": [str(path) for path in self.created], "next": list(self.next)}


def init_project(fleet: Path) -> NewProject:
    """Make a project: alembic.ini, alembic/ and tenants.yaml.

    Args:
        fleet: the fleet's file to be; the rest is made beside it. Its directory exists.

    Returns:
        The files, and what to do with them.

    Raises:
        UsageError: the directory is missing, or something is there already; nothing was written.
        ConfigurationError: a file cannot be written; nothing is left of those that could.
    """
    root = fleet.parent
    if not root.is_dir():
        raise UsageError(f"{root} is not a directory", hint=f"make it first: mkdir -p {root}")
    files = {root / name: template(name) for name in _ALEMBIC} | {fleet: template(FLEET_FILE)}
    _refuse_existing(root, tuple(files))
    write_new(files)
    return NewProject(tuple(files), next_commands(fleet, "revision -m 'create users'"))


def next_commands(fleet: Path, *steps: str) -> tuple[str, ...]:
    """The way from a fleet's file to migrated tenants.

    Args:
        fleet: the fleet's file.
        steps: what comes between checking the fleet and migrating it, without ``orchestrator``.
    """
    config = "" if fleet == Path(FLEET_FILE) else f" --config {fleet}"
    return tuple(
        f"orchestrator{config} {step}" for step in ("tenants validate", *steps, "upgrade --provision", "status")
    )


def _refuse_existing(root: Path, files: tuple[Path, ...]) -> None:
    directory = root / "alembic"
    there = [path for path in files if path.exists()]
    if not there and directory.is_dir() and any(directory.iterdir()):
        there = [directory]
    pyproject = root / "pyproject.toml"
    if pyproject.is_file() and "[tool.alembic]" in pyproject.read_text(encoding="utf-8", errors="replace"):
        there.append(pyproject)
    if not there:
        return
    listed = "".join(f"\n  {path}" for path in there)
    adopted = [path for path in there if path.name in {"env.py", "alembic.ini", "pyproject.toml"}]
    raise UsageError(
        f"there already, so nothing was written:{listed}",
        hint=f"put the tenant loop on the Alembic project that is there: orchestrator init --adopt {root}"
        if adopted
        else "move them away, or choose an empty directory",
    )
