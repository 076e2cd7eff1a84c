"""Hooks: what is called before and after a run, its waves and its tenants, and what follows when one says no."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import orchestrator
from orchestrator.actions.execution import Execution, Watch
from orchestrator.rollout.hooks import HookRefused
from orchestrator.rollout.stop import Stop
from tests.projects import ACCOUNTS, Project, make_project, schemas, statuses, tables, until
from tests.workspace import Workspace

TENANTS = ["a", "b", "c"]
MOMENTS = ("before_run", "before_wave", "before_tenant", "after_tenant", "after_wave", "after_run")
#: A module that writes down what it is told, and says no to what is in a file.
MODULE = """
import json
from pathlib import Path

def note(document):
    with open(Path(__file__).parent / "told.jsonl", "a") as file:
        file.write(json.dumps(document) + chr(10))

async def refuse(document):
    if document.get("tenant", "b") == "b":
        raise RuntimeError("not this one")
"""


def project_of(path: Path, url: str, hooks: dict[str, Any], **keys: Any) -> Project:
    """Three tenants, one revision and hooks."""
    sys.modules.pop("hooks", None)
    (path / "hooks.py").write_text(MODULE)
    return make_project(path, {"r1": ACCOUNTS}, schemas(url, *TENANTS, hooks=hooks, **keys))


def told(path: Path) -> list[dict[str, Any]]:
    """What the module was told."""
    return [json.loads(line) for line in (path / "told.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("kind", ["python", "command"])
async def test_all_of_them(tmp_path: Path, database: str, kind: str) -> None:
    """Each is called at its moment, with what it is about, whichever way."""
    command = f"""{sys.executable} -c "import hooks, json, sys; hooks.note(json.load(sys.stdin))" """
    hook = {"python": "hooks:note"} if kind == "python" else command
    project = project_of(tmp_path, database, dict.fromkeys(MOMENTS, hook), waves=[{"name": "first", "count": 1}])

    result = await project.upgrade(execution=Execution(jobs=1))

    assert (result.run.status, statuses(result)) == ("succeeded", dict.fromkeys(TENANTS, "succeeded"))
    documents = told(tmp_path)
    assert [(each["event"], each.get("wave"), each.get("tenant")) for each in documents] == [
        ("before_run", None, None),
        ("before_wave", "first", None),
        ("before_tenant", "first", "a"),
        ("after_tenant", "first", "a"),
        ("after_wave", "first", None),
        ("before_wave", "rest", None),
        *((moment, "rest", tenant) for tenant in "bc" for moment in ("before_tenant", "after_tenant")),
        ("after_wave", "rest", None),
        ("after_run", None, None),
    ]
    assert {(each["run"], each["command"]) for each in documents} == {(result.run.id, "upgrade")}
    assert (documents[3]["status"], documents[3]["to"]) == ("succeeded", ["r1"])
    assert documents[4]["summary"] == {"succeeded": 1}
    assert (documents[-1]["status"], documents[-1]["summary"]) == ("succeeded", {"succeeded": 3})


async def test_a_run_is_refused(tmp_path: Path, database: str) -> None:
    """What is called before a run keeps it from beginning: nothing is touched, nothing is journaled."""
    project = project_of(tmp_path, database, {"before_run": "echo freeze; false"})

    with pytest.raises(HookRefused, match="before_run hook echo freeze; false: exit code 1: freeze"):
        await project.upgrade()

    assert not tables(database, "a")
    assert not (await orchestrator.list_runs(project.fleet)).runs
    assert Workspace(tmp_path).run("upgrade", "--provision").returncode == 2


async def test_a_wave_is_refused(tmp_path: Path, database: str) -> None:
    """What is called before a wave keeps it from beginning: the run fails with what was said, and can be resumed."""
    project = project_of(tmp_path, database, {"before_wave": "test -f go"})

    result = await project.upgrade()

    assert (result.run.status, result.summary) == ("failed", {"not_started": 3})
    assert str(result.held_up) == "wave all: before_wave hook test -f go: exit code 1"
    (tmp_path / "go").touch()
    result = await orchestrator.resume(project.fleet)
    assert (result.run.status, result.satisfied, result.summary) == ("succeeded", True, {"succeeded": 3})


async def test_a_tenant_is_refused(tmp_path: Path, database: str) -> None:
    """What is called before a tenant fails that one, untouched; the budget counts it."""
    project = project_of(tmp_path, database, {"before_tenant": [{"python": "hooks:refuse"}]})

    result = await project.upgrade(execution=Execution(continue_on_error=True))

    assert statuses(result) == {"a": "succeeded", "b": "failed", "c": "succeeded"}
    (error,) = [each.error for each in result.tenants if each.tenant == "b"]
    assert error is not None
    assert (error["type"], "RuntimeError: not this one" in error["message"]) == ("HookRefused", True)
    assert not tables(database, "b")


async def test_afterwards_nothing_is_changed(tmp_path: Path, database: str, caplog: pytest.LogCaptureFixture) -> None:
    """What is called after something and fails is logged, no more."""
    hooks = dict.fromkeys(("after_tenant", "after_wave", "after_run"), "echo broken; exit 4")
    project = project_of(tmp_path, database, hooks)

    result = await project.upgrade()

    assert result.satisfied
    assert caplog.text.count("exit code 4: broken") == 5


class Receiver(ThreadingHTTPServer):
    """A web server that answers with the next of ``answers`` and keeps what it was sent."""

    def __init__(self, *answers: int) -> None:
        self.answers, self.bodies = list(answers), list[Any]()
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.bodies.append((self.path, json.loads(body)))
        self.send_response(self.server.answers.pop(0) if self.server.answers else 200)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Quiet."""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """Listens on this machine."""
    with Receiver() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("answers", "posts", "fine"), [([], 1, True), ([503, 200], 2, True), ([404], 1, False), ([500] * 4, 4, False)]
)
async def test_webhook(
    tmp_path: Path,
    database: str,
    receiver: Receiver,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    answers: list[int],
    posts: int,
    fine: bool,
) -> None:
    """It is posted as JSON, tried again while the answer may pass by itself, and its secret is shown nowhere."""
    monkeypatch.setattr("orchestrator.rollout.hooks._PAUSES", (0.01, 0.01, 0.01))
    monkeypatch.setenv("HOOK_TOKEN", "canary-of-a-webhook")
    receiver.answers = list(answers)
    address = f"http://127.0.0.1:{receiver.server_port}/" + "${HOOK_TOKEN}"
    project = project_of(tmp_path, database, {"after_run": {"webhook": address}})

    result = await project.upgrade()

    assert result.satisfied
    assert len(receiver.bodies) == posts
    path, document = receiver.bodies[-1]
    assert (path, document["event"], document["run"]) == ("/canary-of-a-webhook", "after_run", result.run.id)
    assert ("after_run hook" in caplog.text) is not fine
    assert "canary-of-a-webhook" not in caplog.text + project.text()


