"""Who is measured: a :class:`Task` for the orchestrator, and one for each of those it is compared with."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks import projects
from benchmarks.bench import WORK, Bench
from benchmarks.histories import FIRST, UNDO, History
from benchmarks.measuring import Command, RunError, Task, measure
from benchmarks.server import PREFIX

OURS, COOKBOOK, PSQL, SHELL, BARE = "orchestrator", "cookbook loop", "psql", "shell loop", "bare asyncpg"
DJANGO = {"standard": "django-tenants", "multiprocessing": "django-tenants, multiprocessing"}
_DJANGO_UNDO = """
ALTER TABLE projects DROP COLUMN IF EXISTS archived_at;
DELETE FROM django_migrations WHERE name = '0002_archived_at';
"""


@dataclass(frozen=True)
class Work:
    """What is to be done with tenants that are schemas."""

    bench: Bench
    history: History
    #: How many tenants there are.
    tenants: int
    #: Connections at once, for all who can use more than one.
    at_once: int = 8
    #: Address of the server, when it is not reached directly.
    via: str | None = None

    def smaller(self, tenants: int) -> Work:
        """The same for fewer tenants."""
        return replace(self, tenants=min(tenants, self.tenants))

    @property
    def database(self) -> str:
        """Name of the database that is worked on."""
        return f"{PREFIX}schemas_{self.tenants}" if self.history.undone else WORK

    @property
    def address(self) -> str:
        """Its address."""
        return urlsplit(self.via or self.bench.server.url)._replace(path=f"/{self.database}").geturl()

    def reset(self) -> None:
        """Bring the database to its beginning."""
        prepared = self.bench.schemas(self.tenants)
        if not self.history.undone:
            self.bench.copied(prepared)
        elif self.history.head != FIRST:
            self.bench.soil(prepared, UNDO)

    def check(self) -> None:
        """Every tenant has arrived, whoever brought it there."""
        url = self.bench.server.database_url(self.database)
        self.bench.server.expect(url, projects.tenants(self.tenants), self.history.head, self.history.index)

    def directory(self, name: str) -> Path:
        """A directory of one's own, by what is done there."""
        path = self.bench.directory / f"{self.history.name}-{self.tenants}-{name}"
        path.mkdir(exist_ok=True)
        return path


def orchestrator(
    work: Work, command: str = "upgrade", name: str = OURS, few: int = 0, *, journaled: bool = False
) -> Task:
    """``orchestrator upgrade``, or another command; the fleet is read with a ``schemas:`` source.

    Args:
        work: what is to be done.
        command: ``upgrade`` or ``status``.
        name: what it is called in the results.
        few: tenants of the idle run, so that what is done once for a fleet counts as start-up; with 0 it has nothing
            to do.
        journaled: upgrade before, which is not timed: ``status`` compares what it reads with the journal.
    """
    program = work.bench.ours / "orchestrator"
    source = {"schemas": "tenant_*"}
    selection = [part for tenant in projects.tenants(few or 1) for part in ("--tenant", tenant)]
    # With a few it is a smaller run of the same; with one, which stands there already, it has nothing to do.
    idle = ["upgrade", *selection] if few else ["upgrade", FIRST, *selection]
    project = projects.ours(work.directory("ours"), work.history, work.address, source, work.at_once)

    def reset() -> None:
        work.reset()
        if journaled:
            measure([program, "upgrade"], project)

    return Task(
        name,
        [program, command],
        project,
        work.tenants,
        idle=[program, *idle],
        idle_tenants=few,
        reset=reset,
        tidy=lambda: projects.forget(project),
        check=work.check,
    )


def cookbook(work: Work, at_most: int | None = None) -> Task:
    """The loop of Alembic's cookbook in one process, over one connection."""
    project = projects.cookbook(work.directory("cookbook"), work.history, work.address)
    program = work.bench.peers / "alembic"
    idle: Command = [program, "-x", f"tenant={projects.tenants(1)[0]}", "upgrade", FIRST]
    return Task(
        COOKBOOK,
        [program, "upgrade", "head"],
        project,
        work.tenants,
        idle=idle,
        reset=work.reset,
        check=work.check,
        at_most=at_most,
    )


def shell_loop(work: Work) -> Task:
    """One ``alembic upgrade head`` after the other; what each takes does not depend on how many there are."""
    project = projects.cookbook(work.directory("shell"), work.history, work.address)
    program = shlex.quote(str(work.bench.peers / "alembic"))
    names = " ".join(projects.tenants(work.tenants))
    loop = f"for tenant in {names}; do {program} -x tenant=$tenant upgrade head || exit 1; done"
    return Task(SHELL, ["sh", "-c", loop], project, work.tenants, reset=work.reset, check=work.check, at_most=1)


