"""Tenants put into tenants.yaml and taken out: what the text is then, who waits for whom, what is refused."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import ConfigurationError
from orchestrator.fleet import replacing
from orchestrator.fleet.load import load
from orchestrator.fleet.registry import entry_of, register, register_all, unregister
from orchestrator.fleet.tenant import Isolation, Tenant
from tests.workspace import REPOSITORY

SERVERS = "servers: {main: postgresql://h/d, eu: postgresql://h2/d}\ndefaults: {server: main}\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A fleet of one, to be written over."""
    path = tmp_path / "tenants.yaml"
    path.write_text(f"{SERVERS}tenants:\n  - a  # the first\n")
    return path


def refused(file: Path, entry: dict[str, Any]) -> ConfigurationError:
    """What registering says; the file stays, and nothing is left beside it."""
    before = file.read_bytes()
    with pytest.raises(ConfigurationError) as caught:
        register(file, entry)
    assert file.read_bytes() == before
    assert sorted(each.name for each in file.parent.iterdir()) == ["tenants.yaml"]
    assert caught.value.hint
    return caught.value


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("tenants:\n  - a  # one\n", "tenants:\n  - a  # one\n  - new\n"),
        ("tenants:\n- a", "tenants:\n- a\n- new"),
        (
            "tenants:\n    - id: a\n      tags: [x]\n\n# end\n",
            "tenants:\n    - id: a\n      tags: [x]\n    - new\n\n# end\n",
        ),
        ("tenants: [a, b]  # all\n", "tenants: [a, b, new]  # all\n"),
        ("tenants: [a, b,]\n", "tenants: [a, b, new,]\n"),
        ("tenants: [\n  a,\n  b  # two\n]\n", "tenants: [\n  a,\n  b,  # two\n  new\n]\n"),
        ("tenants: [\n  a,\n  b,  # two\n]\n", "tenants: [\n  a,\n  b,  # two\n  new,\n]\n"),
        ("tenants: []\n", "tenants: [new]\n"),
        ("tenants: [# none\n]\n", "tenants: [new # none\n]\n"),
        ("tenants:  # none\npolicy: {}\n", "tenants:  # none\n  - new\npolicy: {}\n"),
        ("tenants: ~\n", "tenants: [new]\n"),
        ("policy: {}", "policy: {}\ntenants:\n  - new"),
        ("policy: {}\n...\n", "policy: {}\ntenants:\n  - new\n...\n"),
        ("? tenants\n: - a\n", "? tenants\n: - a\n  - new\n"),
        ("tenants:\r\n  - a\r\n", "tenants:\r\n  - a\r\n  - new\r\n"),
    ],
)
def test_text(file: Path, before: str, after: str) -> None:
    """The new one is written as its neighbours are, and nothing else is touched."""
    file.write_bytes((SERVERS + before).encode())
    assert register(file, {"id": "new"})
    assert file.read_bytes().decode() == SERVERS + after


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("tenants:\n  # about a\n  - a  # one\n  - b\n", "tenants:\n  # about a\n  - b\n"),
        ("tenants:\n  - id: b\n  - id: a\n    # why\n    tags: [x]", "tenants:\n  - id: b"),
        ("tenants: [a, b]\n", "tenants: [b]\n"),
        ("tenants: [b, a, c]\n", "tenants: [b, c]\n"),
        ("tenants: [ a ]\n", "tenants: [  ]\n"),
        ("tenants: [\n  b,  # b\n  a,  # a\n  c,\n]\n", "tenants: [\n  b,  # b\n  c,\n]\n"),
        ("tenants: [\n  b,\n  a\n]\n", "tenants: [\n  b\n]\n"),
        ("tenants:\n- a\npolicy: {}\n", "tenants:\npolicy: {}\n"),
        ("? tenants\n: - a\n  - b\n", "? tenants\n: - b\n"),
    ],
)
def test_text_without(file: Path, before: str, after: str) -> None:
    """Whoever goes takes his own line along, and no other."""
    file.write_text(SERVERS + before)
    assert unregister(file, "a")
    assert file.read_text() == SERVERS + after
    assert not unregister(file, "a")


