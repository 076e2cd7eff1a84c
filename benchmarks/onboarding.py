"""The rows of new tenants: made in a process that has its project open, beside a process of Alembic's own."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import peers, projects
from benchmarks.bench import Bench
from benchmarks.histories import MANY, TWENTY, UNREPLAYABLE, History
from benchmarks.measuring import Command, RunError, Task, measure, plain_environment, take_turns
from benchmarks.server import PREFIX
from benchmarks.verdicts import Figure, RowResult, Sample, Subject, ratio
from orchestrator.databases.server_binaries import find_binaries

PLACE = f"{PREFIX}onboarding"
DATABASE = f"{PREFIX}new_"
WARM, _COMMAND, ALEMBIC = "warm process", "orchestrator onboard", "alembic upgrade head"
_MADE = f"""
SELECT datname FROM pg_database
WHERE datname ^@ 'orchestrator_template_' OR datname ^@ 'orchestrator_ready_' OR datname ^@ '{DATABASE}'
"""
_PROGRAM = Path(__file__).with_name("peer_files") / "warm_process.py"
_REPOSITORY = Path(__file__).parent.parent


@dataclass(frozen=True, slots=True)
class Ours:
    """A process that makes tenants."""

    #: Its Python, which can import the orchestrator with ``environment``, and the history with what it needs.
    python: str | Path
    project: Path
    #: ``schema`` or ``database``.
    kind: str
    #: The way that every tenant has to go.
    way: str
    environment: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Peer:
    """Alembic, one process for each tenant."""

    command: Callable[[str], Command]
    project: Path
    #: Makes the empty place of a tenant. Not timed.
    place: Callable[[str], None]
    environment: Callable[[str], Mapping[str, str]]


def new_schema(bench: Bench) -> RowResult:
    """One schema, by replay."""
    url = bench.server.create(PLACE)
    ours = projects.ours(bench.directory / "new-schema", MANY, url, {"schemas": "example"}, 8)
    name_example(ours)
    found, notes = measured(
        bench, Ours(bench.ours / "python", ours, "schema", "replay", {}), _alembic(bench, MANY, url)
    )
    figure = Figure(f"{ALEMBIC} : {WARM}", ratio_of(found), 5, at_most=False)
    return RowResult("new-schema", f"a new schema, {len(MANY.bodies)} revisions", 1, found, (figure,), notes)


def new_schema_by_snapshot(bench: Bench) -> RowResult:
    """One schema with a history that cannot be replayed; with prefect's, unless time is short."""
    url = bench.server.create(PLACE)
    if bench.quick:
        project = projects.ours(bench.directory / "snapshot", UNREPLAYABLE, url, {"schemas": "example"}, 8)
        ours, peer = Ours(bench.ours / "python", project, "schema", "snapshot", {}), _alembic(bench, UNREPLAYABLE, url)
        text = f"a new schema, {len(UNREPLAYABLE.bodies)} revisions, one of which reads"
        name_example(project)
    else:
        ours, peer = _prefect(bench, url)
        text = "a new schema with prefect's 118 revisions, which cannot be replayed"
    found, notes = measured(bench, ours, peer)
    figure = Figure(f"{ALEMBIC} : {WARM}", ratio_of(found), 3, at_most=False)
    return RowResult("new-schema-snapshot", text, 1, found, (figure,), notes)


def new_schema_command(bench: Bench) -> RowResult:
    """One schema by the whole command line, prepared as after a deploy."""
    url = bench.server.create(PLACE)
    project = projects.ours(bench.directory / "new-schema-command", MANY, url, {"schemas": "example"}, 8)
    name_example(project)
    program = bench.ours / "orchestrator"
    measure([program, "onboard", "--prepare"], project)
    peer = _alembic(bench, MANY, url)
    samples: dict[str, list[Sample]] = {_COMMAND: [], ALEMBIC: []}
    for number in range(bench.repetitions):
        samples[_COMMAND].append(measure([program, "onboard", f"ours_{number}"], project))
        peer.place(f"theirs_{number}")
        samples[ALEMBIC].append(measure(peer.command(f"theirs_{number}"), peer.project))
    found = tuple(Subject(name, 1, tuple(its)) for name, its in samples.items())
    ways = {row["path"] for row in _last_run(program, project)["tenants"]}
    figure = Figure(f"{ALEMBIC} : {_COMMAND}", ratio_of(found), 1.5, at_most=False)
    text = f"orchestrator onboard, {len(MANY.bodies)} revisions"
    return RowResult("new-schema-command", text, 1, found, (figure,), (f"made by {', '.join(ways)}",))


def new_schemas(bench: Bench) -> RowResult:
    """Many schemas by one command, beside psql with the same SQL."""
    count, at_once = bench.pick(200, 60), 8
    url = bench.server.create(PLACE)
    project = projects.ours(bench.directory / "new-schemas", TWENTY, url, {"schemas": "example"}, at_once)
    name_example(project)
    names = projects.tenants(count)
    (project / "new.yaml").write_text(json.dumps(names))
    listed = (project / "tenants.yaml").read_text()
    program = bench.ours / "orchestrator"
    measure([program, "onboard", "--prepare"], project)
    blueprints = project / ".orchestrator" / "blueprints"

    def reset() -> None:
        bench.server.create(PLACE)

    def tidy() -> None:
        (project / "tenants.yaml").write_text(listed)
        for file in (project / ".orchestrator").glob("journal*"):
            file.unlink()
        assert blueprints.is_dir()

    def check() -> None:
        bench.server.expect(url, names, TWENTY.head, TWENTY.index)

    ours = Task(
        "orchestrator", [program, "onboard", "--from", "new.yaml"], project, count, reset=reset, tidy=tidy, check=check
    )
    psql = peers.psql_from_nothing(bench, TWENTY, url, names, at_once, reset, check)
    found = take_turns([ours, *([psql] if psql else [])], bench.repetitions, 0, bench.say)
    value = ratio(*(each.seconds(count) for each in found)) if psql else None
    figure = Figure("orchestrator : psql", value, 1.5, at_most=True)
    text = f"{count} new schemas by one command, {len(TWENTY.bodies)} revisions"
    return RowResult("new-schemas", text, count, tuple(found), (figure,))


