"""The row with tenants that are databases of their own."""

from __future__ import annotations

import functools
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from benchmarks import peers, projects
from benchmarks.bench import Bench
from benchmarks.histories import ONE, UNDO
from benchmarks.measuring import Command, RunError, Task, take_turns
from benchmarks.peers import BARE, OURS
from benchmarks.server import PREFIX
from benchmarks.verdicts import Figure, RowResult, ratio

DATABASES = "databases"
_AT_ONCE = 8
_NAME = f"{PREFIX}tenant_"
#: Copies made at a time while preparing.
_COPIES = 4


def databases(bench: Bench) -> RowResult:
    """One revision, in 200 databases."""
    count = 200
    here = bench.pick(count, 24)
    names = [f"{_NAME}{number:03}" for number in range(1, here + 1)]
    addresses = [bench.server.database_url(name) for name in names]
    bench.say(f"  preparing {here} databases")
    template = bench.one_database()
    with bench.server.preparing(), ThreadPoolExecutor(_COPIES) as threads:
        list(threads.map(lambda name: bench.server.create(name, template), names))

    def reset() -> None:
        with bench.server.preparing():
            for address in addresses:
                bench.server.execute(address, UNDO)
                bench.server.vacuum(address)

    def check() -> None:
        for name in names:
            rows = bench.server.fetch(bench.server.database_url(name), "SELECT version_num FROM alembic_version")
            if [row[0] for row in rows] != [ONE.head]:
                raise RunError(f"{name} is at {rows}")

    source = {"databases": f"{_NAME}*"}
    project = projects.ours(bench.directory / "databases", ONE, bench.server.url, source, _AT_ONCE)
    plain = projects.cookbook(bench.directory / "databases-sql", ONE, bench.server.url)
    program = bench.ours / "orchestrator"
    few: Command = [program, "upgrade", *(part for name in names[:_AT_ONCE] for part in ("--tenant", name))]
    tidy = functools.partial(projects.forget, project)
    ours = Task(OURS, [program, "upgrade"], project, here, few, _AT_ONCE, reset, tidy, check)
    script = projects.pending_sql(bench.peers / "alembic", plain, ONE)
    bare = peers.bare_asyncpg(bench, script, addresses, _AT_ONCE, bench.directory / "bare")
    tasks = [ours, replace(bare, reset=reset, check=check)]
    try:
        found = take_turns(tasks, bench.repetitions, bench.idle_runs if bench.quick else 0, bench.say)
    finally:
        for name in names:
            bench.server.drop(name)
    value = ratio(*(each.seconds(count) for each in found))
    figure = Figure(f"{OURS} : {BARE}", value, 2.0, at_most=True)
    text = f"1 revision x {count} databases, {_AT_ONCE} at once"
    return RowResult(DATABASES, text, count, tuple(found), (figure,))