def test_entry_is_quoted_where_yaml_would_misread_it(file: Path) -> None:
    """What looks like a number, a boolean or syntax comes out as the text that was given."""
    names = ["no", "012", "1e3", "~", "y", 'a "b"', "c: d", "ü", "2027-01-31", "#x", "[x]"]
    assert register_all(file, [{"id": name, "tags": [name]} for name in names]) == len(names)
    assert [tenant.id for tenant in load(file).tenants] == ["a", *names]
    assert '- {id: "012", tags: ["012"]}' in file.read_text()
    assert '- {id: "y", tags: ["y"]}' in file.read_text()  # a boolean to other readers


def test_the_same_again(file: Path) -> None:
    """The same tenant in other words is the same; the file is not even written."""
    register(file, {"id": "b", "tags": ["x"]})
    before = file.stat()
    assert not register(file, {"id": "b", "schema": "b", "server": "main", "isolation": "schema", "tags": ("x",)})
    assert (file.stat().st_ino, file.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert register_all(file, [{"id": "b", "tags": ["x"]}, {"id": "c"}]) == 1


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"id": "a", "schema": "x"}, ":4: tenant `a` is here already, and not as {id: a, schema: x}"),
        ({"id": "b", "schema": "a"}, ":4: tenant `b` cannot be registered: tenant `b` would be migrated in the place"),
        ({"id": "b", "server": "mian"}, "unknown server `mian`"),
        ({"id": "b", "schem": "x"}, "unknown key `schem`"),
        ({"id": "x" * 64}, "64 bytes"),
        ({"schema": "b"}, "`id` is missing"),
        ({"id": 12}, "must be text"),
        ({"id": "b", "pin": "x", "reason": "\ud800"}, "found invalid Unicode character"),
        ({"id": "a", "url": "postgresql://u:geheim@h/d"}, "is here already, and not as {id: a, url:"),
    ],
)
def test_refused(file: Path, entry: dict[str, Any], message: str) -> None:
    """A taken id or place, and what is no tenant: told with the line where it stands, no password in it."""
    error = refused(file, entry)
    assert message in error.message
    assert "geheim" not in f"{error.message}{error.hint}"


def test_all_or_none(file: Path) -> None:
    """In bulk, everything that is wrong is told, and nothing is written."""
    before = file.read_bytes()
    with pytest.raises(ConfigurationError) as caught:
        register_all(file, [{"id": "b"}, {"id": "c", "server": "mian"}, {"id": "d", "isolation": "file"}])
    assert "tenant `c`" in caught.value.message
    assert "tenant `d`" in caught.value.message
    with pytest.raises(ConfigurationError, match="taken already"):
        register_all(file, [{"id": "b"}, {"id": "b", "schema": "c"}])
    assert file.read_bytes() == before


def test_own_server(file: Path) -> None:
    """A tenant with an address of its own brings a server, and takes it along."""
    before = file.read_bytes()
    assert register(file, {"id": "b", "url": "postgresql://${USER}@h3/b"})
    assert load(file).servers["b"].own
    assert not register(file, {"id": "b", "url": "postgresql://${USER}@h3/b"})
    assert "not as" in refused(file, {"id": "b", "url": "postgresql://h4/b"}).message
    assert unregister(file, "b")
    assert file.read_bytes() == before


@pytest.mark.parametrize("text", ["tenants: [", "", "servers: {}\ntenants: [a]\n", f"{SERVERS}tenants: [a, a]\n"])
def test_invalid_as_it_is(file: Path, text: str) -> None:
    """A file that is wrong already is not touched: its own error is told, with its line."""
    file.write_text(text)
    assert refused(file, {"id": "b"}).line
    with pytest.raises(ConfigurationError):
        unregister(file, "a")


