"""The rows of the goals' table, for tenants that are schemas: what is run, and what the figures are held against."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from benchmarks import peers
from benchmarks.bench import Bench
from benchmarks.databases import DATABASES, databases
from benchmarks.distributed import DISTRIBUTED, distributed
from benchmarks.drift import DRIFT, DRIFT_DATABASES, drift, drift_databases
from benchmarks.histories import NONE, ONE, READING, READING_S, TWENTY
from benchmarks.measuring import Task, take_turns
from benchmarks.network import network
from benchmarks.new_databases import new_database, new_database_from_pool
from benchmarks.onboarding import new_schema, new_schema_by_snapshot, new_schema_command, new_schemas
from benchmarks.peers import COOKBOOK, DJANGO, OURS, PSQL, SHELL, Work
from benchmarks.verdicts import Figure, RowResult, Subject, ratio

#: What the work of a row is measured for, in either kind of run.
Row = Callable[[Bench], RowResult]
_MS = 1000.0
#: Tenants of an idle run that does the work once: more than are migrated before the rest is known to be alike.
_FEW = 8


def one_revision(bench: Bench) -> RowResult:
    """A column and an index, in 3,000 schemas."""
    count = 3000
    work = Work(bench, ONE, bench.pick(count, 600))
    slow = work.smaller(bench.pick(300, 40))
    tasks = [
        peers.orchestrator(work, few=_FEW),
        peers.psql(work),
        peers.cookbook(work.smaller(bench.pick(count, 150)), bench.once()),
        *(peers.django_tenants(slow, executor, bench.once()) for executor in DJANGO),
        peers.shell_loop(work.smaller(bench.pick(20, 4))),
    ]
    found = _measure(bench, tasks)
    figures = (
        against(found, PSQL, count, 1.5),
        faster(found, COOKBOOK, count, 4),
        faster(found, DJANGO["multiprocessing"], count, 15),
        faster(found, SHELL, count, 150),
    )
    return RowResult(
        "one-revision", f"1 revision (column and index) x {count} schemas, 8 connections", count, found, figures
    )


def twenty_revisions(bench: Bench) -> RowResult:
    """Twenty revisions of 75 statements, in 200 schemas."""
    count = 200
    work = Work(bench, TWENTY, bench.pick(count, 24))
    found = _measure(bench, [peers.orchestrator(work, few=_FEW), peers.psql(work)])
    text = f"20 revisions (75 statements) x {count} schemas, 8 connections"
    return RowResult("twenty-revisions", text, count, found, (against(found, PSQL, count, 1.3),))


def nothing_to_do(bench: Bench) -> RowResult:
    """``upgrade`` with nothing to do, and ``status`` after it, over 10,000 schemas."""
    count = 10_000
    work = Work(bench, NONE, bench.pick(count, 1000))
    tasks = [
        peers.orchestrator(work, name="no-op upgrade"),
        peers.orchestrator(work, "status", name="status", journaled=True),
        peers.cookbook(work, bench.once()),
    ]
    found = _measure(bench, tasks)
    figures: list[Figure] = []
    for name in ("no-op upgrade", "status"):
        seconds = _seconds(found, name, count)
        per_tenant = None if seconds is None else seconds * _MS / count
        figures.append(Figure(f"{name}, per tenant", per_tenant, 0.3, at_most=True, unit="ms"))
        figures.append(faster(found, COOKBOOK, count, 8, ours=name))
    limit = bench.server.fetch(bench.server.url, "SHOW max_locks_per_transaction")[0][0]
    notes = (f"max_locks_per_transaction is {limit}; a run that fails, for that or for memory, reaches no goal.",)
    text = f"nothing to do x {count} schemas: upgrade and status"
    return RowResult("nothing-to-do", text, count, found, tuple(figures), notes)


def growth(bench: Bench) -> RowResult:
    """What a tenant costs among many and among few."""
    many, few = bench.pick(5000, 1000), bench.pick(500, 200)
    works = [Work(bench, ONE, tenants) for tenants in (many, few)]
    tasks = [peers.orchestrator(work, name=f"orchestrator, {work.tenants}", few=_FEW) for work in works]
    limits = [peers.psql(work, name=f"psql, {work.tenants}") for work in works]
    found = take_turns([*tasks, *(each for each in limits if each)], bench.repetitions, bench.idle_runs, bench.say)
    figure = Figure(
        f"cost per tenant at {many} : at {few}", ratio(*(each.cost_s() for each in found[:2])), 1.3, at_most=True
    )
    # Catalogs and directories of files grow, too: what the server alone takes more for.
    each_takes = [(each.seconds(each.tenants) or 0) / each.tenants for each in found[2:]]
    notes = (
        (f"psql's own cost per tenant at {many} : at {few} is {ratio(*each_takes) or 0:.2f} x",) if each_takes else ()
    )
    text = f"1 revision x {many} schemas, and x {few}: wall time per tenant, start-up taken off both"
    return RowResult("growth", text, many, tuple(found), (figure,), notes)


def memory(bench: Bench) -> RowResult:
    """The most memory that many tenants take, and few."""
    many, few = bench.pick(10_000, 1000), 100
    works = [Work(bench, ONE, tenants) for tenants in (many, few)]
    tasks = [peers.orchestrator(work, name=f"orchestrator, {work.tenants}") for work in works]
    found = take_turns(tasks, min(bench.repetitions, bench.pick(3, 1)), 0, bench.say)
    figure = Figure(f"peak memory at {many} : at {few}", ratio(*(each.peak_kib() for each in found)), 1.5, at_most=True)
    notes = tuple(f"{each.name} tenants: {peak / 1024:.0f} MiB" for each in found if (peak := each.peak_kib()))
    text = f"1 revision x {many} schemas, and x {few}: the process's largest resident set"
    return RowResult("memory", text, many, tuple(found), (figure,), notes)


def reading(bench: Bench) -> RowResult:
    """A revision that asks the database, and so cannot be replayed."""
    count, at_once = 200, 16
    work = Work(bench, READING, bench.pick(count, 64), at_once)
    tasks = [peers.orchestrator(work), peers.cookbook(work.smaller(bench.pick(count, 16)), bench.pick(5, 2))]
    found = take_turns(tasks, bench.repetitions, bench.idle_runs, bench.say)
    processor = ratio(*(each.processor_s() for each in found))
    figures = (
        faster(found, COOKBOOK, count, 8),
        Figure(f"processor time per tenant, {OURS} : {COOKBOOK}", processor, 1.0, at_most=True),
    )
    notes = tuple(
        f"{each.name}: {cost * _MS:.1f} ms of processor time per tenant, start-up taken off"
        for each in found
        if (cost := each.processor_s()) is not None
    )
    text = f"a revision that reads ({READING_S * _MS:.0f} ms of server time) x {count} schemas, {at_once} at once"
    return RowResult("reading", text, count, tuple(found), figures, notes)


def over_a_network(bench: Bench) -> RowResult:
    """Two milliseconds added to every round trip, 300 schemas."""
    count, added_ms = 300, 2.0
    with network(bench, added_ms) as (via, notes):
        work = Work(bench, ONE, bench.pick(count, 200), via=via)
        tasks = [peers.orchestrator(work, few=_FEW), peers.cookbook(work.smaller(bench.pick(count, 40)))]
        found = _measure(bench, tasks)
    text = f"1 revision x {count} schemas, 8 connections, {added_ms:.0f} ms added to every round trip"
    return RowResult("network", text, count, found, (faster(found, COOKBOOK, count, 8),), notes)


def version(bench: Bench) -> RowResult:
    """How long ``orchestrator --version`` takes, beside importing click."""
    click = Task("import click", [bench.ours / "python", "-c", "import click"], bench.directory, 1)
    ours = Task("orchestrator --version", [bench.ours / "orchestrator", "--version"], bench.directory, 1)
    found = take_turns([ours, click], bench.pick(31, 15), 0, lambda _: None)
    value = ratio(found[0].seconds(1), found[1].seconds(1))
    figure = Figure("orchestrator --version : import click", value, 2.0, at_most=True)
    return RowResult("version", "orchestrator --version", 1, tuple(found), (figure,))


#: Every row of the table, in its order.
ROWS: dict[str, Row] = {
    "one-revision": one_revision,
    "twenty-revisions": twenty_revisions,
    DATABASES: databases,
    "nothing-to-do": nothing_to_do,
    "growth": growth,
    "memory": memory,
    "network": over_a_network,
    "reading": reading,
    DRIFT: drift,
    DRIFT_DATABASES: drift_databases,
    "version": version,
    "new-schema": new_schema,
    "new-schema-snapshot": new_schema_by_snapshot,
    "new-schema-command": new_schema_command,
    "new-schemas": new_schemas,
    "new-database": new_database,
    "new-database-pool": new_database_from_pool,
    DISTRIBUTED: distributed,
}


def against(found: Sequence[Subject], peer: str, tenants: int, goal: float) -> Figure:
    """How much longer ours takes than ``peer``; at most ``goal`` times."""
    value = ratio(_seconds(found, OURS, tenants), _seconds(found, peer, tenants))
    return Figure(f"{OURS} : {peer}", value, goal, at_most=True)


def faster(found: Sequence[Subject], peer: str, tenants: int, goal: float, ours: str = OURS) -> Figure:
    """How many times longer ``peer`` takes than ours; at least ``goal``."""
    value = ratio(_seconds(found, peer, tenants), _seconds(found, ours, tenants))
    return Figure(f"{peer} : {ours}", value, goal, at_most=False)


def _seconds(found: Sequence[Subject], name: str, tenants: int) -> float | None:
    return next((each.seconds(tenants) for each in found if each.name == name), None)


def _measure(bench: Bench, tasks: Sequence[Task | None]) -> tuple[Subject, ...]:
    """Take turns; smaller counts are extrapolated, for which start-up must be known."""
    there = [task for task in tasks if task is not None]
    found = take_turns(there, bench.repetitions, bench.idle_runs if bench.quick else 0, bench.say)
    if len(there) < len(tasks):
        bench.say("  psql MISSING: neither beside the server's binaries nor in /usr/lib/postgresql")
        found.append(Subject(PSQL, found[0].tenants, problem="there is no psql on this machine"))
    return tuple(found)
