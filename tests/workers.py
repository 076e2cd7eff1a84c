"""Workers of a project, started by the real command line; for tests of distributed runs."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg

from tests import warm_start
from tests.projects import Project, make_project
from tests.servers import execute
from tests.workspace import Workspace

#: Seconds that a worker may take to begin, or to end.
_PATIENCE = 60.0
#: What revisions ask for every tenant, so that a test can steer each without another directory: to wait, to fail.
STEERED = """
op.execute('''
    DO $$ BEGIN
    INSERT INTO public.seen VALUES (current_schema());
    IF EXISTS (SELECT FROM public.gated WHERE tenant = current_schema()) THEN PERFORM pg_advisory_xact_lock(42); END IF;
    IF EXISTS (SELECT FROM public.slow WHERE tenant = current_schema()) THEN PERFORM pg_sleep(0.05); END IF;
    IF EXISTS (SELECT FROM public.broken WHERE tenant = current_schema()) THEN RAISE EXCEPTION 'broken'; END IF;
    END $$''')
"""
GATE = 42


@dataclass(slots=True)
class Worker:
    """A worker's process."""

    process: subprocess.Popen[str] | warm_start.Started
    slot: int = 0
    #: What it has said, a line each.
    said: list[str] = field(default_factory=list, repr=False)
    _listening: threading.Thread | None = None

    def listen(self) -> None:
        """Begin to listen to what it says."""

        def listen() -> None:
            assert self.process.stderr is not None
            self.said.extend(iter(self.process.stderr.readline, ""))

        self._listening = threading.Thread(target=listen, daemon=True)
        self._listening.start()

    def kill(self) -> None:
        """As the kernel does where memory is short."""
        self.process.kill()
        self.ended()

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Tell it to end, and wait until it has."""
        self.process.send_signal(number)
        return self.ended()

    def ended(self) -> int:
        """Wait until it has ended; its exit code."""
        code = self.process.wait(_PATIENCE)
        assert self._listening is not None
        self._listening.join(_PATIENCE)
        assert self.process.stderr is not None
        self.process.stderr.close()
        return code

    def has_said(self, text: str) -> bool:
        """Whether it has said ``text`` by now."""
        return any(text in line for line in self.said)

    def hear(self, text: str) -> str:
        """Wait until it says ``text``; the line."""
        deadline = time.monotonic() + _PATIENCE
        while not self.has_said(text):
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise AssertionError(f"not said: {text}\n{''.join(self.said)}")
            time.sleep(0.01)
        return next(line for line in self.said if text in line)


def start_worker(project: Project, *options: str) -> Worker:
    """Start one, and wait until it takes part."""
    python = ["-m", "orchestrator", "worker", *options]
    process: subprocess.Popen[str] | warm_start.Started
    if warm_start.serves(sys.executable, python, {}):
        process = warm_start.warm_start().start("orchestrator", python[2:], project.path, Workspace.environment({}))
    else:
        process = subprocess.Popen(
            ["env", "--default-signal=INT", sys.executable, *python],
            cwd=project.path,
            env=Workspace.environment({"PYTHONUNBUFFERED": "1"}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
    worker = Worker(process)
    worker.listen()
    line = worker.hear("worker in slot ")
    worker.slot = int(line.removeprefix("worker in slot ").partition(":")[0])
    return worker


@contextmanager
def workers(project: Project, count: int) -> Iterator[list[Worker]]:
    """So many, for as long as a test needs them."""
    started: list[Worker] = []
    try:
        started.extend(start_worker(project) for _ in range(count))
        yield started
    finally:
        for worker in started:
            if worker.process.poll() is None:
                worker.kill()


def steering(url: str) -> None:
    """What :data:`STEERED` asks, in the database at ``url``."""
    execute(url, "".join(f"CREATE TABLE public.{name} (tenant text);" for name in ("seen", "gated", "slow", "broken")))


def steered_project(path: Path, url: str, revisions: Mapping[str, str] | None = None) -> Project:
    """A project whose journal is in the database at ``url``; its tenants are written by :func:`tenants`."""
    steering(url)
    accounts = 'op.create_table("accounts", sa.Column("id", sa.Integer, primary_key=True))'
    back = "\n\ndef downgrade():\n"
    default = {
        "r1": f'def upgrade():\n    {accounts}{back}    op.drop_table("accounts")',
        "r2": "def upgrade():\n"
        + "".join(f"    {line}\n" for line in STEERED.strip().splitlines())
        + f"{back}    pass",
    }
    project = make_project(path, default if revisions is None else revisions, "{}")
    tenants(project, url)
    return project


def tenants(project: Project, url: str, *entries: str | Mapping[str, Any], servers: Any = None, **keys: Any) -> None:
    """Write tenants.yaml anew: workers read it anew for each run."""
    declared = servers or {"main": {"url": url, "max_concurrency": 4}}
    document = {
        "name": "steered",
        "journal": url,
        "servers": declared,
        "defaults": {"server": "main"},
        "tenants": [{"id": each} if isinstance(each, str) else dict(each) for each in entries],
        "policy": {"retries": 0, "lock_timeout": "60s"},
        **keys,
    }
    new = project.path / "tenants.yaml.new"
    new.write_text(json.dumps(document), encoding="utf-8")
    new.replace(project.path / "tenants.yaml")


@asynccontextmanager
async def sampled(url: str) -> AsyncIterator[dict[str, int]]:
    """The most connections that each other database had at once, asked for again and again meanwhile."""
    most: dict[str, int] = {}
    connection = await asyncpg.connect(url)

    async def sample() -> None:
        while True:
            # Also those that idle: a server counts them, too.
            rows = await connection.fetch(
                "SELECT datname, count(*) FROM pg_stat_activity WHERE datname <> current_database() AND "
                "backend_type = 'client backend' GROUP BY 1"
            )
            for name, count in rows:
                most[name] = max(most.get(name, 0), count)
            await asyncio.sleep(0.02)

    sampling = asyncio.create_task(sample())
    try:
        yield most
    finally:
        sampling.cancel()
        await asyncio.wait({sampling})
        await connection.close()
