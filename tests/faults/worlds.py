"""Six tenants of the repository's own history in a database that writes down whatever is committed in it."""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orchestrator
from orchestrator.actions.execution import Execution
from orchestrator.actions.project import migrating, opened_project
from orchestrator.fleet.fleet import Fleet
from orchestrator.migration.attempt import Migrator
from orchestrator.migration.work import Work
from orchestrator.rollout.result import RunResult
from tests.catalog import Catalog, catalogs, difference
from tests.servers import PostgresServer, execute, fetch
from tests.workspace import Workspace

TENANTS = [f"t{number}" for number in range(6)]
#: The revision that builds its index outside any transaction, and the index. It may have to begin again.
OUTSIDE, ITS_INDEX = "d05bc3987e41", "ix_audit_log_account_id_created_at"

#: Writes down every definition together with the transaction that makes it: a body that is committed twice shows twice.
#: And ends the backend at the so-many-eth definition or change of heads when it is told to.
_WITNESS = """
CREATE SCHEMA witness;
CREATE TABLE witness.seen (schema text, command text, object text);
CREATE TABLE witness.fault (at int);
CREATE SEQUENCE witness.number;
CREATE FUNCTION witness.maybe() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF nextval('witness.number') = (SELECT at FROM witness.fault) THEN
        PERFORM pg_terminate_backend(pg_backend_pid());
    END IF;
END $$;
CREATE FUNCTION witness.heads() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN PERFORM witness.maybe(); RETURN NULL; END $$;
CREATE FUNCTION witness.note() RETURNS event_trigger LANGUAGE plpgsql AS $$
DECLARE made record;
BEGIN
    FOR made IN SELECT * FROM pg_event_trigger_ddl_commands() LOOP
        INSERT INTO witness.seen
            VALUES (coalesce(made.schema_name, made.object_identity), made.command_tag, made.object_identity);
        IF made.command_tag = 'CREATE TABLE' AND made.object_identity LIKE '%.alembic_version' THEN
            EXECUTE 'CREATE TRIGGER heads BEFORE INSERT OR UPDATE OR DELETE ON ' || made.object_identity
                || ' FOR EACH STATEMENT EXECUTE FUNCTION witness.heads()';
        END IF;
    END LOOP;
    PERFORM witness.maybe();
END $$;
CREATE EVENT TRIGGER noted ON ddl_command_end EXECUTE FUNCTION witness.note();
"""


