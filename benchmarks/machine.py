"""What the numbers were found on, as far as it bears on them: no names, no paths, no addresses."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from pathlib import Path

from benchmarks.bench import Bench

_PACKAGES = ("alembic", "sqlalchemy", "asyncpg", "psycopg", "django", "django-tenants")
_SETTINGS = (
    *("fsync", "synchronous_commit", "full_page_writes", "shared_buffers", "max_connections"),
    *("max_locks_per_transaction", "autovacuum"),
)
_VERSIONS = """
import json, sys
from importlib.metadata import PackageNotFoundError, version
found = {}
for name in sys.argv[1:]:
    try:
        found[name] = version(name)
    except PackageNotFoundError:
        pass
print(json.dumps(found))
"""


def machine(bench: Bench) -> dict[str, str]:
    """Facts by their names."""
    server = bench.server
    rows = server.fetch(server.url, *(f"SELECT current_setting('{name}')" for name in _SETTINGS))
    settings = ", ".join(f"{name} {row[0]}" for name, row in zip(_SETTINGS, rows, strict=True))
    whose = "the one at BENCH_PG_URL" if "BENCH_PG_URL" in os.environ else "an own one on the same machine"
    return {
        "processor": f"{_processor()}, {os.cpu_count()} cores",
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "Python": platform.python_version(),
        "PostgreSQL": f"{server.fetch(server.url, 'SHOW server_version')[0][0]}, {whose}, over TCP: {settings}",
        "psql": _psql(bench),
        "orchestrator's packages": _versions(bench.ours / "python"),
        "peers' packages": _versions(bench.peers / "python"),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def _psql(bench: Bench) -> str:
    if bench.psql is None:
        return "none"
    run = subprocess.run([bench.psql, "--version"], check=True, capture_output=True, text=True)
    return run.stdout.split(")")[-1].split()[0]


def _versions(python: Path) -> str:
    run = subprocess.run([python, "-c", _VERSIONS, *_PACKAGES], check=True, capture_output=True, text=True)
    return ", ".join(f"{name} {version}" for name, version in json.loads(run.stdout).items())
