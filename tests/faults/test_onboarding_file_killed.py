"""kill -9 while a SQLite file is onboarded: its mark is in no transaction, and yet its rows come once."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

import orchestrator
from orchestrator.actions.onboarding.undo import undo
from tests.faults.worlds import sampled
from tests.workspace import Workspace

HEAD = "5ce7308fb946"
#: Onboards in a process that dies at a given touch of the tenant's file, of its mark, or of tenants.yaml; counts them.
_PROGRAM = """
import asyncio, os, signal, sys

limit, count = int(sys.argv[1]), 0

def die_at(event, args):
    global count
    if event not in ("open", "os.rename", "os.remove", "sqlite3.connect"):
        return
    if any(part in str(args[0]) for part in ("acme.db", "tenants.yaml")):
        count += 1
        sown = "onboarding" in str(args[0]) and getattr(sys.modules.get("rows"), "sown", False)
        if count == limit or sown:
            os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(die_at)
import orchestrator

result = asyncio.run(orchestrator.onboard(orchestrator.load("tenants.yaml", may_be_empty=True), "acme"))
assert result.satisfied, result.as_json()
print(count)
"""
#: A seed that dies once its rows are written, before they are committed or before that is written down.
_DEADLY = """
import os, pathlib, signal

sown = False

def rows(connection, tenant):
    global sown
    connection.exec_driver_sql("INSERT INTO accounts (name, slug) VALUES ('first', 'first')")
    deadly = pathlib.Path("deadly")
    if deadly.exists() and deadly.read_text() == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    sown = deadly.exists()
"""


def signup(path: Path, seed: object = "demo.sql") -> Workspace:
    """A project for files, without tenants."""
    path.mkdir(parents=True)
    made = Workspace.create(path)
    made.write("demo.sql", "INSERT INTO accounts (name, slug) VALUES ('first', 'first')")
    made.write("rows.py", _DEADLY)
    document = {
        "servers": {"disk": {"url": "sqlite:///files"}},
        "defaults": {"isolation": "file"},
        "onboarding": {"seeds": {"demo": seed}, "seed": "demo"},
    }
    made.write("tenants.yaml", "\n".join(f"{key}: {json.dumps(value)}" for key, value in document.items()))
    return made


def onboarded(made: Workspace, limit: int) -> subprocess.CompletedProcess[str]:
    """Onboard in a process that dies at touch ``limit``; never at 0."""
    command = [sys.executable, "-c", _PROGRAM, str(limit)]
    environment = {**os.environ, "PYTHONPATH": str(made.path)}
    return subprocess.run(command, cwd=made.path, env=environment, text=True, capture_output=True, check=False)


def assert_done(made: Workspace) -> None:
    """It has its rows once, is at its head, in the fleet once, and bears no mark any more."""
    (file,) = made.path.rglob("acme.db")
    with closing(sqlite3.connect(file)) as connection:
        assert connection.execute("SELECT count(*) FROM accounts").fetchall() == [(1,)]
        assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [(HEAD,)]
    fleet = orchestrator.load(made.path / "tenants.yaml")
    assert [tenant.id for tenant in fleet.tenants] == ["acme"]
    assert list(file.parent.glob(".acme.db.onboarding*")) == []


def left(made: Workspace) -> list[Path]:
    """What there is of the tenant; the lock's file is nobody's, and stays."""
    return [path for path in made.path.rglob("*acme.db*") if path.suffix != ".lock"]


def test_killed(tmp_path: Path, thorough: bool) -> None:
    """At touches all over an onboarding; the same call finishes it, or --undo leaves nothing."""
    whole = signup(tmp_path / "whole")
    done = onboarded(whole, 0)
    assert done.returncode == 0, done.stderr
    assert_done(whole)
    for number in sampled(int(done.stdout), 400 if thorough else 8):
        made = signup(tmp_path / f"killed-{number}")
        assert onboarded(made, number + 1).returncode == -signal.SIGKILL, number
        back = number % 2 == 0
        fleet = orchestrator.load(made.path / "tenants.yaml", may_be_empty=True)
        listed = bool(fleet.tenants)
        result = asyncio.run(undo(fleet, "acme") if back else orchestrator.onboard(fleet, "acme"))
        if result.satisfied and back:
            assert left(made) == [], number
            assert not orchestrator.load(made.path / "tenants.yaml", may_be_empty=True).tenants
        else:
            assert result.satisfied or listed, (number, result.as_json())
            # --undo takes nothing back that the fleet lists; the same command goes on with it.
            result = asyncio.run(orchestrator.onboard(orchestrator.load(made.path / "tenants.yaml"), "acme"))
            assert result.satisfied, (number, result.as_json())
            assert_done(made)


@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_among_its_rows(tmp_path: Path, when: str) -> None:
    """What died among its rows is made anew: how far they had come, nobody can tell."""
    made = signup(tmp_path / "seeded", {"python": "rows:rows"})
    made.write("deadly", when)
    assert onboarded(made, 0).returncode == -signal.SIGKILL
    (made.path / "deadly").unlink()
    again = onboarded(made, 0)
    assert again.returncode == 0, again.stderr
    assert_done(made)
