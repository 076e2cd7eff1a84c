"""A canary for a password, given in every way there is, through runs that end in every way: it is shown nowhere.

Looked through is all that a command writes (both streams, with ``-v``, as text and as JSON), all that it leaves on disk
(the journal, recordings), and what the system shows of its processes: their command lines and environments.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import asyncpg
import pytest

from orchestrator.databases.server_binaries import find_client
from tests.projects import ACCOUNTS, ENV, held, make_project, until, waiting_backend
from tests.servers import PostgresServer, execute, fetch, start_own_server
from tests.workspace import Workspace

CANARY = "Kanari/p@ss%41 w:rd'\"7"
ENCODED = quote(CANARY, safe="")
#: Parts of it, plain and encoded, that no word of ours has, in small letters.
PARTS = ("kanari", "p@ss%41", "p%40ss%2541", "ss%2541", "w:rd", "w%3ard")
BOUNDED = os.environ.get("FAULTS") == "bounded"


@dataclass(frozen=True, slots=True)
class Place:
    """A database whose role ``canary`` must give its password."""

    #: ``host:port/database``.
    where: str
    #: Address of the same database for the superuser, who needs none.
    admin: str
    #: As percent-encoded.
    password: str = ENCODED

    def url(self, password: str | None = None, query: str = "") -> str:
        """An address; a ``password`` that is empty comes from elsewhere."""
        given = self.password if password is None else password
        return f"postgresql://canary{given and f':{given}'}@{self.where}{query}"


@dataclass(frozen=True, slots=True)
class Given:
    """How a project comes to the password."""

    tenants: Mapping[str, Any]
    environment: Mapping[str, str] = field(default_factory=dict)
    #: By name, with what is in it.
    files: Mapping[str, str] = field(default_factory=dict)


def on_main(url: str, **more: Any) -> dict[str, Any]:
    """Two tenants on one server."""
    return {"servers": {"main": {"url": url, **more}}, "tenants": ["a", "b"]}


def by_table(place: Place) -> Given:
    """A source's rows that hold addresses."""
    literal = place.url().replace("'", "''")
    execute(place.admin, "CREATE TABLE fleet (id text, url text, schema text)")
    execute(place.admin, f"INSERT INTO fleet VALUES ('a', '{literal}', 'a'), ('b', '{literal}', 'b')")
    source = {"sql": "SELECT * FROM fleet", "server": "main"}
    return Given({"servers": {"main": {"url": place.admin}}, "sources": [source]})


def by_source(place: Place) -> Given:
    """A server that is asked for tenants alone."""
    execute(place.admin, "CREATE TABLE fleet AS SELECT 'a' AS id UNION SELECT 'b'")
    servers = {"main": {"url": place.admin}, "catalog": {"url": place.url()}}
    source = {"sql": "SELECT id, 'main' AS server FROM fleet", "server": "catalog"}
    return Given({"servers": servers, "sources": [source]})


#: Every way to give it.
SOURCES: dict[str, Callable[[Place, str], Given]] = {
    "url": lambda place, _: Given(on_main(place.url())),
    "variable": lambda place, plain: Given(on_main(place.url("${PASSWORD}")), {"PASSWORD": plain}),
    "variable for all": lambda place, _: Given(on_main("${APP_URL}"), {"APP_URL": place.url()}),
    "default": lambda place, _: Given(on_main(f"${{NOT_SET:-{place.url()}}}")),
    "file": lambda place, plain: Given(on_main(place.url("${file:secret}")), files={"secret": plain}),
    "command": lambda place, plain: Given(on_main(place.url("${cmd:cat secret}")), files={"secret": plain}),
    "query": lambda place, _: Given(on_main(place.url("", f"?password={place.password}"))),
    "variable in the query": lambda place, plain: Given(
        on_main(place.url("", "?password=${PASSWORD}")), {"PASSWORD": plain}
    ),
    "passfile": lambda place, plain: Given(
        on_main(place.url("", "?passfile=secret")), files={"secret": f"*:*:*:*:{plain}"}
    ),
    "PGPASSWORD": lambda place, plain: Given(on_main(place.url("")), {"PGPASSWORD": plain}),
    "direct_url": lambda place, _: Given(on_main("postgresql://nobody@127.0.0.1:1/x", direct_url=place.url())),
    "tenant's own": lambda place, _: Given({"tenants": [{"id": id, "url": place.url(), "schema": id} for id in "ab"]}),
    "journal": lambda place, _: Given({**on_main(place.admin), "journal": place.url()}),
    "source": lambda place, _: by_source(place),
    "rows of a source": lambda place, _: by_table(place),
}

