"""The rows about ``drift``: all of what many tenants hold, read and compared with what the revisions make."""

from __future__ import annotations

import functools
from concurrent.futures import ThreadPoolExecutor

from benchmarks import peers, projects
from benchmarks.bench import Bench
from benchmarks.histories import TABLES
from benchmarks.measuring import Command, Task, take_turns
from benchmarks.peers import BARE, OURS
from benchmarks.server import PREFIX
from benchmarks.verdicts import Figure, RowResult, ratio

DRIFT, DRIFT_DATABASES = "drift", "drift-databases"
_MS = 1000.0
_AT_ONCE = 8
_NAME = f"{PREFIX}drifting_"
#: Copies made at a time while preparing.
_COPIES = 4
#: What somebody would ask who writes it down for the first time: columns, constraints, indexes.
_CATALOG = """
SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull::text, pg_get_expr(d.adbin, d.adrelid)
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm')
UNION ALL SELECT conrelid::regclass::text, conname, contype::text, convalidated::text, pg_get_constraintdef(oid)
FROM pg_constraint WHERE connamespace = 'public'::regnamespace
UNION ALL SELECT indrelid::regclass::text, c.relname, '', indisvalid::text, pg_get_indexdef(indexrelid)
FROM pg_index JOIN pg_class c ON c.oid = indexrelid WHERE c.relnamespace = 'public'::regnamespace
"""


def drift(bench: Bench) -> RowResult:
    """Two thousand schemas of twenty tables in one database."""
    many, few = bench.pick(2000, 600), bench.pick(200, 60)
    tasks = []
    for count in (many, few):
        name = f"{_NAME}{count}"
        bench.say(f"  preparing {count} schemas of 20 tables")
        with bench.server.preparing():
            url = bench.filled(name, count, TABLES)
        project = projects.ours(bench.directory / name, TABLES, url, {"schemas": "tenant_*"}, _AT_ONCE)
        tidy = functools.partial(projects.forget, project)
        # Exit code 0 says that all were compared, and none is odd.
        tasks.append(Task(f"{OURS}, {count}", [bench.ours / "orchestrator", "drift"], project, count, tidy=tidy))
    try:
        found = take_turns(tasks, bench.pick(bench.repetitions, 2), 0, bench.say)
    finally:
        for count in (many, few):
            bench.server.drop(f"{_NAME}{count}")
    seconds = found[0].seconds(many)
    figures = (
        Figure("per tenant", None if seconds is None else seconds * _MS / many, 3.0, at_most=True, unit="ms"),
        Figure(f"peak memory at {many} : at {few}", ratio(*(each.peak_kib() for each in found)), 1.1, at_most=True),
    )
    notes = tuple(f"{each.name} tenants: {peak / 1024:.0f} MiB" for each in found if (peak := each.peak_kib()))
    text = f"drift over {many} schemas x 20 tables in one database, and over {few}"
    return RowResult(DRIFT, text, many, tuple(found), figures, notes)


def drift_databases(bench: Bench) -> RowResult:
    """Two hundred databases of twenty tables."""
    count = 200
    here = bench.pick(count, 60)
    names = [f"{_NAME}{number:03}" for number in range(1, here + 1)]
    bench.say(f"  preparing {here} databases")
    template = f"{PREFIX}twenty_tables"
    with bench.server.preparing():
        bench.server.execute(bench.server.create(template), bench.sql(TABLES))
        bench.server.vacuum(bench.server.database_url(template))
        with ThreadPoolExecutor(_COPIES) as threads:
            list(threads.map(lambda name: bench.server.create(name, template), names))
    directory = bench.directory / "drift-databases"
    project = projects.ours(directory, TABLES, bench.server.url, {"databases": f"{_NAME}*"}, _AT_ONCE)
    program: Command = [bench.ours / "orchestrator", "drift"]
    few: Command = [*program, *(part for name in names[:_AT_ONCE] for part in ("--tenant", name))]
    tidy = functools.partial(projects.forget, project)
    ours = Task(OURS, program, project, here, few, _AT_ONCE, tidy=tidy)
    addresses = [bench.server.database_url(name) for name in names]
    tasks = [ours, peers.bare_asyncpg(bench, _CATALOG, addresses, _AT_ONCE, bench.directory / "bare-drift")]
    try:
        found = take_turns(tasks, bench.repetitions, bench.idle_runs if bench.quick else 0, bench.say)
    finally:
        for name in (*names, template):
            bench.server.drop(name)
    value = ratio(*(each.seconds(count) for each in found))
    figure = Figure(f"{OURS} : {BARE}, one catalog query", value, 2.0, at_most=True)
    text = f"drift over {count} databases of 20 tables, {_AT_ONCE} at once"
    return RowResult(DRIFT_DATABASES, text, count, tuple(found), (figure,))
