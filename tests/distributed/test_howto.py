"""The page about distributed runs is followed, as tests/integration/test_docs.py does it with the others."""

from __future__ import annotations

import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests import documents
from tests.documents import Block, Reader, blocks
from tests.servers import execute
from tests.workspace import REPOSITORY, Workspace

PAGE = "docs/howto/distributed.md"
#: An environment variable that tenants.yaml takes an address from.
_VARIABLE = re.compile(r"\$\{(\w+)\}")


@pytest.fixture
def app(tmp_path: Path) -> Workspace:
    """The example project, with the programs that the page calls."""
    here = tmp_path / "app"
    here.mkdir()
    Workspace.create(here)
    shutil.copy(REPOSITORY / "tenants.yaml", here)
    documents.programs(tmp_path / "bin")
    return Workspace(here)


def environment(app: Workspace, variables: Mapping[str, str]) -> dict[str, str]:
    """What a command of the page sees."""
    path = documents.path_with(app.path.parent / "bin")
    return Workspace.environment({**variables, "PATH": path})


def file(name: str) -> Block:
    """A file that the page shows."""
    (block,) = [block for block in blocks(PAGE) if block.file == name]
    return block


def services() -> dict[str, dict[str, Any]]:
    """Those of the compose file."""
    return dict(yaml.safe_load(file("compose.yaml").text)["services"])


def test_page_can_be_followed(app: Workspace, database: str) -> None:
    """Every command on it ends as it says and prints what it shows; the workers that it starts end with their locks."""
    reader = Reader(app, environment(app, {"DATABASE_URL": database}))
    try:
        for block in blocks(PAGE):
            if block.file is not None:
                reader.write(block)
            if block.language == "console":
                for command in block.commands():
                    reader.type(command)
    finally:
        execute(
            database,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name ~ '^orchestrator worker'",
        )


def test_compose_file(app: Workspace, database: str) -> None:
    """Its services' commands, with the variables that it gives them, are a worker and a run; SIGTERM ends a worker."""
    declared = services()
    reader = Reader(app, environment(app, {"DATABASE_URL": database}))
    reader.write(file("tenants.yaml"))
    assert app.run("upgrade", "1be80d6f3a95", "--provision", env={"DATABASE_URL": database}).returncode == 0

    def command(service: str) -> subprocess.Popen[str]:
        variables = dict.fromkeys(declared[service]["environment"], database)
        return subprocess.Popen(
            shlex.split(declared[service]["command"]),
            cwd=app.path,
            # As it is installed: the program itself gets the signals.
            env=Workspace.environment({**variables, "PATH": documents.path_with(Path(sys.executable).parent)}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    worker = command("worker")
    assert worker.stderr is not None
    try:
        assert worker.stderr.readline().startswith("worker in slot 1: ")
        run = command("upgrade")
        assert run.communicate(timeout=60)[1].count(" succeeded ") == 6
        assert run.returncode == 0
        worker.send_signal(signal.SIGTERM)
        worker.communicate(timeout=60)
        assert worker.returncode == 143
    finally:
        if worker.poll() is None:
            worker.kill()
            worker.communicate()


def test_manifests() -> None:
    """They start what the compose file starts, from the same image, with all variables that tenants.yaml asks for."""
    declared = services()
    deployment, job = yaml.safe_load_all(file("workers.yaml").text)
    assert [(each["apiVersion"], each["kind"]) for each in (deployment, job)] == [
        ("apps/v1", "Deployment"),
        ("batch/v1", "Job"),
    ]
    pods = {"worker": deployment["spec"]["template"], "upgrade": job["spec"]["template"]}
    assert deployment["spec"]["selector"]["matchLabels"].items() <= pods["worker"]["metadata"]["labels"].items()
    # A run that ended badly is not to be begun again by the way.
    assert (job["spec"]["backoffLimit"], pods["upgrade"]["spec"]["restartPolicy"]) == (0, "Never")
    asked = set(_VARIABLE.findall(file("tenants.yaml").text))
    (secret,) = [block.text for block in blocks(PAGE) if "create secret" in block.text]
    for service, pod in pods.items():
        (container,) = pod["spec"]["containers"]
        assert container["args"] == shlex.split(declared[service]["command"])
        assert container["image"] == declared[service]["image"]
        (source,) = container["envFrom"]
        assert f"generic {source['secretRef']['name']} " in secret
        assert asked == set(declared[service]["environment"])
    assert asked == set(re.findall(r"--from-literal=(\w+)=", secret))