def psql(work: Work, name: str = PSQL) -> Task | None:
    """The same SQL from files, as many psql at once as there may be connections; ``None`` without psql."""
    program = work.bench.psql
    if program is None:
        return None
    directory = work.directory("psql")
    project = projects.cookbook(directory / "project", work.history, work.address)
    script = projects.pending_sql(work.bench.peers / "alembic", project, work.history)
    names = projects.tenants(work.tenants)
    parts = [names[first :: work.at_once] for first in range(work.at_once)]
    for number, part in enumerate(parts):
        text = "\n".join(f'SET search_path TO "{name}";\n{script}' for name in part)
        (directory / f"{number}.sql").write_text(text, encoding="utf-8")
    call = f'{shlex.quote(str(program))} -X -q -v ON_ERROR_STOP=1 "$1"'
    return Task(
        name,
        _together([f"{call} -f {number}.sql" for number in range(len(parts))], work.address),
        directory,
        work.tenants,
        idle=_together([f"{call} -c 'SELECT 1'" for _ in parts], work.address),
        reset=work.reset,
        check=work.check,
    )


def psql_from_nothing(
    bench: Bench,
    history: History,
    url: str,
    names: Sequence[str],
    at_once: int,
    reset: Callable[[], None],
    check: Callable[[], None],
) -> Task | None:
    """Schemas made by psql with the SQL that Alembic would send; ``None`` without psql."""
    if bench.psql is None:
        return None
    directory = bench.directory / f"{history.name}-{len(names)}-psql-from-nothing"
    directory.mkdir()
    project = projects.cookbook(directory / "project", history, url)
    script = projects.sql(bench.peers / "alembic", project, history.head)
    for number in range(at_once):
        text = "\n".join(
            f'CREATE SCHEMA "{name}";\nSET search_path TO "{name}";\n{script}' for name in names[number::at_once]
        )
        (directory / f"{number}.sql").write_text(text, encoding="utf-8")
    call = f'{shlex.quote(str(bench.psql))} -X -q -v ON_ERROR_STOP=1 "$1"'
    together = _together([f"{call} -f {number}.sql" for number in range(at_once)], url)
    return Task(PSQL, together, directory, len(names), reset=reset, check=check)


def django_tenants(work: Work, executor: str, at_most: int | None = None) -> Task:
    """django-tenants with tables and a migration like the others'; only for the history ``ONE``."""
    bench = work.bench
    site = projects.django(bench.directory / "django")
    program: list[str | Path] = [bench.peers / "python", "manage.py", "migrate_schemas", "--verbosity", "0"]

    url = bench.server.database_url(f"{PREFIX}django_{work.tenants}")

    def reset() -> None:
        bench.soil(bench.django(work.tenants), _DJANGO_UNDO)

    def check() -> None:
        query = "SELECT count(*) FROM pg_class WHERE relname = 'ix_projects_archived_at'"
        found = bench.server.fetch(url, query)[0][0]
        if found != work.tenants:
            raise RunError(f"{found} of {work.tenants} tenants have the index")

    return Task(
        DJANGO[executor],
        [*program, "--tenant", "--executor", executor],
        site,
        work.tenants,
        idle=[*program, "--schema", projects.tenants(1)[0], "saas", "0001"],
        reset=reset,
        check=check,
        at_most=at_most,
        environment={"BENCH_URL": url, "BENCH_AT_ONCE": str(work.at_once)},
    )


def bare_asyncpg(bench: Bench, script: str, addresses: Sequence[str], at_once: int, directory: Path) -> Task:
    """Connect, run the script, close: what no tool over asyncpg can be quicker than, for tenants that are databases."""
    directory.mkdir(exist_ok=True)
    (directory / "script.sql").write_text(script, encoding="utf-8")
    (directory / "addresses").write_text("\n".join(addresses), encoding="utf-8")
    (directory / "none").write_text("", encoding="utf-8")
    command: list[str | Path] = [bench.peers / "python", projects.bare_asyncpg(), "script.sql", str(at_once)]
    return Task(BARE, [*command, "addresses"], directory, len(addresses), idle=[*command, "none"])


def _together(calls: Sequence[str], address: str) -> list[str]:
    started = "\n".join(f'{call} >{number}.out & p="$p $!"' for number, call in enumerate(calls))
    return ["sh", "-c", f"p=\n{started}\nfor each in $p; do wait $each || exit 1; done", "sh", address]
