"""Servers that are away or refuse, and a second orchestrator at work: nobody else is harmed, nothing is lost."""

from __future__ import annotations

import asyncio
import json
import socket
from collections import Counter
from urllib.parse import urlsplit

import pytest

from tests.command_line import SECOND, THIRD, Project, statuses, tenant_of
from tests.projects import held, until
from tests.servers import PostgresServer, execute

MANY = tuple(f"t{number:02}" for number in range(30))


@pytest.fixture
def closed_port() -> int:
    """A port on 127.0.0.1 at which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_unreachable_server(project: Project, closed_port: int) -> None:
    """A server that is away makes its own tenants unreachable; the others are read, and migrated on request."""
    away = f'{{id: away, url: "postgresql://app:hush-hush@127.0.0.1:{closed_port}/app"}}'
    project.fleet("acme", away, "globex")
    status = project.json("status")
    assert status["summary"] == {"behind": 2, "unreachable": 1}
    entry = tenant_of(status, "away")
    assert (entry["heads"], entry["error"]["type"]) == (None, "unreachable")
    assert f"127.0.0.1:{closed_port}" in entry["error"]["message"]
    assert "is the server up" in entry["error"]["hint"]

    stopped = project.run("upgrade")
    assert stopped.returncode == 1
    assert "hush-hush" not in stopped.stdout + stopped.stderr
    assert "1 failed, 2 not_started" in stopped.stdout
    document = project.json("resume", "--continue-on-error", exit_code=1)
    assert statuses(document) == {"acme": "succeeded", "away": "failed", "globex": "succeeded"}
    assert b"hush-hush" not in b"".join(file.read_bytes() for file in project.journal.parent.iterdir())


def test_refused_login(project: Project, second_pg: PostgresServer) -> None:
    """A wrong password and a role that does not exist: said as such, without the password, others unharmed."""
    execute(second_pg.url, "CREATE ROLE told_off LOGIN PASSWORD 'right'")
    rules = second_pg.embedded.datadir / "pg_hba.conf"
    rules.write_text(f"host all told_off 127.0.0.1/32 scram-sha-256\n{rules.read_text()}")
    execute(second_pg.url, "SELECT pg_reload_conf()")
    place = f"127.0.0.1:{urlsplit(second_pg.url).port}"
    wrong, nobody = f"postgresql://told_off:wr0ng-secret@{place}/postgres", f"postgresql://nosuch@{place}/template1"
    project.fleet("acme", f'{{id: wrong, url: "{wrong}"}}', f'{{id: nobody, url: "{nobody}"}}')
    document = project.json("upgrade", "--continue-on-error", exit_code=1)
    assert statuses(document) == {"acme": "succeeded", "wrong": "failed", "nobody": "failed"}
    error = tenant_of(document, "wrong")["error"]
    assert "password authentication failed" in error["message"]
    assert error["sqlstate"] == "28P01"
    assert "the password is wrong" in error["hint"]
    assert 'role "nosuch" does not exist' in tenant_of(document, "nobody")["error"]["message"]
    assert "wr0ng-secret" not in json.dumps(document)


def test_failing_tenant_source(project: Project) -> None:
    """A tenant source whose query fails is an error of the configuration, not an empty fleet: exit code 2."""
    project.fleet("acme", more="sources:\n  - {sql: SELECT slug FROM nosuch, server: main}\n")
    result = project.run("upgrade")
    assert result.returncode == 2
    assert 'relation "nosuch" does not exist' in result.stderr
    assert "Traceback" not in result.stderr
    assert project.heads("acme") == []


async def test_two_at_the_same_time(project: Project) -> None:
    """Two processes upgrade the same 30 tenants at once: each tenant is migrated once, and both say how it is."""
    project.fleet(*MANY)
    # Whoever gives up at the gate lets the other one do the rest of a tenant: then it is both of theirs.
    waits = "op.execute('SET LOCAL lock_timeout = 0'); op.execute('SELECT pg_advisory_xact_lock_shared(42)')"
    steps = f"op.create_table('extras', sa.Column('id', sa.Integer)); {waits}"
    project.revision(THIRD, SECOND, steps)
    async with held(project.url, 42) as gate:
        processes = [project.start("upgrade", "--json", "--lock-wait", "60s") for _ in range(2)]
        runs = (
            "SELECT count(DISTINCT split_part(application_name, ' ', 2)) FROM pg_stat_activity"
            " WHERE application_name LIKE 'orchestrator %' AND datname = current_database()"
        )
        await until(lambda: gate.fetchval(runs), lambda found: found == 2)
    ended = [await asyncio.to_thread(process.communicate, timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], ended
    both = [statuses(json.loads(out)) for out, _ in ended]
    for tenant in MANY:
        assert Counter(each[tenant] for each in both) == {"succeeded": 1, "already_current": 1}, tenant
        assert project.heads(tenant) == [THIRD]
    assert [run["status"] for run in project.json("runs", "list")["runs"]] == ["succeeded", "succeeded"]
