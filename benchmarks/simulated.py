"""A fleet that no machine here could hold, simulated.

    python -m benchmarks.simulated --tenants 100000 --servers 50 --workers 4 > result.json

The engine, the journal, planning, waves and the workers are the real ones. Simulated are the servers: where tenants
stand is made up, and an attempt on one sleeps, and is written into the journal as any other.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import projects, simulated_servers
from benchmarks.histories import ONE
from benchmarks.measuring import plain_environment
from benchmarks.server import running
from benchmarks.simulated_servers import AFTER, BEFORE
from orchestrator.actions import worker as worker_module
from orchestrator.actions.distributing.jobs import ChunkJob
from orchestrator.actions.execution import Execution, Watch
from orchestrator.actions.project import Project
from orchestrator.fleet.load import load
from orchestrator.fleet.tenant import Tenant
from orchestrator.journal.journal import Journal
from orchestrator.journal.records import AttemptRecord, EventRecord
from orchestrator.rollout.stop import Stop
from orchestrator.statuses import TenantStatus

#: Seconds that a simulated attempt takes, on average.
_TAKES = 0.02


async def budgets(self: Project, tenants: Sequence[Tenant], connections: int = 1) -> dict[str, tuple[str, int]]:
    """What tenants.yaml says: no server is asked."""
    names = {tenant.server for tenant in tenants}
    return {name: (f"{name}.internal:5432", self.fleet.servers[name].max_concurrency) for name in names}


async def attempt_chunk(muster: Any, journal: Journal, given: Mapping[str, Any], stop: Stop) -> dict[str, Any]:
    """Sleep for each tenant, and write down what a migration would write."""
    job = ChunkJob.from_json(given)
    await journal.attempts_of(job.run, job.tenants)
    waiting = list(job.tenants)

    async def one_after_another() -> None:
        while waiting and not stop.draining:
            tenant, began = waiting.pop(0), datetime.now(UTC)
            attempt = AttemptRecord(job.run, tenant, job.wave, TenantStatus.RUNNING, BEFORE, started_at=began)
            journal.record(attempt)
            await asyncio.sleep(_TAKES)
            journal.record_event(EventRecord(job.run, tenant, began, "revision", "b0001", "upgrade", _TAKES * 1000))
            attempt = replace(attempt, status=TenantStatus.SUCCEEDED, to_heads=AFTER, finished_at=datetime.now(UTC))
            journal.record(replace(attempt, attempts=1, path="replay", duration_ms=_TAKES * 1000))

    await asyncio.gather(*(one_after_another() for _ in range(job.width)))
    return {"attempted": len(job.tenants)}


def simulate() -> None:
    """Put what is simulated in the place of the real thing, in this process."""
    simulated_servers.simulate(BEFORE)
    Project.budgets = budgets  # type: ignore[method-assign]
    vars(worker_module)["attempt_chunk"] = attempt_chunk


def peak_mib(pid: int) -> float:
    """The largest resident set that a process has had."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    return 0.0