#: Migrations, and where a run leads that does not come to them.
BODIES = {
    "succeeds": ACCOUNTS,
    "SQL": """op.execute({select!r})""",
    "parameters": """op.get_bind().execute(sa.text("SELECT cast(:x AS int)"), {{"x": {plain!r}}})""",
    "raises": """raise RuntimeError("cannot log in: " + {url!r} + " or " + {plain!r})""",
    "chain": """
        try:
            raise KeyError({plain!r})
        except KeyError as error:
            raise SystemExit({url!r}) from error
    """,
    "rows": """
        op.execute("CREATE TABLE people (secret text UNIQUE)")
        op.get_bind().execute(sa.text("INSERT INTO people VALUES (:x), (:x)"), {{"x": {plain!r}}})
    """,
    "raised in SQL": """op.execute({block!r})""",
}
PLACES: dict[str, Callable[[Place], Place]] = {
    "wrong password": lambda place: Place(place.where, place.admin, f"{place.password}x"),
    "unknown host": lambda place: Place("nowhere.invalid:5432/app", place.admin),
    "nobody listens": lambda place: Place("127.0.0.1:1/app", place.admin),
    "no such database": lambda place: Place(f"{place.where}-is-missing", place.admin),
    "no port": lambda place: Place("127.0.0.1:port/app", place.admin),
    "no parameter": lambda place: Place(f"{place.where}?nonsense=1", place.admin),
    "not encoded": lambda place: Place(place.where, place.admin, CANARY),
}
#: Of these, a bounded part.
CASES = (
    [*((source, "SQL") for source in SOURCES), *(("file", end) for end in BODIES), *(("url", end) for end in PLACES)]
    if BOUNDED
    else [(source, end) for source in SOURCES for end in (*BODIES, *PLACES)]
)


@pytest.fixture(scope="module")
def guarding() -> Iterator[PostgresServer]:
    """A server of its own, that asks one role for a password."""
    server = start_own_server()
    quoted = CANARY.replace("'", "''")
    execute(server.url, f"CREATE ROLE canary LOGIN SUPERUSER PASSWORD '{quoted}'")
    hba = Path(fetch(server.url, "SHOW hba_file")[0][0])
    hba.write_text("host all canary 127.0.0.1/32 scram-sha-256\n" + hba.read_text())
    execute(server.url, "SELECT pg_reload_conf()")
    yield server
    server.embedded.stop()


@pytest.fixture
async def place(guarding: PostgresServer) -> Any:
    """An empty database of it."""
    admin = guarding.create_database()
    place = Place(admin.rpartition("@")[2], admin)

    async def refused() -> bool:
        try:
            await (await asyncpg.connect(place.url("wrong"))).close()
        except asyncpg.InvalidPasswordError:
            return True
        return False

    await until(refused, bool)
    yield place
    guarding.drop_database(admin)