def test_what_cannot_be_edited(file: Path) -> None:
    """Where one more line would change what is there, the file stays, and says what to do by hand."""
    file.write_text(f"{SERVERS}tenants:\n  - id: a\n    pin: x\n    reason: |\n      why")
    error = refused(file, {"id": "b"})
    assert "cannot edit" in error.message
    assert error.hint == "edit it by hand: add b"


def test_mode_owner_and_link(file: Path, tmp_path: Path) -> None:
    """Mode and owner stay, and a link stays a link."""
    real = tmp_path / "real"
    real.mkdir()
    target = file.rename(real / "t.yaml")
    target.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(target, 12345, 54321)
    owner = target.stat().st_uid, target.stat().st_gid
    file.symlink_to(Path("real") / "t.yaml")
    assert register(file, {"id": "b"})
    assert file.is_symlink()
    assert [tenant.id for tenant in load(target).tenants] == ["a", "b"]
    assert target.stat().st_mode & 0o7777 == 0o640
    assert (target.stat().st_uid, target.stat().st_gid) == owner
    assert list(real.iterdir()) == [target]


ADD = """
import sys
from pathlib import Path
from orchestrator.fleet.registry import register, unregister
path, name = Path(sys.argv[1]), sys.argv[2]
for number in range(10):
    register(path, {"id": f"{name}-{number}"})
    if number % 2:
        unregister(path, f"{name}-{number}")
"""


def test_many_at_once(file: Path) -> None:
    """Processes and threads that register and unregister at once lose nobody."""
    processes = [
        subprocess.Popen([sys.executable, "-c", ADD, str(file), f"p{number}"], cwd=REPOSITORY) for number in range(4)
    ]
    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(lambda number: register(file, {"id": f"t{number}"}), range(24)))
    assert [process.wait(timeout=60) for process in processes] == [0] * 4
    expected = {"a", *(f"t{number}" for number in range(24))}
    expected |= {f"p{process}-{number}" for process in range(4) for number in range(0, 10, 2)}
    tenants = [tenant.id for tenant in load(file).tenants]
    assert len(tenants) == len(expected)
    assert set(tenants) == expected
    assert list(file.parent.iterdir()) == [file]


def test_saved_in_an_editor_meanwhile(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What somebody saves who knows no lock, between reading and writing, is kept."""
    make_alike, saved = replacing._make_alike, []

    def save(target: Path, descriptor: int) -> None:
        if not saved:
            saved.append(target)
            file.write_text(file.read_text() + "  - by-hand\n")
        make_alike(target, descriptor)

    monkeypatch.setattr(replacing, "_make_alike", save)
    assert register(file, {"id": "b"})
    assert [tenant.id for tenant in load(file).tenants] == ["a", "by-hand", "b"]


def test_lock_that_is_held(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits too long for somebody else says whose lock it is."""
    monkeypatch.setattr(replacing, "_PATIENCE", 0.0)
    with replacing._locked(file, str(file)), pytest.raises(ConfigurationError, match="another process") as caught:
        register(file, {"id": "b"})
    assert caught.value.hint == f"see who it is: fuser {file.parent / '.tenants.yaml.lock'}"


def test_lock_that_was_taken_away(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock file that its holder removed, while somebody was opening it, locks nothing: the new one counts."""
    lock, flock, held = file.parent / ".tenants.yaml.lock", fcntl.flock, []

    def late(descriptor: int, operation: int) -> None:
        if not held:
            lock.unlink()
            held.append(os.open(lock, os.O_RDWR | os.O_CREAT))
            flock(held[0], fcntl.LOCK_EX)
        flock(descriptor, operation)

    monkeypatch.setattr(replacing.fcntl, "flock", late)
    monkeypatch.setattr(replacing, "_PATIENCE", 0.0)
    with pytest.raises(ConfigurationError, match="another process"):
        register(file, {"id": "b"})
    os.close(held[0])


AS_ANOTHER = """
import os, resource, sys
from pathlib import Path
from orchestrator.errors import ConfigurationError
from orchestrator.fleet.load import load
from orchestrator.fleet.registry import register
load(sys.argv[1])  # imports what it needs while it still may
if sys.argv[2] == "full":
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200))
elif os.geteuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
try:
    register(Path(sys.argv[1]), {"id": "b", "pin": "x", "reason": "why " * 100})
