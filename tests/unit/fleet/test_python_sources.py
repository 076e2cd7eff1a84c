"""Python sources: callables of the user's, sync or async, from modules beside tenants.yaml and from packages."""

from __future__ import annotations

import asyncio
import importlib
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import ConfigurationError
from orchestrator.fleet.callables import call
from orchestrator.fleet.sources import EntryPointSource, PythonSource

MODULE = """
import threading

ROWS = [{"id": "a"}, {"id": "b"}]

def plain():
    return ROWS

def generator():
    yield from ROWS

async def coroutine():
    return tuple(ROWS)

async def async_generator():
    for row in ROWS:
        yield row

class Registry:
    @staticmethod
    def all():
        return ROWS

def where():
    return [{"id": threading.current_thread().name}]

def raises():
    raise RuntimeError("no registry at postgres://u:geheim@h/db")

def half():
    yield ROWS[0]
    raise RuntimeError("lost it half-way")

def number():
    return 7

def text():
    return "acme"

def mapping():
    return {"id": "a"}

def nothing():
    pass

def crm(region, limit=0):
    return [{"id": f"{region}-{limit}"}]
"""


@pytest.fixture
def source(tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """``source(function)``: a Python source in a module of the test's own, found beside tenants.yaml only."""
    name = f"tenants_of_{abs(hash(request.node.nodeid))}"
    (tmp_path / f"{name}.py").write_text(MODULE)
    monkeypatch.setattr(sys, "path", sys.path[:])
    yield lambda function: PythonSource(f"{name}:{function}", root=tmp_path)
    sys.modules.pop(name, None)


@pytest.mark.parametrize("function", ["plain", "generator", "coroutine", "async_generator", "Registry.all"])
async def test_calls(source: Any, function: str) -> None:
    """Functions, coroutines and generators of both kinds."""
    assert await call(source(function)) == [{"id": "a"}, {"id": "b"}]


async def test_sync_functions_do_not_block(source: Any) -> None:
    """A sync callable runs in a thread of its own: the event loop goes on."""
    ((row),) = await call(source("where"))
    assert row["id"] != threading.main_thread().name


@pytest.mark.parametrize(
    ("function", "message", "hint"),
    [
        ("plane", "has no `plane`", "did you mean `plain`?"),
        ("ROWS", "is not a callable but list", "name a function"),
        ("raises", "raised RuntimeError: no registry at postgres://u:***@h/db", None),
        ("half", "raised RuntimeError: lost it half-way", None),
        ("number", "returned int, not rows", "return a list"),
        ("text", "returned str, not rows", "return a list"),
        ("mapping", "returned dict, not rows", "return a list"),
        ("nothing", "returned NoneType, not rows", "return a list"),
        ("crm", "raised TypeError", None),
    ],
)
async def test_refusals(source: Any, function: str, message: str, hint: str | None) -> None:
    """Whatever the user's function does wrong is told with the source's name, and without secrets."""
    with pytest.raises(ConfigurationError) as caught:
        await call(source(function))
    assert caught.value.message.startswith(f"the Python source {source(function).callable}")
    assert message in caught.value.message
    assert caught.value.hint
    if hint:
        assert hint in caught.value.hint


@pytest.mark.parametrize("content", [None, "def broken(:", "import nothing_like_this", "raise SystemExit(3)", "1/0"])
async def test_modules_that_cannot_be_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | None
) -> None:
    """A missing or broken module, and one that leaves the process, are ConfigurationErrors."""
    monkeypatch.setattr(sys, "path", sys.path[:])
    name = f"broken_{abs(hash(content))}"
    if content is not None:
        (tmp_path / f"{name}.py").write_text(content)
    with pytest.raises(ConfigurationError, match="cannot be imported"):
        await call(PythonSource(f"{name}:tenants", root=tmp_path))


WAITING = """
import asyncio
STARTED = asyncio.Event()
async def wait():
    STARTED.set()
    await asyncio.Event().wait()
"""


async def test_cancellation_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cancelling while a source is read cancels, and is not told as the source's fault."""
    (tmp_path / "waiting_source.py").write_text(WAITING)
    monkeypatch.syspath_prepend(tmp_path)
    task = asyncio.ensure_future(call(PythonSource("waiting_source:wait")))
    await importlib.import_module("waiting_source").STARTED.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    """Put a package with an entry point on the path."""
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    (tmp_path / "crm_tenants.py").write_text(MODULE)
    info = tmp_path / "crm_tenants-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: crm-tenants\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[orchestrator.sources]\ncrm = {value}\n")


async def test_entry_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed package's callable gets the options as keyword arguments."""
    installed(tmp_path, monkeypatch, "crm_tenants:crm")
    assert await call(EntryPointSource("crm", {"region": "eu", "limit": 5})) == [{"id": "eu-5"}]


async def test_unknown_entry_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is not installed is told with the nearest."""
    installed(tmp_path, monkeypatch, "crm_tenants:crm")
    with pytest.raises(ConfigurationError, match="the source entry point crn is not installed") as caught:
        await call(EntryPointSource("crn"))
    assert caught.value.hint == "did you mean `crm`?"


async def test_broken_entry_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that cannot be imported, or does not take its options, is told."""
    installed(tmp_path, monkeypatch, "crm_tenants:missing")
    with pytest.raises(ConfigurationError, match="cannot be imported"):
        await call(EntryPointSource("crm"))
