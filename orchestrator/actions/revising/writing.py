"""Write revision files through Alembic: all of them, or none."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from alembic.autogenerate import RevisionContext
from alembic.runtime.migration import MigrationContext
from alembic.script import Script
from alembic.util import CommandError
from sqlalchemy.engine import URL

from orchestrator.actions.revising.asked import Asked
from orchestrator.errors import HistoryError, OrchestratorError, UsageError
from orchestrator.history.directory import History
from orchestrator.migration.loop import load_loop
from orchestrator.targets import require_named

#: What is a name and nothing else, on every file system and to Alembic.
_PLAIN = re.compile(r"\w+(?:\.\w+)*", re.ASCII)
#: Characters that Alembic's version table takes, unless somebody says otherwise.
_USUAL_ROOM = 32
#: Names that mean something else to Alembic.
_TAKEN = frozenset({"base", "head", "heads", "current"})


def check(history: History, asked: Asked) -> None:
    """Refuse what Alembic would not, or would tell of worse.

    Raises:
        OrchestratorError: there is no message, no such revision to come after, or one of the wished name already.
    """
    require_message(asked.message)
    if asked.head == "head" and len(history.heads) > 1:
        raise HistoryError(
            f"the directory has {len(history.heads)} heads ({', '.join(history.heads)}): after which one?",
            hint=f"name it: --head {history.heads[0]}; or join them first: alembic merge -m 'merge heads' heads",
        )
    history.resolve(asked.head)
    for needed in asked.depends_on:
        require_named(needed)
    if asked.rev_id is not None and asked.rev_id in history.graph.parents:
        raise HistoryError(
            f"there is a revision {asked.rev_id} already: {history.file(asked.rev_id).name}",
            hint="take another --rev-id, or none",
        )
    _require_room(history, () if asked.rev_id is None else (asked.rev_id,))


def _require_room(history: History, identifiers: Sequence[str]) -> None:
    """Version tables have to take the identifier: otherwise no tenant in PostgreSQL could ever get there.

    A directory that has one as long has other tables, which somebody has widened.

    Raises:
        UsageError: they do not.
    """
    longest = max(identifiers, key=len, default="")
    if len(longest) <= max([_USUAL_ROOM, *map(len, history.graph.parents)]):
        return
    # env.py may declare another table, by an implementation of its own for the dialect.
    load_loop(history)
    dialect = URL.create("postgresql+asyncpg").get_dialect()
    column = MigrationContext.configure(dialect=dialect())._version.c.version_num
    room = getattr(column.type, "length", None)
    if room is not None and len(longest) > room:
        raise UsageError(
            f"a revision cannot be called {longest!r}: these are {len(longest)} characters, and the version table's "
            f"column takes {room}",
            hint="take a shorter --rev-id, or none; how to have a wider column: docs/env.md",
        )


def require_message(message: str) -> None:
    """A revision that says nothing of itself is not written.

    Raises:
        UsageError: it says nothing.
    """
    if not message.strip():
        raise UsageError("a revision needs a message: it is what colleagues read at night", hint="-m 'add user phone'")


def require_plain_id(identifier: str | None) -> None:
    """An identifier is a part of a file's name, and of what targets are written with (``head``, ``+1``, ``a:b``).

    Args:
        identifier: as wished; ``None`` for a new one.

    Raises:
        UsageError: it is no plain name.
    """
    if identifier is None:
        return
    if not _PLAIN.fullmatch(identifier) or identifier in _TAKEN:
        raise UsageError(
            f"a revision cannot be called {identifier!r}: letters, digits, underscores and single dots make a name",
            hint="take another --rev-id, or none",
        )


def in_docstring(message: str) -> str:
    """A message as it is written between triple quotes, so that it is read as it was given."""
    text = message.replace("\\", "\\\\")
    for quote in ('"', "'"):
        if quote * 3 in text or text.endswith(quote):
            text = text.replace(quote, f"\\{quote}")
    return text


def write(history: History, context: RevisionContext, never: str | None = None) -> tuple[Script, ...]:
    """Write what ``context`` has.

    Args:
        history: the shared directory.
        context: with all that the revisions are to do.
        never: a name that must not be in them: the scratch tenant's, which is nobody's.

    Raises:
        OrchestratorError: it cannot be written, or the name would be in it; nothing was written then.
    """
    # env.py's hooks may give identifiers of their own.
    ours = [each.rev_id for each in context.generated_revisions if each.rev_id]
    _require_room(history, ours)
    with _none_left(history, ours), refusals(history), _generating(history):
        written = tuple(script for script in context.generate_scripts() if script is not None)
        if never is not None:
            for script in written:
                _refuse_name(Path(script.path), never)
    return written


@contextlib.contextmanager
def refusals(history: History) -> Iterator[None]:
    """Turn what Alembic and the operating system refuse into an error with what to do."""
    try:
        yield
    except OrchestratorError:
        raise
    except CommandError as error:
        if isinstance(error.__cause__, OrchestratorError):
            raise error.__cause__ from error
        raise HistoryError(str(error), hint=_hint(str(error), history)) from error
    except OSError as error:
        missing = str(error.filename).endswith("script.py.mako")
        raise HistoryError(
            f"the revision cannot be written: {error}",
            hint="take the script.py.mako that `orchestrator init` makes in an empty directory"
            if missing
            else f"see who may write there: ls -ld {history.script.versions}",
        ) from error
    except Exception as error:
        raise HistoryError(
            f"the revision cannot be written: {type(error).__name__}: {error}",
            hint=f"its text comes from {history.script.dir}/script.py.mako, the message and what env.py adds",
        ) from error


def _hint(refusal: str, history: History) -> str:
    """What to do about a refusal, by what Alembic's text says."""
    if "MetaData" in refusal:
        return f"set target_metadata in {history.script.env_py_location} to your tables' MetaData"
    if "--splice" in refusal:
        return "add --splice to start a branch there, or leave --head out"
    if "version location" in refusal:
        places = ", ".join(str(place) for place in history.script._version_locations)
        return f"--version-path with one of: {places}"
    return "look at the revisions with: alembic history"


