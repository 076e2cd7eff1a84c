"""Whatever happens in whatever order, and the fleet is right: kills, cuts, other orchestrators, new revisions, tenants.

Hypothesis chooses what happens. After every step each tenant is where some run has brought it, whole, and nobody else's
schema has changed; at the end, `resume` or `upgrade` brings all of them to the newest revision.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import asyncpg
from alembic import command
from alembic.config import Config
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.catalog import Catalog, catalog, catalogs, difference
from tests.projects import make_project, schemas
from tests.servers import PostgresServer, execute, fetch
from tests.workspace import Workspace

#: Seconds for what must happen soon.
SOON = 60.0
#: The same settings, without the orchestrator.
PLAIN_ENV = """
import asyncio

from alembic import context
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool


def migrate(connection):
    context.configure(connection=connection, version_table_schema="plain", transaction_per_migration=True)
    with context.begin_transaction():
        context.run_migrations()


async def main():
    url = context.config.attributes["url"].replace("postgresql:", "postgresql+asyncpg:")
    scope = dict(server_settings=dict(search_path="plain"))
    engine = create_async_engine(url, poolclass=NullPool, connect_args=scope)
    async with engine.connect() as connection:
        await connection.run_sync(migrate)


asyncio.run(main())
"""
#: Each says in its own transaction that it has run: +1 forwards, -1 back.
LOG = """op.execute("INSERT INTO public.audit SELECT current_schema(), '{name}', {by}")"""
#: Revisions by kind: what they do forwards and back.
KINDS = {
    "table": ('op.create_table("{name}", sa.Column("id", sa.Integer, primary_key=True))', 'op.drop_table("{name}")'),
    "rows": (
        'op.execute("CREATE TABLE {name} AS SELECT n, md5(n::text) AS m FROM generate_series(1, 500) n")',
        'op.execute("DROP TABLE {name}")',
    ),
    "reading": (
        'assert op.get_bind().exec_driver_sql("SELECT count(*) FROM alembic_version").scalar() in (0, 1)\n'
        '    op.create_table("{name}", sa.Column("id", sa.Integer))',
        'op.drop_table("{name}")',
    ),
    "block": (
        "with op.get_context().autocommit_block():\n"
        '        op.execute("CREATE TABLE IF NOT EXISTS {name} (id int)")\n'
        '        op.execute("CREATE INDEX IF NOT EXISTS ix_{name} ON {name} (id)")',
        'op.execute("DROP TABLE {name}")',
    ),
}
#: Connections into tenants.
AT_WORK = "pg_stat_activity WHERE application_name LIKE 'orchestrator %' AND datname = current_database()"
#: The blocks that are run here do no harm when they are run again.
RETRY = "--retry-partial"
BROKEN = 'op.execute("SELECT nothing FROM nowhere")'


@dataclass(frozen=True, slots=True)
class Revision:
    """One file of the history."""

    name: str
    kind: str


class Fleet(RuleBasedStateMachine):
    """A handful of schemas, a history that grows, and the real command line."""

    pg: ClassVar[PostgresServer]

    @initialize(kinds=st.lists(st.sampled_from(sorted(KINDS)), min_size=1, max_size=3))
    def begin(self, kinds: list[str]) -> None:
        """An empty fleet of four and a short history."""
        self.ending = ExitStack()
        self.path = Path(self.ending.enter_context(tempfile.TemporaryDirectory()))
        self.url, self.plain = self.pg.create_database(), self.pg.create_database()
        for url in (self.url, self.plain):
            self.ending.callback(self.pg.drop_database, url)
            execute(url, "CREATE TABLE public.audit (tenant text, revision text, by int)")
        execute(self.plain, "CREATE SCHEMA plain")
        execute(
            self.url, "CREATE SCHEMA bystander; CREATE TABLE bystander.mine AS SELECT 1 AS id; CREATE TABLE mine ()"
        )
        self.tenants = ["a", "b", "c", "d"]
        self.revisions: list[Revision] = []
        self.broken = False
        self.runs = 0
        self.expected: dict[str | None, Catalog] = {}
        make_project(self.path, {}, self.fleet())
        (self.path / "plain").mkdir()
        (self.path / "plain" / "env.py").write_text(PLAIN_ENV)
        (self.path / "plain" / "versions").symlink_to(self.path / "alembic" / "versions")
        self.expected[None] = {}
        self.workspace = Workspace(self.path)
        self.beside = self.neighbours()
        for kind in kinds:
            self.grow(kind)

    def fleet(self) -> str:
        """tenants.yaml."""
        return schemas(self.url, *self.tenants, policy={"retries": 2})

    # What happens.

    @rule(replay=st.booleans())
    def upgrade(self, replay: bool) -> None:
        """A run to its end."""
        assert self.ended(self.start("upgrade", *self.options(replay))) == (1 if self.broken else 0), self.told

    @rule(replay=st.booleans())
    def upgrade_what_is_whole(self, replay: bool) -> None:
        """Nobody asked for it: what was cut off outside a transaction is left alone, and said."""
        options = [option for option in self.options(replay) if option != RETRY]
        code = self.ended(self.start("upgrade", *options))
        assert code == (1 if self.broken or self.partial() else 0), self.told

    @precondition(lambda self: not self.broken)
    @rule()
    def edit(self) -> None:
        """A revision that everybody has is edited: nothing is touched until it is as it was."""
        assert self.ended(self.start("upgrade", *self.options(replay=True))) == 0, self.told
        self.add_revision("table", broken=False)
        file = self.file(self.revisions[0])
        before, text = {tenant: self.head(tenant) for tenant in self.tenants}, file.read_text()
        file.write_text(text.replace("def upgrade():", "def upgrade():\n    op.execute('SELECT 1')"))
        assert self.ended(self.start("upgrade", *self.options(replay=True))) == 2, self.told
        assert "was edited after it was applied" in self.told
        assert {tenant: self.head(tenant) for tenant in self.tenants} == before
        file.write_text(text)

    @rule(commits=st.integers(0, 12), replay=st.booleans())
    def crash(self, commits: int, replay: bool) -> None:
        """The whole server goes down in the middle and recovers, as after -m immediate."""
        before = self.committed()
        process = self.start("upgrade", *self.options(replay))
        self.until_or_ended(process, lambda: self.committed() - before >= commits and self.at_work())
        for (pid,) in fetch(self.url, f"SELECT pid FROM {AT_WORK} LIMIT 1"):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        assert self.ended(process) in (0, 1), self.told
        self.until(self.answers)

    @rule(commits=st.integers(0, 12), replay=st.booleans())
    def kill(self, commits: int, replay: bool) -> None:
        """kill -9 after so many bodies were committed, or as soon as the process has a tenant's connection."""
        before = self.committed()
        process = self.start("upgrade", *self.options(replay))
        self.until_or_ended(process, lambda: self.committed() - before >= commits and (commits > 0 or self.at_work()))
        process.kill()
        self.ended(process)

    @rule(commits=st.integers(0, 12), replay=st.booleans())
    def cut(self, commits: int, replay: bool) -> None:
        """All of the run's backends are ended once; it goes on by itself."""
        before = self.committed()
        process = self.start("upgrade", *self.options(replay))
        self.until_or_ended(process, lambda: self.committed() - before >= commits and self.at_work())
        fetch(self.url, f"SELECT pg_terminate_backend(pid) FROM {AT_WORK}")
        # One that was cut off outside a transaction is not run again blindly.
        assert self.ended(process) in (0, 1)

    @rule(replay=st.booleans())
    def two_at_once(self, replay: bool) -> None:
        """Two orchestrators mean the same."""
        processes = [self.start("upgrade", "--lock-wait", "60s", *self.options(replay)) for _ in range(2)]
        assert [self.ended(process) for process in processes] == [1 if self.broken else 0] * 2

    @precondition(lambda self: self.runs)
    @rule()
    def resume(self) -> None:
        """What the last run left is done; a downgrade that is resumed goes back."""
        assert self.ended(self.start("resume", RETRY)) in (0, 1)

    @precondition(lambda self: not self.broken)
    @rule(data=st.data())
    def downgrade(self, data: Any) -> None:
        """Some tenants go back some way."""
        target = data.draw(st.sampled_from(["base", *(each.name for each in self.revisions)]))
        whom = data.draw(st.lists(st.sampled_from(self.tenants), min_size=1, unique=True))
        selection = [part for tenant in whom for part in ("-t", tenant)]
        arguments = ("downgrade", target, "--yes", "--allow-data-loss", "--continue-on-error", *selection)
        assert self.ended(self.start(*arguments)) in (0, 1)

    @precondition(lambda self: not self.broken and len(self.revisions) < 8)
    @rule(kind=st.sampled_from(sorted(KINDS)), broken=st.booleans())
    def add_revision(self, kind: str, broken: bool) -> None:
        """The history grows, maybe by one that fails everywhere."""
        self.grow(kind, broken=broken)

    @precondition(lambda self: self.broken)
    @rule()
    def mend(self) -> None:
        """The file that fails is edited; nobody has run it."""
        self.write(self.revisions[-1], broken=False)

    @precondition(lambda self: len(self.tenants) < 7)
    @rule()
    def add_tenant(self) -> None:
        """One more, at the beginning of the history."""
        self.tenants.append("abcdefgh"[len(self.tenants)])
        (self.path / "tenants.yaml").write_text(self.fleet())

    # What holds.

    @invariant()
    def tenants_are_whole(self) -> None:
        """Each is at a revision, as plain Alembic makes it there, and each body before it has been committed once."""
        self.until(lambda: not self.at_work())
        heads = {tenant: self.head(tenant) for tenant in self.tenants}
        held = catalogs(self.url, self.tenants)
        names = [each.name for each in self.revisions]
        net: Counter[tuple[str, str]] = Counter()
        for tenant, revision, by in fetch(self.url, "SELECT tenant, revision, by FROM public.audit"):
            net[tenant, revision] += by
        for tenant, head in heads.items():
            through = names[: names.index(head) + 1] if head else []
            assert {revision for revision in names if net[tenant, revision]} == set(through), (tenant, head, net)
            assert all(net[tenant, revision] == 1 for revision in through), (tenant, head, net)
            different = difference(self.at(head), self.tidy(held[tenant]))
            if len(through) < len(self.revisions) and self.revisions[len(through)].kind == "block":
                # Killed or cut after its autocommit block: what that made stays, and is made again without harm.
                different = [line for line in different if self.revisions[len(through)].name not in line]
            assert not different, (tenant, head, different)

    @invariant()
    def neighbours_are_as_they_were(self) -> None:
        """No other schema has changed, rows included."""
        assert self.neighbours() == self.beside

    def teardown(self) -> None:
        """With the history whole again, everybody gets to its end."""
        if not hasattr(self, "ending"):
            return
        with self.ending:
            if self.broken:
                self.write(self.revisions[-1], broken=False)
            if self.runs:
                self.ended(self.start("resume", RETRY))
            code = self.ended(self.start("upgrade", *self.options(replay=True)))
            assert code == 0, self.told
            self.tenants_are_whole()
            self.neighbours_are_as_they_were()
            assert {self.head(tenant) for tenant in self.tenants} == {self.revisions[-1].name}

    # How.

    def grow(self, kind: str, *, broken: bool = False) -> None:
        """One more revision."""
        self.revisions.append(Revision(f"r{len(self.revisions) + 1}", kind))
        self.write(self.revisions[-1], broken=broken)

    def write(self, revision: Revision, *, broken: bool) -> None:
        """Its file."""
        position = self.revisions.index(revision)
        down = self.revisions[position - 1].name if position else None
        forwards, back = (text.format(name=revision.name) for text in KINDS[revision.kind])
        text = f'''"""{revision.name}"""

import sqlalchemy as sa
from alembic import op

revision, down_revision, branch_labels, depends_on = {revision.name!r}, {down!r}, None, None


def upgrade():
    {BROKEN if broken else forwards}
    {LOG.format(name=revision.name, by=1)}


def downgrade():
    {back}
    {LOG.format(name=revision.name, by=-1)}
'''
        self.file(revision).write_text(text)
        self.broken = broken

    def file(self, revision: Revision) -> Path:
        """Where it is."""
        return self.path / "alembic" / "versions" / f"{revision.name}.py"

    def options(self, replay: bool) -> Sequence[str]:
        """Of a run that makes what is missing and stops for nobody."""
        return ("--provision", "--continue-on-error", RETRY, *(() if replay else ("--no-replay",)))

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """The real command line."""
        self.runs += 1
        return subprocess.Popen(
            [sys.executable, "-m", "orchestrator", *arguments],
            cwd=self.path,
            env=Workspace.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def ended(self, process: subprocess.Popen[str]) -> int:
        """Its exit code."""
        self.told, _ = process.communicate(timeout=SOON)
        assert "Traceback" not in self.told, self.told
        return process.returncode

    def until(self, enough: Callable[[], Any]) -> None:
        """For what a server does, which no event announces."""
        deadline = time.monotonic() + SOON
        while not enough():
            assert time.monotonic() < deadline

    def until_or_ended(self, process: subprocess.Popen[str], enough: Callable[[], Any]) -> None:
        """The same, or the process has ended."""
        self.until(lambda: process.poll() is not None or enough())

    def committed(self) -> int:
        """Bodies that were committed."""
        return fetch(self.url, "SELECT count(*) FROM public.audit")[0][0]

    def at_work(self) -> int:
        """Connections into tenants."""
        return fetch(self.url, f"SELECT count(*) FROM {AT_WORK}")[0][0]

    def answers(self) -> bool:
        """The server is there."""
        try:
            return bool(fetch(self.url, "SELECT 1"))
        except (OSError, asyncpg.PostgresError):
            return False

    def partial(self) -> list[str]:
        """Tenants that the product says were cut off outside a transaction."""
        return [each["tenant"] for each in self.workspace.json("plan", "--provision")["blocked"]]

    def head(self, tenant: str) -> str | None:
        """What its version table says."""
        if not fetch(self.url, f"SELECT 1 WHERE to_regclass('{tenant}.alembic_version') IS NOT NULL"):
            return None
        rows = fetch(self.url, f"SELECT version_num FROM {tenant}.alembic_version")
        assert len(rows) <= 1
        return rows[0][0] if rows else None

    def at(self, head: str | None) -> Catalog:
        """What plain Alembic makes of an empty schema up to ``head``."""
        if head not in self.expected:
            config = Config(attributes={"url": self.plain})
            config.set_main_option("script_location", str(self.path / "plain"))
            with ThreadPoolExecutor(max_workers=1) as threads:  # its env.py calls asyncio.run()
                threads.submit(command.upgrade, config, head or "base").result()
                self.expected[head] = self.tidy(catalog(self.plain, "plain"))
                threads.submit(command.downgrade, config, "base").result()
        return self.expected[head]

    @staticmethod
    def tidy(found: Catalog) -> Catalog:
        """Without the version table, which stays when a tenant is back at the beginning."""
        return {name: text for name, text in found.items() if "alembic_version" not in name}

    def neighbours(self) -> dict[str, Catalog]:
        """What the other schemas hold; the log of bodies grows."""
        found = catalogs(self.url, ["public", "bystander"])
        found["public"] = {name: text for name, text in found["public"].items() if name != "rows audit"}
        return found


def test_fleet(second_pg: PostgresServer, thorough: bool) -> None:
    """Random histories of accidents; each ends with a fleet that is whole and at the newest revision."""

    class OnThisServer(Fleet):
        """With one that may crash."""

    OnThisServer.pg = second_pg
    run_state_machine_as_test(
        OnThisServer,
        settings=settings(
            max_examples=30 if thorough else 3,
            stateful_step_count=12 if thorough else 6,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            database=None,
        ),
    )
