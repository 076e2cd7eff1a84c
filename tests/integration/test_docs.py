"""The documentation is executed: every command with its output and exit code, every file, every line of Python."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from orchestrator.databases.server_binaries import find_binaries
from tests import documents
from tests.documents import HISTORY_PAGE, PAGES, Command, Reader, blocks
from tests.servers import PostgresServer, execute, fetch, start_own_server
from tests.workspace import REPOSITORY, Workspace

#: Pages that begin in an empty directory; the others in a copy of this repository's project.
FROM_NOTHING = {
    "docs/quickstart.md",
    "docs/howto/adopt.md",
    "docs/howto/autogenerate.md",
    "docs/howto/shared-schema.md",
}
#: This page shows a part of what `orchestrator demo` prints.
DEMO_PAGE = "README.md"
#: This page needs DBOS: tests/distributed/test_howto.py follows it.
DISTRIBUTED_PAGE = "docs/howto/distributed.md"
#: This page's Python is run.
PYTHON_PAGE = "docs/python.md"


@dataclass(frozen=True, slots=True)
class Servers:
    """Two servers of our own: pages make databases of fixed names."""

    main: PostgresServer
    eu: PostgresServer


@pytest.fixture(scope="module")
def two_servers() -> Iterator[Servers]:
    """Started for this file, because a shared server might have a database called app."""
    servers = Servers(start_own_server(), start_own_server())
    yield servers
    for server in (servers.main, servers.eu):
        assert server.embedded is not None
        server.embedded.stop()


@pytest.fixture
def reader(two_servers: Servers, tmp_path: Path) -> Iterator[Reader]:
    """Somebody with a shell in an empty directory, with two servers that have nothing on them yet."""
    here = tmp_path / "app"
    here.mkdir()
    main, eu = two_servers.main, two_servers.eu
    bindir = os.environ.get("TEST_PG_BINDIR")
    environment = Workspace.environment(
        {
            "DATABASE_URL": main.database_url("app"),
            "MAIN_URL": main.database_url("app"),
            "EU_URL": eu.database_url("app"),
            # The servers' own psql and pg_dump: others might be older than the servers.
            "PATH": documents.path_with(
                documents.programs(tmp_path / "bin"), find_binaries(Path(bindir) if bindir else None)
            ),
        }
    )
    assert main.embedded is not None
    assert eu.embedded is not None
    said_as = {str(here): "/srv/app", f":{main.embedded.port}": ":5432", f":{eu.embedded.port}": ":5433"}
    yield Reader(Workspace(here), environment, said_as)
    for server in (main, eu):
        for (name,) in fetch(server.url, "SELECT datname FROM pg_database WHERE NOT datistemplate"):
            if name != "postgres":
                execute(server.url, f'DROP DATABASE "{name}" WITH (FORCE)')


def follow(reader: Reader, page: str) -> None:
    """Do everything on a page, from top to bottom."""
    for block in blocks(page):
        if block.file is not None:
            reader.write(block)
        if block.language == "console":
            for command in block.commands():
                reader.type(command)


def begin_with_project(reader: Reader) -> None:
    """Give the reader a copy of this repository's project."""
    Workspace.create(reader.workspace.path)
    shutil.copy(REPOSITORY / "tenants.yaml", reader.workspace.path)


@pytest.mark.parametrize(
    "page",
    [
        page
        for page in PAGES
        if page not in (DEMO_PAGE, DISTRIBUTED_PAGE) and any(block.language == "console" for block in blocks(page))
    ],
)
def test_page_can_be_followed(reader: Reader, page: str) -> None:
    """Every command on the page ends as the page says and prints what the page shows; every file on it is used."""
    if page not in FROM_NOTHING:
        begin_with_project(reader)
    follow(reader, page)


def test_history_page_can_be_followed(reader: Reader) -> None:
    """Every line of shell in the shared history's own page succeeds, in order, on a fleet that has nothing yet."""
    begin_with_project(reader)
    for block in blocks(HISTORY_PAGE):
        if block.language == "sh":
            for number, line in enumerate(block.text.splitlines()):
                reader.type(Command(f"{block.page}:{block.line + number}", line, 0, ""))


def test_readme_shows_the_demo(reader: Reader) -> None:
    """What README.md shows is a part of what the demo prints; only how many tenants were through may differ."""
    (block,) = [block for block in blocks(DEMO_PAGE) if block.language == "console"]
    (shown,) = block.commands()
    result = reader.run("orchestrator demo")
    assert result.returncode == 0, result.stderr
    after = result.stdout.partition(f"$ {shown.text}\n")[2].partition("\n$ ")[0].partition("\n# ")[0]
    assert after, f"the demo does not run: {shown.text}"
    same = re.compile(r"\d+ (succeeded|not_started)")
    reader.compare(
        Command(shown.place, shown.text, 1, same.sub(r"N \1", shown.shown)), same.sub(r"N \1", after).strip("\n")
    )


#: Runs the blocks on stdin, a Python list, in one module and on one event loop; says where it is before each.
RUNNER = """
import ast, asyncio, inspect, sys
names = {"__name__": "__main__"}
with asyncio.Runner() as runner:
    for place, text in ast.literal_eval(sys.stdin.read()):
        print(f"== {place}", flush=True)
        code = compile(text, place, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        if code.co_flags & inspect.CO_COROUTINE:
            async def run(code=code):
                await eval(code, names)
            runner.run(run())
        else:
            exec(code, names)
"""


def test_python_page_runs(reader: Reader) -> None:
    """The blocks of docs/python.md run one after another, and print what the comments behind print() say."""
    begin_with_project(reader)
    parts = [block for block in blocks(PYTHON_PAGE) if block.language == "python"]
    result = subprocess.run(
        [sys.executable, "-c", RUNNER],
        input=repr([(part.place, part.text) for part in parts]),
        cwd=reader.workspace.path,
        env=dict(reader.environment),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, f"{result.stdout[-500:]}\n{result.stderr[-3000:]}"
    printed = result.stdout.split("== docs/")[1:]
    for part, output in zip(parts, printed, strict=True):
        shown = re.findall(r"^ *print\(.*\)  # (.+)$", part.text, re.MULTILINE)
        reader.compare(Command(part.place, "python", 0, "\n".join(shown)), output.partition("\n")[2].strip("\n"))
