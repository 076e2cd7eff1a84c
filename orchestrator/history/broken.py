"""Why a directory cannot be read, in words that name the file to mend; Alembic's own name a revision at best."""

from __future__ import annotations

import ast
import traceback
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from alembic.config import Config
from alembic.script import ScriptDirectory

from orchestrator.errors import HistoryError

_CHECK = "then check with: alembic history"


@dataclass(frozen=True, slots=True)
class _Declared:
    """What a revision file says of itself at its top level."""

    file: Path
    #: ``None`` when it says nothing.
    revision: str | None
    down: tuple[str, ...]
    #: 1-based line of ``down_revision``.
    line: int


def explain(error: Exception, config: Config) -> HistoryError:
    """Say what is wrong with the directory that ``config`` names.

    Args:
        error: what Alembic raised while it read the directory.
        config: where the directory is.
    """
    place = _place(error, config)
    if place is not None:
        return HistoryError(f"{place}: {type(error).__name__}: {_text(error)}", hint=f"mend the file, {_CHECK}")
    try:
        script = ScriptDirectory.from_config(config)
    except Exception:
        # Not a revision file then, but the way to them.
        return HistoryError(
            f"{config.config_file_name or config.toml_file_name}: {error}",
            hint="say where the directory with env.py is: script_location = %(here)s/alembic, under [alembic]",
        )
    try:
        found = [_declared(file) for file in _files(script)]
    except SyntaxError as other:
        # Alembic stopped before it came to that file.
        return explain(other, config)
    return (
        _nameless(found)
        or _twice(found)
        or _orphan(found)
        or HistoryError(
            f"the Alembic directory {script.dir} cannot be read: {type(error).__name__}: {error}",
            hint=f"mend its revision files, {_CHECK}",
        )
    )


def _nameless(found: Iterable[_Declared]) -> HistoryError | None:
    for each in found:
        if each.revision is None:
            return HistoryError(
                f"{each.file}: it says no `revision =`",
                hint="move it out of the directory if it is no revision; `orchestrator revision` writes new ones",
            )
    return None


def _twice(found: Iterable[_Declared]) -> HistoryError | None:
    first: dict[str, Path] = {}
    for each in found:
        other = first.setdefault(each.revision or "", each.file)
        if other != each.file:
            return HistoryError(
                f"{each.file}: revision {each.revision} is in {other.name} too",
                hint=f"remove the copy, or give one of them an id of its own, {_CHECK}",
            )
    return None


def _orphan(found: Iterable[_Declared]) -> HistoryError | None:
    known = {each.revision for each in found}
    for each in found:
        for down in each.down:
            # A start of an identifier is as good as the whole.
            if not any(revision.startswith(down) for revision in known if revision):
                return HistoryError(
                    f"{each.file}:{each.line}: comes after revision {down!r}, which no file in the directory has",
                    hint=f"get the missing file (another branch of the repository?) or correct down_revision, {_CHECK}",
                )
    return None


def _files(script: ScriptDirectory) -> Iterator[Path]:
    for location in script._version_locations:
        pattern = "**/*.py" if script.recursive_version_locations else "*.py"
        yield from (file for file in sorted(Path(location).glob(pattern)) if file.name != "__init__.py")


def _declared(file: Path) -> _Declared:
    assigned: dict[str, ast.expr] = {}
    for node in ast.parse(file.read_bytes(), str(file)).body:
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                assigned[name] = value
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                assigned[name] = value
    revision, down = _literal(assigned.get("revision")), _literal(assigned.get("down_revision"))
    several = down if isinstance(down, tuple | list) else (down,)
    return _Declared(
        file,
        revision if isinstance(revision, str) else None,
        tuple(each for each in several if isinstance(each, str)),
        assigned["down_revision"].lineno if "down_revision" in assigned else 1,
    )


def _literal(node: ast.expr | None) -> object:
    try:
        return None if node is None else ast.literal_eval(node)
    except ValueError:
        return None


def _text(error: Exception) -> str:
    return error.msg if isinstance(error, SyntaxError) else str(error)


def _place(error: Exception, config: Config) -> str | None:
    """The file and line of the user's own that raised."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    here = str(Path(config.config_file_name or config.toml_file_name or ".").resolve().parent)
    own = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename.startswith(here) and "site-packages" not in frame.filename
    ]
    return f"{own[-1].filename}:{own[-1].lineno}" if own else None
