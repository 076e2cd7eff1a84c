"""init --adopt: put the tenant loop on an Alembic project that migrates one database."""

from __future__ import annotations

import io
import shutil
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alembic.util import coerce_resource_to_filename

from orchestrator.actions.adopting.carry_over import carry_over
from orchestrator.actions.adopting.environment import LeftOut
from orchestrator.actions.init import FLEET_FILE, next_commands
from orchestrator.actions.new_files import template, write_new
from orchestrator.errors import ConfigurationError, UsageError
from orchestrator.history.directory import alembic_config

#: What the old env.py is called from then on.
KEPT = "env.py.before-orchestrator"


@dataclass(frozen=True, slots=True)
class AdoptedProject:
    """What ``init --adopt`` did."""

    env: Path
    #: Where the old env.py is; ``None`` when it had the tenant loop already and nothing was changed.
    kept: Path | None = None
    created: tuple[Path, ...] = ()
    #: What the user should look at in the old env.py.
    left_out: tuple[LeftOut, ...] = ()
    #: Commands to type next.
    next: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """As ``--json`` prints it."""
        return {
            "env": str(self.env),
            "kept": None if self.kept is None else str(self.kept),
            "created": [str(path) for path in self.created],
            "left_out": [{"line": each.line, "text": each.text, "reason": each.reason} for each in self.left_out],
            "next": list(self.next),
        }


def adopt_project(directory: Path) -> AdoptedProject:
    """Rewrite a project's env.py for all tenants, and write tenants.yaml beside its alembic.ini if it is missing.

    Args:
        directory: the one with env.py, or the one with alembic.ini or pyproject.toml.

    Raises:
        UsageError: there is no Alembic project, or one that was adopted before.
        ConfigurationError: env.py cannot be taken over, or a file cannot be written; nothing was changed.
    """
    script, root = _locate(directory)
    env, kept, fleet = script / "env.py", script / KEPT, root / FLEET_FILE
    old, encoding = _read(env)
    new = carry_over(io.TextIOWrapper(io.BytesIO(old), encoding).read(), str(env))
    if new is None:
        return AdoptedProject(env)
    if kept.exists():
        raise UsageError(
            f"{kept} is there already, from an earlier adoption; nothing was changed",
            hint=f"move it away, and then: orchestrator init --adopt {directory}",
        )
    fresh = script / "env.py.new"
    created = {} if fleet.exists() else {fleet: template(FLEET_FILE)}
    write_new({**created, kept: old, fresh: new.source.encode(encoding)})
    shutil.copymode(env, fresh)
    fresh.replace(env)
    steps = (f"diff -u {kept} {env}", *next_commands(fleet, "plan"))
    return AdoptedProject(env, kept, tuple(created), new.left_out, steps)


def _locate(directory: Path) -> tuple[Path, Path]:
    """The script directory, and the directory of the settings that name it."""
    if not directory.is_dir():
        raise UsageError(f"{directory} is not a directory", hint="name the one with env.py or the one with alembic.ini")
    if (directory / "env.py").is_file():
        for root in _upwards(directory):
            if any(_same(script, directory) for script in _scripts(root)):
                return directory, root
        raise UsageError(
            f"no alembic.ini and no pyproject.toml in {directory} or above it names it as script_location",
            hint=f"write an alembic.ini beside it with: script_location = %(here)s/{directory.resolve().name}",
        )
    scripts = list(_scripts(directory))
    if not scripts:
        raise UsageError(
            f"no Alembic project in {directory}: neither env.py, nor alembic.ini, nor [tool.alembic] in pyproject.toml",
            hint=f"name the directory with env.py; a new project is made with: orchestrator init --config "
            f"{directory / FLEET_FILE}",
        )
    if not (scripts[0] / "env.py").is_file():
        raise UsageError(
            f"no env.py in {scripts[0]}, which the settings in {directory} name as script_location",
            hint="correct script_location, or name the directory with env.py",
        )
    return scripts[0], directory


def _upwards(directory: Path) -> Iterator[Path]:
    """The directory and those above it, spelled like it where that is possible."""
    yield directory
    above = directory
    while above.name not in {"", ".."}:
        above = above.parent
        yield above
    yield from above.resolve().parents


def _scripts(root: Path) -> Iterator[Path]:
    """The script directory that the settings in ``root`` name, if there are any; alembic.ini wins."""
    try:
        config = alembic_config(root)
        if config is None:
            return
        location = config.get_alembic_option("script_location")
        if location:
            # A relative one is meant from where alembic is run, and that is beside its settings.
            script = root / coerce_resource_to_filename(location)
            here = root.resolve()
            yield root / script.relative_to(here) if script.is_relative_to(here) else script
    except Exception as error:
        raise ConfigurationError(
            f"the settings cannot be read: {type(error).__name__}: {error}",
            file=str(next(root / name for name in ("alembic.ini", "pyproject.toml") if (root / name).is_file())),
            hint="correct them, then check with: alembic heads",
        ) from error


def _same(one: Path, other: Path) -> bool:
    return one.resolve() == other.resolve()


def _read(env: Path) -> tuple[bytes, str]:
    """The content, and the encoding that it declares."""
    try:
        content = env.read_bytes()
        encoding, _ = tokenize.detect_encoding(io.BytesIO(content).readline)
        content.decode(encoding)
        return content, encoding
    except (OSError, SyntaxError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"cannot be read: {error}", file=str(env), hint="mend it and try again") from error