def _last_run(program: Path, project: Path) -> dict[str, Any]:
    run = subprocess.run([program, "runs", "show", "last", "--json"], cwd=project, check=True, stdout=subprocess.PIPE)
    return dict(json.loads(run.stdout))


def _alembic(bench: Bench, history: History, url: str) -> Peer:
    project = projects.cookbook(bench.directory / f"{history.name}-plain", history, url)
    return Peer(
        lambda name: [bench.peers / "alembic", "-x", f"tenant={name}", "upgrade", "head"],
        project,
        lambda name: bench.server.execute(url, f'CREATE SCHEMA "{name}"'),
        lambda _: {},
    )


def _prefect(bench: Bench, url: str) -> tuple[Ours, Peer]:
    # Their fixtures know how to get the history; the package is fetched, and nothing of it is in this repository.
    from tests.fleets import make_extensions
    from tests.histories import PREFECT

    directory = bench.directory / "prefect"
    directory.mkdir()
    workspace = PREFECT.project(directory)
    make_extensions(url, PREFECT.extensions)
    server = f'{{url: "{url}", extensions_schema: extensions}}'
    workspace.write("tenants.yaml", f"servers: {{main: {server}}}\ntenants: [{{id: example}}]\n")
    address = url.replace("postgresql://", "postgresql+asyncpg://")

    def place(name: str) -> None:
        # A database of its own, in whose public schema the tables come: Alembic alone knows nothing of tenants.
        database = bench.server.create(f"{DATABASE}{name}")
        make_extensions(database, PREFECT.extensions)

    def environment(name: str) -> dict[str, str]:
        return {"DATABASE_URL": address.replace(PLACE, f"{DATABASE}{name}")}

    # Their environment has neither this project nor the programs of the server that is measured on.
    ours_environment = {"PYTHONPATH": str(_REPOSITORY), "PATH": f"{find_binaries()}:{os.environ['PATH']}"}
    ours = Ours(workspace.interpreter, directory, "schema", "snapshot", ours_environment)
    command: Command = [workspace.interpreter, "-m", "alembic", "upgrade", "heads"]
    return ours, Peer(lambda _: command, directory / "plain", place, environment)


def measured(bench: Bench, ours: Ours, peer: Peer) -> tuple[tuple[Subject, ...], tuple[str, ...]]:
    """Take turns: one of ours, one of theirs."""
    samples: dict[str, list[Sample]] = {WARM: [], ALEMBIC: []}
    with _warm(ours) as ask:
        prepared = ask(None)
        # What only the first one finds out is no part of a warm process.
        for number in range(bench.repetitions + 1):
            name = f"{DATABASE if ours.kind == 'database' else ''}ours_{number}"
            said = ask(name)
            if said["way"] != ours.way:
                raise RunError(f"{name} was made by {said['way']}: {said['error'] or prepared['closed']}")
            if not number:
                continue
            samples[WARM].append(Sample(said["seconds"], 0.0, 0))
            theirs = f"{DATABASE if ours.kind == 'database' else ''}theirs_{number}"
            peer.place(theirs)
            samples[ALEMBIC].append(measure(peer.command(theirs), peer.project, peer.environment(theirs)))
            bench.say(f"  {WARM}: {said['seconds']:.3f} s; {ALEMBIC}: {samples[ALEMBIC][-1].wall_s:.2f} s")
    if ours.kind == "database":
        drop_all(bench)
    notes = (f"preparing it took {prepared['seconds']:.1f} s, once",)
    return tuple(Subject(name, 1, tuple(its)) for name, its in samples.items()), notes


def drop_all(bench: Bench) -> None:
    """Databases that tenants had or would have had, and what they were copied from."""
    for (name,) in bench.server.fetch(bench.server.url, _MADE):
        bench.server.execute(
            bench.server.url, f'ALTER DATABASE "{name}" IS_TEMPLATE false', f'DROP DATABASE "{name}" WITH (FORCE)'
        )


@contextmanager
def _warm(ours: Ours) -> Iterator[Callable[[str | None], dict[str, Any]]]:
    """The process: asked for nobody, it says how it was prepared."""
    process = subprocess.Popen(
        [ours.python, _PROGRAM, ours.project, ours.kind],
        env={**plain_environment(), **ours.environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None

    def ask(name: str | None) -> dict[str, Any]:
        assert process.stdin is not None
        assert process.stdout is not None
        if name is not None:
            process.stdin.write(f"{name}\n")
            process.stdin.flush()
        line = process.stdout.readline()
        if not line:
            raise RunError(f"the warm process ended with {process.wait()}")
        return dict(json.loads(line))

    try:
        yield ask
    finally:
        process.stdin.close()
        process.wait()
        process.stdout.close()


def ratio_of(found: tuple[Subject, ...]) -> float | None:
    warm, alembic = found
    return ratio(alembic.seconds(1), warm.seconds(1))


def name_example(project: Path, **more: Any) -> None:
    """One tenant that is listed, to be like: a source would find those that are made meanwhile."""
    document = json.loads((project / "tenants.yaml").read_text()) | more
    (source,) = document.pop("sources")
    document["tenants"] = [{"id": "example", "server": source["server"]}]
    (project / "tenants.yaml").write_text(json.dumps(document))
