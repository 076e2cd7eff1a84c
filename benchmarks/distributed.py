"""The row of distributed runs: workers on one machine beside the local executor, and what the engine has to do."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks import projects
from benchmarks.bench import Bench
from benchmarks.histories import ONE
from benchmarks.measuring import RunError, Task, plain_environment, take_turns
from benchmarks.peers import Work
from benchmarks.server import PREFIX
from benchmarks.verdicts import Figure, RowResult, ratio

DISTRIBUTED = "distributed"
#: One server by four names: the engine, and budgets, take them for four.
_HOSTS = ("127.0.0.1", "localhost", "127.1", "127.0.1")
#: Tenants at once on each, and processes of workers.
_AT_ONCE, _WORKERS = 2, 3
#: Seconds that a worker may take to begin.
_PATIENCE = 60.0


@dataclass
class Workers:
    """Processes that take part in the runs of a project."""

    processes: list[subprocess.Popen[str]] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    _here: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    def start(self, program: Path, project: Path) -> None:
        """One more, which takes part when this returns."""
        process = subprocess.Popen(
            [program, "worker"],
            cwd=project,
            env=plain_environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.processes.append(process)
        threading.Thread(target=self._listen, args=(process,), daemon=True).start()
        if not self._here.acquire(timeout=_PATIENCE):
            raise RunError("\n".join(["a worker did not begin", *self.said]))

    def _listen(self, process: subprocess.Popen[str]) -> None:
        assert process.stderr is not None
        for line in process.stderr:
            self.said.append(line.rstrip())
            if line.startswith("worker in slot"):
                self._here.release()

    def chunks(self) -> list[int]:
        """How many workflows each run was, but for the run itself."""
        return [int(line.split()[-2]) for line in self.said if line.endswith(" chunks")]


@contextmanager
def workers(program: Path, project: Path, count: int) -> Iterator[Workers]:
    """So many, for as long as runs are measured."""
    crew = Workers()
    try:
        for _ in range(count):
            crew.start(program, project)
        yield crew
    finally:
        for process in crew.processes:
            process.kill()
            process.wait()


def distributed(bench: Bench) -> RowResult:
    """A column and an index in 2,000 schemas on four servers: by three workers, and by one process."""
    count = 2000
    work = Work(bench, ONE, bench.pick(count, 400))
    project = projects.ours(work.directory("distributed"), ONE, work.address, {}, _AT_ONCE)
    journal = bench.server.database_url(f"{PREFIX}journal")
    bench.server.execute(bench.server.url, f'DROP DATABASE IF EXISTS "{PREFIX}journal" WITH (FORCE)')
    bench.server.execute(bench.server.url, f'CREATE DATABASE "{PREFIX}journal"')
    _write(project, work, journal)
    program = bench.ours / "orchestrator"

    def task(name: str, *options: str) -> Task:
        return Task(
            name,
            [program, "upgrade", *options],
            project,
            work.tenants,
            reset=work.reset,
            tidy=lambda: projects.forget(project),
            check=work.check,
        )

    with workers(program, project, _WORKERS) as crew:
        tasks = [task("local"), task("3 workers", "--executor", "dbos")]
        found = take_turns(tasks, bench.repetitions, 0, bench.say)
        each = [chunks + 1 for chunks in crew.chunks()]
    local, ours = (subject.seconds(work.tenants) for subject in found)
    workflows = max(each) / work.tenants if each else None
    figures = (
        Figure("3 workers : local", ratio(ours, local), 2.0, at_most=True),
        Figure("engine's workflows per tenant", workflows, 0.1, at_most=True, unit=""),
    )
    text = f"1 revision x {work.tenants} schemas on 4 servers ({_AT_ONCE} at once each), 3 workers on this machine"
    return RowResult(DISTRIBUTED, text, work.tenants, tuple(found), figures)


def _write(project: Path, work: Work, journal: str) -> None:
    parts = urlsplit(work.address)
    servers = {
        f"s{number}": {
            "url": parts._replace(netloc=f"{parts.username}@{host}:{parts.port}").geturl(),
            "max_concurrency": _AT_ONCE,
        }
        for number, host in enumerate(_HOSTS)
    }
    names = projects.tenants(work.tenants)
    tenants = [{"id": name, "server": f"s{number % len(_HOSTS)}"} for number, name in enumerate(names)]
    document = {"name": "bench", "journal": journal, "servers": servers, "tenants": tenants}
    (project / "tenants.yaml").write_text(json.dumps(document), encoding="utf-8")