def write(path: Path, given: Given, body: str, place: Place, env: str = ENV) -> Workspace:
    """The project, with ``body`` for its second revision."""
    plain, url = CANARY, place.url()
    quoted = plain.replace("'", "''")
    doubled = quoted.replace("%", "%%")
    block = f"DO $$BEGIN RAISE 'no: {doubled}' USING DETAIL = '{quoted}', HINT = '{quoted}'; END$$"
    select = f"SELECT '{quoted}'::int /* {url} */"
    # op.execute() takes what follows a colon for a parameter.
    texts = {"plain": plain, "url": url} | {
        name: sql.replace(":", "\\:") for name, sql in (("select", select), ("block", block))
    }
    make_project(path, {"r1": body.format(**texts)}, json.dumps(given.tenants), env)
    for name, text in given.files.items():
        file = path / name
        file.write_text(text)
        file.chmod(0o600)
    return Workspace(path)


def assert_silent(text: str, where: str) -> None:
    """Nothing of the canary is in ``text``."""
    small = text.lower()
    found = [part for part in PARTS if part in small]
    assert not found, f"{where}: {text[max(0, small.index(found[0]) - 300) :][:700]}"


def left_on_disk(path: Path) -> str:
    """All that a run has left."""
    files = [file for file in (path / ".orchestrator").rglob("*") if file.is_file()]
    return "\n".join(file.read_bytes().decode("utf-8", "replace") for file in files)


@pytest.mark.parametrize(("source", "end"), CASES)
async def test_told_nowhere(tmp_path: Path, place: Place, source: str, end: str) -> None:
    """Every command, as text and as JSON, and the journal, are silent; the run ends as it was to end."""
    used = PLACES[end](place) if end in PLACES else place
    given = SOURCES[source](used, CANARY if end != "wrong password" else f"{CANARY}x")
    workspace = write(tmp_path, given, BODIES.get(end, ACCOUNTS), place)
    commands = [
        ("upgrade", *(() if end in PLACES else ("--provision",)), "-v", "--log-format", "json", "--json"),
        ("resume", "-v"),
        ("tenants", "show", "a"),
        ("status",),
        ("runs", "show", "last"),
    ]
    codes = []
    for command in commands[: 2 if BOUNDED else None]:
        ended = await asyncio.to_thread(workspace.run, *command, env=given.environment)
        assert "Traceback" not in ended.stderr, ended.stderr
        assert_silent(ended.stdout, f"{command} stdout")
        assert_silent(ended.stderr, f"{command} stderr")
        codes.append(ended.returncode)

    assert_silent(left_on_disk(tmp_path), "on disk")
    if source == "journal":
        for table in ("orchestrator_runs", "orchestrator_attempts", "orchestrator_events"):
            if fetch(place.admin, f"SELECT 1 WHERE to_regclass('{table}') IS NOT NULL"):
                rows = fetch(place.admin, f"SELECT to_jsonb(t)::text FROM {table} t")
                assert_silent("\n".join(row[0] for row in rows), table)
    if end not in PLACES:
        assert (codes[0] == 0) == (end == "succeeds"), codes


@pytest.mark.parametrize("end", ["succeeds", "raises"])
@pytest.mark.parametrize("asked", [("upgrade", "head"), ("current",)], ids=["upgrade", "current"])
async def test_plain_alembic(tmp_path: Path, place: Place, end: str, asked: tuple[str, ...]) -> None:
    """Plain Alembic over the same directory is as silent about the addresses as the orchestrator is."""
    given = SOURCES["url"](place, CANARY)
    execute(place.admin, "CREATE SCHEMA a; CREATE SCHEMA b")
    workspace = write(tmp_path, given, BODIES[end], place)

    ended = await asyncio.to_thread(workspace.python, "-m", "alembic", *asked)

    assert_silent(ended.stdout + ended.stderr, f"alembic {asked}")
    assert_silent(left_on_disk(tmp_path), "on disk")


def of_its_processes(pid: int) -> Iterator[tuple[str, str]]:
    """Name and text of what /proc shows of a process and its children."""
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        yield from of_its_processes(int(child))
    for name in ("cmdline", "environ"):
        yield f"{pid} {name}", Path(f"/proc/{pid}/{name}").read_bytes().decode("utf-8", "replace")