async def test_webhook_that_nobody_answers(tmp_path: Path, database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before a run, a webhook that cannot be reached keeps it from beginning."""
    monkeypatch.setattr("orchestrator.rollout.hooks._PAUSES", ())
    with Receiver() as server:
        address = f"http://127.0.0.1:{server.server_port}/"
    project = project_of(tmp_path, database, {"before_run": {"webhook": address}})

    with pytest.raises(HookRefused, match="Connection refused"):
        await project.upgrade()


async def test_after_a_wave_once(tmp_path: Path, database: str) -> None:
    """A wave that waits is not over: what comes after it is told once, of all its tenants; before it, only then."""
    hooks = {"before_wave": {"python": "hooks:note"}, "after_wave": {"python": "hooks:note"}}
    waves = [{"name": "first", "count": 1, "approve": "manual"}]
    project = project_of(tmp_path, database, hooks, waves=waves)

    await project.upgrade()
    assert [each["event"] for each in told(tmp_path)] == ["before_wave"]
    await orchestrator.resume(project.fleet, execution=Execution(approve=True))

    assert [(each["event"], each["wave"], each.get("state")) for each in told(tmp_path)] == [
        ("before_wave", "first", None),
        ("after_wave", "first", "done"),
        ("before_wave", "rest", None),
        ("after_wave", "rest", "done"),
    ]
    assert told(tmp_path)[1]["summary"] == {"succeeded": 1}


@pytest.mark.parametrize("moment", ["before_run", "before_wave", "before_tenant", "after_wave", "after_run"])
@pytest.mark.parametrize("hook", ["sleep 600", {"python": "hooks:hang"}], ids=["command", "python"])
async def test_one_that_hangs_is_cut_off(tmp_path: Path, database: str, moment: str, hook: Any) -> None:
    """Two signals end a run also while it waits for a hook."""
    project = project_of(tmp_path, database, {moment: hook})
    (tmp_path / "hooks.py").write_text(MODULE + "\ndef hang(document):\n    import time\n    time.sleep(600)\n")
    stop = Stop()
    running = asyncio.create_task(project.upgrade(watch=Watch(stop=stop)))
    await _hanging(database, moment)
    stop.request()
    stop.request()

    async with asyncio.timeout(30):
        if moment == "before_run":
            with pytest.raises(HookRefused, match="cut off"):
                await running
        else:
            await running


async def _hanging(url: str, moment: str) -> None:
    """Until what comes before the hook has happened; the hook itself tells nobody."""

    async def through() -> bool:
        if moment.startswith("before"):
            return True
        return all(tables(url, tenant) for tenant in TENANTS)

    await until(through, bool)


async def test_what_it_leaves_behind_holds_up_nobody(tmp_path: Path, database: str) -> None:
    """A command that starts a process in the background is through when it has ended itself."""
    project = project_of(tmp_path, database, {"before_run": "sleep 600 & echo $! > pid"})

    async with asyncio.timeout(30):
        assert (await project.upgrade()).satisfied
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)


async def test_whatever_it_raises(tmp_path: Path, database: str, caplog: pytest.LogCaptureFixture) -> None:
    """sys.exit() in a function is its way to say no, not the end of the process."""
    project = project_of(tmp_path, database, {"before_tenant": {"python": "hooks:leave"}})
    (tmp_path / "hooks.py").write_text(MODULE + "\ndef leave(document):\n    raise SystemExit('not today')\n")

    result = await project.upgrade(execution=Execution(continue_on_error=True))

    assert statuses(result) == dict.fromkeys(TENANTS, "failed")
    assert all("SystemExit: not today" in (each.error or {})["message"] for each in result.tenants)


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("http://127.0.0.1:1/S3CRET TOKEN", "can't contain control characters"),
        ("S3CRETTOKEN", "not an http or https address"),
        ("file:///S3CRETTOKEN", "not an http or https address"),
    ],
)
async def test_addresses_that_are_none(
    tmp_path: Path, database: str, monkeypatch: pytest.MonkeyPatch, address: str, reason: str
) -> None:
    """They are a no, and show nothing of what they hold."""
    monkeypatch.setenv("HOOK", address)
    project = project_of(tmp_path, database, {"before_run": {"webhook": "${HOOK}"}})

    with pytest.raises(HookRefused, match=reason) as refused:
        await project.upgrade()
    assert "S3CRET" not in refused.value.message


async def test_a_redirection_is_no_yes(tmp_path: Path, database: str, receiver: Receiver) -> None:
    """A page to log in on is not what was asked."""
    receiver.answers = [302]
    address = f"http://127.0.0.1:{receiver.server_port}/"
    project = project_of(tmp_path, database, {"before_run": {"webhook": address}})

    with pytest.raises(HookRefused, match="HTTP 302"):
        await project.upgrade()
