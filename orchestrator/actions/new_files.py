"""Write new files: all of them or none, and never over one that is there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from orchestrator.errors import ConfigurationError

#: What ``orchestrator init`` writes from, laid out as in the project it makes.
TEMPLATES = Path(__file__).resolve().parent.parent / "templates"


def template(name: str) -> bytes:
    """The content of a template.

    Args:
        name: its path in a project: ``alembic/env.py``.
    """
    return (TEMPLATES / name).read_bytes()


def write_new(files: Mapping[Path, bytes]) -> None:
    """Write files, making the directories they need.

    Args:
        files: path to content.

    Raises:
        ConfigurationError: one of them is there already or cannot be written; what was made before it is gone again.
    """
    made: list[Path] = []
    path = Path()
    try:
        for path, content in files.items():
            for directory in reversed([parent for parent in path.parents if not parent.exists()]):
                directory.mkdir()
                made.append(directory)
            with path.open("xb") as file:
                made.append(path)
                file.write(content)
    except BaseException as error:
        for each in reversed(made):
            each.rmdir() if each.is_dir() else each.unlink()
        if not isinstance(error, OSError):
            raise
        raise ConfigurationError(
            f"cannot be written, so nothing was: {error.strerror or error}",
            file=str(path),
            hint=f"see who may write there: ls -ld {path.parent}",
        ) from error
