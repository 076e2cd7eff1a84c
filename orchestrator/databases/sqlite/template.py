"""SQLite files that new ones are copied from."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from orchestrator.errors import AlreadyThere, OtherShape


def text_of(file: Path) -> str:
    """All that a file holds as SQL."""
    with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as connection:
        return "\n".join(connection.iterdump())


def note_of(template: Path) -> Mapping[str, Any] | None:
    """What was written about a template; ``None`` where there is none that is whole."""
    try:
        found = json.loads(_note(template).read_bytes())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and template.is_file() else None


@contextmanager
def building(template: Path) -> Iterator[bool]:
    """Whether nobody else builds it; a killed process takes the lock along."""
    template.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(template.with_suffix(".lock"), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o644)
    try:
        alone = True
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            alone = False
        yield alone
    finally:
        os.close(descriptor)


def keep_file(made: Path, template: Path, note: Mapping[str, Any]) -> str | None:
    """Keep a copy of ``made``, which nobody has open, as the template; others of its family are removed.

    Returns:
        Why it cannot be one.
    """
    if _beside(made):
        return "its write-ahead log was left beside it"
    _written(_note(template), lambda new: new.write_text(json.dumps(note), encoding="utf-8"))
    # The file last: without it, the note does not count.
    _written(template, lambda new: shutil.copyfile(made, new))
    for other in template.parent.glob("*.db"):
        if other != template and (note_of(other) or {}).get("family") == note["family"]:
            for file in (other, _note(other), other.with_suffix(".lock")):
                file.unlink(missing_ok=True)
    return None


def copy_file(template: Path, file: Path, right: Callable[[Path], bool]) -> None:
    """Make ``file`` as a copy; whoever looks finds none, or the whole.

    Args:
        template: which is there.
        file: is missing or empty.
        right: whether a copy is what it should be.

    Raises:
        AlreadyThere: something is in ``file``.
        OtherShape: the copy is not what it should be.
        OSError: it cannot be made.
    """
    _refuse(file)
    # The same after a kill as before it: the tenant's lock is held.
    new = file.with_name(f".{file.name}.making")
    try:
        shutil.copyfile(template, new)
        _on_disk(new)
        if not right(new):
            raise OtherShape(f"the copy of {template.name} came out different from what it was")
        with suppress(FileExistsError):
            # Of two names for the new file, this one is made only where there is no other file of that name.
            os.link(new, file)
            return
        _refuse(file)
        new.replace(file)
    finally:
        new.unlink(missing_ok=True)


def _refuse(file: Path) -> None:
    if (file.exists() and file.stat().st_size) or _beside(file):
        raise AlreadyThere(f"the file {file} is there already, and holds something")


def _beside(file: Path) -> list[Path]:
    """What SQLite keeps beside a file that is in use, or was not closed."""
    names = (file.with_name(f"{file.name}{end}") for end in ("-wal", "-journal"))
    return [name for name in names if name.exists() and name.stat().st_size]


def _note(template: Path) -> Path:
    return template.with_suffix(".note.json")


def _on_disk(file: Path) -> None:
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _written(file: Path, write: Callable[[Path], object]) -> None:
    new = file.with_name(f"{file.name}.{os.getpid()}")
    try:
        write(new)
        _on_disk(new)
        new.replace(file)
    finally:
        new.unlink(missing_ok=True)