except ConfigurationError as error:
    print(error.message, error.hint)
"""


@pytest.mark.parametrize(
    ("what", "message"),
    [("full", "File too large"), ("file", "Permission denied"), ("directory", "Permission denied")],
)
def test_cannot_be_written(file: Path, what: str, message: str) -> None:
    """A full disk, a read-only file, a read-only directory: told, and the file is as it was, alone."""
    with tempfile.TemporaryDirectory() as directory:  # tmp_path lets no other user through
        file = file.rename(Path(directory) / "tenants.yaml")
        cannot_be_written(file, what, message)


def cannot_be_written(file: Path, what: str, message: str) -> None:
    file.chmod(0o444 if what == "file" else 0o666)
    file.parent.chmod(0o555 if what == "directory" else 0o777)
    before = file.read_bytes()
    said = subprocess.run(
        [sys.executable, "-c", AS_ANOTHER, str(file), what], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    file.parent.chmod(0o755)
    assert f"cannot be changed, and is as it was: {message}" in said.stdout, said.stderr
    assert "ls -l" in said.stdout
    assert file.read_bytes() == before
    assert list(file.parent.iterdir()) == [file]


def test_no_such_file(tmp_path: Path) -> None:
    """There has to be a file: one tenant makes no fleet without servers."""
    with pytest.raises(ConfigurationError, match="No such file"):
        register(tmp_path / "tenants.yaml", {"id": "a"})
    assert list(tmp_path.iterdir()) == []


FLEET = """
servers: {main: postgresql://h/d, eu: postgresql://h2/d, lite: sqlite:///data}
defaults: {server: main, tags: [free]}
tenants: [first]
"""


@pytest.mark.parametrize(
    "entry",
    [
        {"id": "a"},
        {"id": "a", "tags": []},
        {"id": "a", "tags": ["eu"], "server": "eu"},
        {"id": "a", "schema": "b", "database": "d2", "target": "tenant@head"},
        {"id": "a", "isolation": "database"},
        {"id": "a", "isolation": "database", "database": "b", "schema": "s"},
        {"id": "a", "server": "lite"},
        {"id": "a", "server": "lite", "file": "data/b.db"},
        {"id": "a", "server": "lite", "file": "/srv/b.db"},
        {"id": "a", "url": "postgresql://${PW:-x}@h3/a"},
        {"id": "a", "url": "sqlite:///own.db"},
        {"id": "a", "isolation": "schema", "url": "postgresql://h3/a"},
        {
            "id": "a",
            "pin": "abc",
            "reason": "why",
            "until": date(2027, 1, 31),
            "lock_timeout": 2,
            "statement_timeout": 0.5,
        },
    ],
)
def test_shortest_entry(tmp_path: Path, entry: dict[str, Any]) -> None:
    """What the defaults say anyway is left out, and nothing else."""
    path = tmp_path / "tenants.yaml"
    path.write_text(FLEET)
    register(path, entry)
    fleet = load(path)
    found = entry_of(fleet.tenants[-1], fleet)
    assert {**found, "isolation": None} == {**entry, "isolation": None}
    assert not register(path, found)


def test_entry_of_nobody(file: Path) -> None:
    """A tenant that no entry means is refused."""
    with pytest.raises(ConfigurationError, match="cannot be written"):
        entry_of(Tenant("x", "nowhere", Isolation.SCHEMA, schema="x"), load(file))