@dataclass(frozen=True, slots=True)
class World:
    """A project, its database, and what a clean run makes of it."""

    workspace: Workspace
    server: PostgresServer
    #: Address of the database, not by way of any proxy.
    url: str
    #: What a tenant holds at each revision on its way, by its heads; in the order of the way.
    clean: Mapping[tuple[str, ...], Catalog]
    #: What a clean run commits, and how often.
    committed: Counter[tuple[str, str]]
    #: Definitions and changes of heads of one tenant, at each of which its backend can be ended.
    points: int = 0

    @classmethod
    def create(cls, path: Path, server: PostgresServer) -> World:
        """Make the database to copy, and find out what is right by migrating one tenant, revision by revision."""
        path.mkdir(parents=True, exist_ok=True)
        world = cls(Workspace.create(path), server, server.create_database(), {}, Counter())
        execute(world.url, _WITNESS)
        measured = replace(world, url=server.create_database(world.url))
        measured.point_at(measured.url)
        clean = asyncio.run(measured._step_by_step())
        committed = measured.seen()["t0"]
        points = int(fetch(measured.url, "SELECT last_value FROM witness.number")[0][0])
        server.drop_database(measured.url)
        return replace(world, clean=clean, committed=committed, points=points)

    async def _step_by_step(self) -> dict[tuple[str, ...], Catalog]:
        """What the first tenant holds before and after each revision, by its heads."""
        held = {(): catalogs(self.url, ["t0"])["t0"]}
        async with opened_project(self.fleet) as project:
            migrator = Migrator(project.fleet, project.history, project.loop, project.databases, provision=True)
            work = Work.of(project.history, "upgrade", "heads").limited(1)
            with migrating(migrator):
                while (outcome := await migrator.attempt(project.fleet.tenants[0], work)).status == "succeeded":
                    assert outcome.after is not None
                    held[outcome.after] = catalogs(self.url, ["t0"])["t0"]
        assert outcome.status == "already_current", outcome
        return held

    @property
    def fleet(self) -> Fleet:
        """tenants.yaml, loaded anew."""
        return orchestrator.load(self.workspace.path / "tenants.yaml")

    def copied(self, path: Path) -> World:
        """A fresh one, with a project directory of its own."""
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
        return replace(self, workspace=Workspace.create(path), url=self.server.create_database(self.url))

    def drop(self) -> None:
        """Remove its database and its project."""
        self.server.drop_database(self.url)
        shutil.rmtree(self.workspace.path)

    def point_at(self, url: str, **policy: Any) -> None:
        """Write tenants.yaml, for the database at ``url``."""
        server = {"url": url, "max_concurrency": 6}
        document = {"servers": {"main": server}, "policy": policy, "tenants": [{"id": tenant} for tenant in TENANTS]}
        self.workspace.write("tenants.yaml", json.dumps(document))

    async def upgrade(self, **options: Any) -> RunResult:
        """``orchestrator upgrade --provision`` in this process."""
        return await orchestrator.upgrade(self.fleet, provision=True, execution=Execution(**options))

    async def finish(self, *, begun: bool = True) -> RunResult:
        """``orchestrator resume`` in this process, or ``upgrade`` where no run had begun.

        A tenant that was cut off outside a transaction is left alone until somebody says that he has looked at it.
        """
        result = await (orchestrator.resume(self.fleet) if begun else self.upgrade())
        if any(attempt.status == "partial" for attempt in result.tenants):
            result = await orchestrator.resume(self.fleet, execution=Execution(retry_partial=True))
        return result

    def fault_at(self, number: int | None) -> None:
        """End the backend at point ``number`` (1 is the first); ``None`` for no fault."""
        execute(
            self.url,
            "TRUNCATE witness.fault; SELECT setval('witness.number', 1, false);"
            f"INSERT INTO witness.fault VALUES ({number or 'NULL'})",
        )

    def seen(self) -> dict[str, Counter[tuple[str, str]]]:
        """What was committed in each tenant's schema: command and object without the schema's name, how often."""
        found: dict[str, Counter[tuple[str, str]]] = {tenant: Counter() for tenant in TENANTS}
        for schema, command, object in fetch(self.url, "SELECT * FROM witness.seen"):
            if schema in found and ITS_INDEX not in object and command != "CREATE SCHEMA":
                found[schema][command, object.replace(f"{schema}.", "")] += 1
        return found

    def heads(self) -> dict[str, tuple[str, ...]]:
        """Where each tenant stands, by its own version table."""
        there = "SELECT table_schema FROM information_schema.tables WHERE table_name = 'alembic_version'"
        found: dict[str, tuple[str, ...]] = dict.fromkeys(TENANTS, ())
        for (schema,) in fetch(self.url, there):
            rows = fetch(self.url, f'SELECT version_num FROM "{schema}".alembic_version ORDER BY 1')
            found[schema] = tuple(row[0] for row in rows)
        return found

    def wait_for_backends(self) -> None:
        """Until nobody works here any more: the backend of a killed client notices within a second or so."""
        at_work = "FROM pg_stat_activity WHERE application_name LIKE 'orchestrator %' AND datname = current_database()"
        deadline = time.monotonic() + 30
        while fetch(self.url, f"SELECT count(*) {at_work}")[0][0]:
            assert time.monotonic() < deadline

    def assert_describable(self, statuses: Mapping[str, str]) -> None:
        """Every tenant is what its heads say, or the journal calls it partial.

        Args:
            statuses: what the run said of each tenant; empty where nobody was left to say it.
        """
        self.wait_for_backends()
        heads, held = self.heads(), catalogs(self.url, TENANTS)
        for tenant in TENANTS:
            assert heads[tenant] in self.clean, (tenant, heads[tenant])
            wrong = [line for line in difference(self.clean[heads[tenant]], held[tenant]) if not _is_bookkeeping(line)]
            if wrong:
                # Outside of transactions, an index may be there that the version table does not know of yet.
                assert statuses.get(tenant, "partial") in ("partial", "unknown"), (tenant, statuses, wrong)
                assert all(ITS_INDEX in line for line in wrong), wrong

    def assert_done(self, *, once: bool = True) -> None:
        """Every tenant holds what a clean run makes, and nothing was committed twice."""
        held = catalogs(self.url, TENANTS)
        head = list(self.clean)[-1]
        assert set(self.heads().values()) == {head}
        for tenant in TENANTS:
            assert difference(self.clean[head], held[tenant]) == []
        if once:
            for tenant, seen in self.seen().items():
                assert seen == self.committed, (tenant, seen - self.committed, self.committed - seen)


def _is_bookkeeping(line: str) -> bool:
    """The version table itself is made before the first revision, and the schema before that."""
    return "alembic_version" in line


def sampled(count: int, most: int) -> Iterator[int]:
    """``most`` of the numbers below ``count``, spread evenly, the first and the last among them."""
    step = max(1.0, (count - 1) / max(1, most - 1))
    return iter(sorted({min(count - 1, round(number * step)) for number in range(most)}))