@pytest.mark.parametrize("source", ["command", "query", "rows of a source"] if BOUNDED else SOURCES)
async def test_not_in_the_process_list(tmp_path: Path, place: Place, source: str) -> None:
    """While a migration runs, no process of the run shows it in its command line or, unless given there, environment.

    The process that a secret's command is, and git, write down their own.
    """
    given = SOURCES[source](place, CANARY)
    execute(place.admin, "CREATE SCHEMA a; CREATE SCHEMA b")
    workspace = write(tmp_path, given, 'op.execute("SELECT pg_advisory_xact_lock(77)")', place)
    if source == "command":
        tenants = {**given.tenants, "servers": {"main": {"url": place.url("${cmd:sh tell.sh}")}}}
        workspace.write("tenants.yaml", json.dumps(tenants))
        workspace.write("tell.sh", "cat /proc/self/cmdline /proc/self/environ >> seen; cat secret")
    shim = workspace.write("bin/git", f"#!{sys.executable}\nopen('seen', 'a').write(open('/proc/self/environ').read())")
    shim.chmod(0o755)
    environment = {**given.environment, "PATH": f"{shim.parent}:{os.environ['PATH']}"}
    async with held(place.admin, 77) as gate:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "orchestrator", "upgrade",
            cwd=tmp_path, env=workspace.environment(environment), stdin=DEVNULL, stdout=PIPE, stderr=PIPE,
        )  # fmt: skip
        await waiting_backend(gate)
        shown = dict(of_its_processes(process.pid))
    assert (await process.wait()) == 0
    await process.communicate()
    for name, text in shown.items():
        if not (given.environment and name.endswith("environ")):
            assert_silent(text, name)
    assert (tmp_path / "seen").exists()
    if not given.environment:
        assert_silent((tmp_path / "seen").read_text(errors="replace"), "seen by children")


#: In the place of a program: writes down its command line and, but for what was given there, its environment.
SHIM = """#!/bin/sh
tr '\\0' '\\n' < /proc/$$/cmdline >> {seen}
tr '\\0' '\\n' < /proc/$$/environ >> {seen}.environ
exec {program} "$@"
"""


@pytest.mark.parametrize("source", ["file", "query", "passfile", "PGPASSWORD"])
async def test_not_handed_to_other_programs(tmp_path: Path, place: Place, source: str) -> None:
    """pg_dump, pg_restore and psql log in with it, and neither their command lines nor their environments show it."""
    given = SOURCES[source](place, CANARY)
    execute(place.admin, "CREATE SCHEMA a; CREATE SCHEMA b")
    workspace = write(tmp_path, given, ACCOUNTS.replace("accounts", "people"), place)
    bindir = find_client(int(fetch(place.admin, "SHOW server_version_num")[0][0]) // 10000).bindir
    for name in ("pg_dump", "pg_restore", "psql"):
        shim = workspace.write(f"bin/{name}", SHIM.format(seen=tmp_path / "seen", program=bindir / name))
        shim.chmod(0o755)
    environment = {**given.environment, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    for command in (
        ("upgrade",),
        ("backup", "--to", "kept"),
        ("restore", "last", "--all", "--yes", "--allow-data-loss"),
    ):
        ended = await asyncio.to_thread(workspace.run, *command, "-v", env=environment)
        assert ended.returncode == 0, ended.stderr
        assert_silent(ended.stdout + ended.stderr, str(command))
    seen = (tmp_path / "seen").read_text(errors="replace")
    assert all(program in seen for program in ("pg_dump", "pg_restore", "psql"))
    assert_silent(seen, "command lines")
    if not given.environment:
        assert_silent((tmp_path / "seen.environ").read_text(errors="replace"), "environments")
    assert_silent(left_on_disk(tmp_path), "on disk")
    for file in (tmp_path / "kept").rglob("*.json"):
        assert_silent(file.read_text(), file.name)