def _refuse_name(file: Path, never: str) -> None:
    lines = file.read_text(encoding="utf-8").splitlines()
    found = next((line.strip() for line in lines if never in line), None)
    if found is not None:
        raise HistoryError(
            "no revision was written: it would name the scratch tenant that the models were compared with, "
            f"which is gone: {found}",
            hint="a definition in the database says its tenant's name; leave that object out by include_object in"
            " env.py, and write its part by hand: orchestrator revision -m ... without --autogenerate",
        )


@contextlib.contextmanager
def _generating(history: History) -> Iterator[None]:
    """Refuse a name that a file has already, and keep a message from ending the docstring that it is in.

    Alembic writes over the file (seen in 1.16 to 1.20: ``ScriptDirectory._generate_template``); a ``file_template``
    without ``%(rev)s`` gives one name twice. The docstring it leaves to templates, and they to the message.
    """
    script: Any = history.script
    generate = script._generate_template

    def careful(source: Path, file: Path, **arguments: Any) -> None:
        # Whatever else is wrong with either of them, Alembic is to say.
        if Path(source).exists() and Path(file).exists():
            raise HistoryError(
                f"there is a file {Path(file).name} already, and it would be written over",
                hint="put %%(rev)s into file_template in alembic.ini, or give another message",
            )
        if isinstance(message := arguments.get("message"), str):
            arguments["message"] = in_docstring(message)
        generate(source, file, **arguments)

    script._generate_template = careful
    try:
        yield
    finally:
        script._generate_template = generate


@contextlib.contextmanager
def _none_left(history: History, ours: Sequence[str]) -> Iterator[None]:
    """Take away what was written, when the rest cannot be."""
    before = _files(history)
    try:
        yield
    except BaseException:
        for file in _files(history) - before:
            text = file.read_text(encoding="utf-8", errors="replace")
            # A colleague's editor may have saved another one meanwhile.
            if not text or any(revision in text or revision in file.name for revision in ours):
                file.unlink(missing_ok=True)
        raise


def _files(history: History) -> set[Path]:
    return {file for place in history.script._version_locations for file in Path(place).rglob("*.py")}