def now_mib(pid: int) -> float:
    """The resident set of a process now."""
    with suppress(OSError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    return 0.0


def cpu_s(pid: int) -> float:
    """Processor time that a process has had, in seconds."""
    with suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return 0.0


def _cpu_of_children() -> float:
    """Processor time of this process's children that have ended, in seconds."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("role", nargs="?", default="measure", choices=["measure", "worker"])
    parser.add_argument("--tenants", type=int, default=100_000)
    parser.add_argument("--servers", type=int, default=50)
    parser.add_argument("--at-once", type=int, default=4)
    parser.add_argument("--workers", type=int, default=4)
    options = parser.parse_args()
    simulate()
    if options.role == "worker":
        asyncio.run(_work())
    else:
        _measure(options)


async def _work() -> None:
    stop = Stop()
    await worker_module.work(load(Path("tenants.yaml")), stop=stop, said=lambda text: print(text, flush=True))


def _measure(options: argparse.Namespace) -> None:
    with running() as server, tempfile.TemporaryDirectory(prefix="orc-simulated-") as directory:
        project, url = Path(directory), server.database_url("simulated")
        server.execute(server.url, "CREATE DATABASE simulated")
        projects.ours(project, ONE, url, {}, options.at_once)
        servers = {
            f"db{number:02}": {"url": f"postgresql://x@db{number:02}.internal/app", "max_concurrency": options.at_once}
            for number in range(options.servers)
        }
        # A fleet of this size is in a table; reading that is real, too.
        server.execute(
            url,
            f"CREATE TABLE customers AS SELECT 't' || lpad(n::text, 6, '0') AS id,"
            f" 'db' || lpad((n % {options.servers})::text, 2, '0') AS server"
            f" FROM generate_series(0, {options.tenants - 1}) n",
        )
        source = {"server": "registry", "sql": "SELECT id, server FROM customers ORDER BY id"}
        declared = {**servers, "registry": {"url": url}}
        document = {"name": "simulated", "journal": url, "servers": declared, "sources": [source]}
        (project / "tenants.yaml").write_text(json.dumps(document), encoding="utf-8")
        crew = [
            subprocess.Popen(
                [sys.executable, "-m", "benchmarks.simulated", "worker"],
                cwd=project,
                env={**plain_environment(), "PYTHONPATH": str(Path(__file__).resolve().parent.parent)},
                stdout=subprocess.PIPE,
                text=True,
            )
            for _ in range(options.workers)
        ]
        try:
            for process in crew:
                assert process.stdout is not None
                print(process.stdout.readline().rstrip(), file=sys.stderr)
            print(json.dumps(_run(project, url, server, crew, options), indent=1))
        finally:
            for process in crew:
                process.kill()
                process.wait()


def _run(project: Path, url: str, server: Any, crew: list[Any], options: argparse.Namespace) -> dict[str, Any]:
    import orchestrator

    pids = [process.pid for process in crew]
    grown: list[dict[str, Any]] = []
    ended = threading.Event()
    query = "SELECT count(*) FILTER (WHERE status = 'succeeded') FROM orchestrator_attempts"

    def watch() -> None:
        began = time.monotonic()
        while not ended.wait(5):
            with suppress(Exception):
                done = server.fetch(url, query)[0][0]
                backends = server.fetch(url, "SELECT count(*) FROM pg_stat_activity WHERE datname = 'simulated'")[0][0]
                memory = [round(now_mib(pid)) for pid in pids]
                grown.append(
                    {"s": round(time.monotonic() - began), "done": done, "mib": memory, "connections": backends}
                )
                print(grown[-1], file=sys.stderr)

    watching = threading.Thread(target=watch)
    watching.start()
    began = time.monotonic()
    execution = Execution(executor="dbos", detach=True)
    given = asyncio.run(orchestrator.upgrade(load(project / "tenants.yaml"), execution=execution, watch=Watch()))
    handed = time.monotonic()
    asked: dict[str, dict[str, float]] = {}

    def timed(name: str, *args: str) -> None:
        started, before = time.monotonic(), _cpu_of_children()
        command = [sys.executable, "-m", "benchmarks.simulated_servers", *args]
        environment = {**plain_environment(), "PYTHONPATH": str(Path(__file__).resolve().parent.parent)}
        subprocess.run(command, cwd=project, env=environment, check=False, stdout=subprocess.DEVNULL)
        took = time.monotonic() - started
        asked[name] = {"wall_s": round(took, 2), "cpu_s": round(_cpu_of_children() - before, 2)}

    half = options.tenants // 2
    while server.fetch(url, query)[0][0] < half:
        time.sleep(0.5)
    timed("runs list, in the middle", "runs", "list")
    timed("runs show --json, in the middle", "runs", "show", "last", "--json")
    finished = "SELECT status FROM orchestrator_runs WHERE finished_at IS NOT NULL"
    while not server.fetch(url, finished):
        time.sleep(0.2)
    whole = time.monotonic()
    ended.set()
    watching.join()
    timed("runs list, at the end", "runs", "list")
    timed("runs show --json, at the end", "runs", "show", "last", "--json")
    timed("runs show, at the end", "runs", "show", "last")
    timed("status, at the end", "status")
    timed("status --json, at the end", "status", "--json")
    events = server.fetch(url, "SELECT count(*) FROM orchestrator_events")[0][0]
    least = options.tenants * _TAKES / (options.servers * options.at_once)
    return {
        "tenants": options.tenants,
        "servers": options.servers,
        "at_once": options.at_once,
        "workers": options.workers,
        "run": given.run.id,
        "status": server.fetch(url, finished)[0][0],
        "summary": dict(server.fetch(url, "SELECT status, count(*) FROM orchestrator_attempts GROUP BY 1")),
        "attempt_s": _TAKES,
        "least_possible_s": round(least, 1),
        "planned_and_handed_over_s": round(handed - began, 1),
        "whole_s": round(whole - began, 1),
        "events": events,
        "peak_mib_of_workers": [round(peak_mib(pid)) for pid in pids],
        "cpu_s_of_workers": [round(cpu_s(pid), 1) for pid in pids],
        "asked": asked,
        "grown": grown,
    }


if __name__ == "__main__":
    main()
