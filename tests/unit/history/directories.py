"""Alembic directories of generated shape, and Alembic itself as the judge of what a command does in them."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script.revision import RevisionError
from alembic.util import CommandError
from hypothesis import reject
from hypothesis import strategies as st
from sqlalchemy import create_engine

from orchestrator.history.directory import History

_FILE = '''"""{name}"""

revision = {name!r}
down_revision = {down!r}
branch_labels = {labels!r}
depends_on = {depends!r}


def upgrade():
    {upgrade}


{downgrade}
'''
_DOWNGRADE = "def downgrade():\n    pass\n"


@dataclass(frozen=True, slots=True)
class Revision:
    """One revision of a generated directory."""

    name: str
    down: tuple[str, ...] = ()
    depends: tuple[str, ...] = ()
    label: str | None = None
    upgrade: str = "pass"
    downgrade: str = _DOWNGRADE

    @property
    def text(self) -> str:
        """Its file."""
        return _FILE.format(
            name=self.name,
            down=self.down or None,
            depends=self.depends or None,
            labels=self.label,
            upgrade=self.upgrade,
            downgrade=self.downgrade,
        )


def line(*names: str, label: str | None = None) -> list[Revision]:
    """Revisions that follow each other."""
    return [
        Revision(name, (names[number - 1],) if number else (), label=None if number else label)
        for number, name in enumerate(names)
    ]


@contextmanager
def directory(revisions: Sequence[Revision]) -> Iterator[History]:
    """Write the revisions into a directory of their own and read it."""
    root = Path(tempfile.mkdtemp(prefix="history-"))
    try:
        (root / "versions").mkdir()
        for revision in revisions:
            (root / "versions" / f"{revision.name}.py").write_text(revision.text, encoding="utf-8")
        yield read(root)
    finally:
        shutil.rmtree(root)


def read(root: Path) -> History:
    """The directory at ``root``."""
    config = Config()
    config.set_main_option("script_location", str(root))
    config.set_main_option("path_separator", "os")
    return History(config)


@st.composite
def shapes(draw: st.DrawFn, *, dependencies: bool = True, largest: int = 8) -> list[Revision]:
    """Directories of any shape: several bases, branches, merges, dependencies across branches."""
    revisions: list[Revision] = []
    lineage: dict[str, set[str]] = {}
    for number in range(draw(st.integers(1, largest))):
        name = f"r{number}"
        earlier = [revision.name for revision in revisions]
        down = draw(st.lists(st.sampled_from(earlier), max_size=2, unique=True)) if earlier else []
        # Alembic refuses a merge of a revision with its own ancestor, and a dependency on one.
        down = [one for one in down if not any(one in lineage[other] for other in down if other != one)]
        before = {name}.union(*(lineage[one] for one in down))
        depends = []
        if dependencies and earlier and draw(st.integers(0, 3)) == 0:
            depends = [one for one in [draw(st.sampled_from(earlier))] if one not in before]
        lineage[name] = before.union(*(lineage[one] for one in depends))
        revisions.append(Revision(name, tuple(down), tuple(depends)))
    return revisions


@dataclass(frozen=True, slots=True)
class Ran:
    """What Alembic did."""

    #: Revisions in the order in which they ran; ``None`` when Alembic refused.
    revisions: tuple[str, ...] | None
    #: Rows of the version table afterwards.
    heads: tuple[str, ...]


def alembic_runs(history: History, command: str, heads: Sequence[str], target: str) -> Ran:
    """Carry out ``alembic COMMAND TARGET`` on an in-memory database whose version table holds ``heads``."""
    find = {"upgrade": history.script._upgrade_revs, "downgrade": history.script._downgrade_revs}[command]
    try:
        return runs(history, lambda current: find(target, current), heads)
    except KeyError:
        # In some directories with dependencies Alembic (1.20) loses count of its own version table's rows.
        reject()


def runs(history: History, find: Callable[[Any], Iterable[Any]], heads: Sequence[str]) -> Ran:
    """Let Alembic carry out the steps that ``find`` makes of its version table's rows, which are ``heads``."""
    ran: list[str] = []

    def steps(current: tuple[str, ...], _: MigrationContext) -> Iterator[object]:
        for step in find(current):
            ran.append(step.revision.revision)
            yield step

    engine = create_engine("sqlite://")
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"fn": steps, "script": history.script})
        context._ensure_version_table()
        for head in heads:
            connection.execute(context._version.insert().values(version_num=head))
        connection.commit()
        try:
            with context.begin_transaction():
                context.run_migrations()
        except (CommandError, RevisionError):
            connection.rollback()
            return Ran(None, tuple(sorted(heads)))
        after = tuple(sorted(context.get_current_heads()))
    engine.dispose()
    return Ran(tuple(ran), after)
