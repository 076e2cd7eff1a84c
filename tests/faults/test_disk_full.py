"""A full disk concerns the tenants whose tables lie on it: they fail whole, the others go on, `resume` does them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

import orchestrator
from orchestrator.databases.server_binaries import server_account
from tests.projects import ALL, make_project, one, schemas, statuses, tables
from tests.servers import PostgresServer, execute, fetch

TENANTS = ["a", "b", "c", "d", "e", "f"]
#: Those whose rows lie on the disk that will be full.
THERE = ["c", "f"]
NOTES = 'op.create_table("notes", sa.Column("id", sa.Integer), sa.Column("text", sa.Text))'
#: A table, and then 400 kB of rows, for which there is no room.
FILL = """
op.create_table("tags", sa.Column("id", sa.Integer))
op.execute("INSERT INTO notes SELECT n, repeat(md5(n::text), 30) FROM generate_series(1, 400) n")
"""


@dataclass(frozen=True, slots=True)
class SmallTablespace:
    """A tablespace on a file system of 8 MB, which somebody else's file fills up."""

    url: str
    mount: Path

    def fill(self, tables: Sequence[str]) -> None:
        """Move them there; then write until the file system says that it is full."""
        execute(self.url, "".join(f"ALTER TABLE {table} SET TABLESPACE small;" for table in tables))
        with suppress(OSError), (self.mount / "others").open("wb", buffering=0) as others:
            while others.write(bytes(4096)):
                pass
        room = os.statvfs(self.mount)
        assert room.f_bfree == 0

    def make_room(self) -> None:
        """Somebody tidies up."""
        (self.mount / "others").unlink()


@dataclass(slots=True)
class FullDevice:
    """The kernel's always full device in place of the tables' files: a real ENOSPC where nobody may mount."""

    url: str
    datadir: Path
    #: Where the tables' own files were, and where they are meanwhile.
    moved: dict[Path, Path]

    def fill(self, tables: Sequence[str]) -> None:
        """Put the device where their files are. Checkpointed first: nothing is owed to the old ones."""
        execute(self.url, "CHECKPOINT")
        for table in tables:
            ((relative,),) = fetch(self.url, f"SELECT pg_relation_filepath('{table}')")
            file = self.datadir / relative
            assert file.stat().st_size == 0, "only an empty file can be stood in for: the device has no length"
            self.moved[file] = file.rename(file.with_name(f"{file.name}.away"))
            file.symlink_to("/dev/full")

    def make_room(self) -> None:
        """Put the files back."""
        for file, away in self.moved.items():
            away.replace(file)


Disk = SmallTablespace | FullDevice


@contextmanager
def small_tablespace(server: PostgresServer, url: str) -> Iterator[SmallTablespace]:
    """Mount a file system beside the server's data, as the server's account owns it."""
    mount = server.embedded.datadir.parent / "small"
    mount.mkdir()
    account = server_account()
    owner = f",uid={account.pw_uid},gid={account.pw_gid}" if account is not None else ""
    command = ["mount", "-t", "tmpfs", "-o", f"size=8m,mode=700{owner}", "tmpfs", str(mount)]
    mounted = subprocess.run(command, check=False, capture_output=True, text=True)
    try:
        if mounted.returncode != 0:
            # The other way is taken in any case, so disk full is never without its test.
            pytest.skip(f"nothing may be mounted here: {mounted.stderr.strip()}")
        execute(url, f"CREATE TABLESPACE small LOCATION '{mount}'")
        yield SmallTablespace(url, mount)
        server.drop_database(url)
        execute(server.url, "DROP TABLESPACE small")
    finally:
        subprocess.run(["umount", "--lazy", str(mount)], check=False, capture_output=True)
        mount.rmdir()


@pytest.fixture(params=["tablespace", "device"])
def disk(request: pytest.FixtureRequest, second_pg: PostgresServer) -> Iterator[Disk]:
    """A disk of a server of our own, and a database on that server."""
    url = second_pg.create_database()
    if request.param == "tablespace":
        with small_tablespace(second_pg, url) as small:
            yield small
    else:
        device = FullDevice(url, second_pg.embedded.datadir, {})
        yield device
        second_pg.drop_database(url)


def rows(url: str, tenant: str) -> int:
    """How many notes a tenant has."""
    return int(fetch(url, f"SELECT count(*) FROM {tenant}.notes")[0][0])


@pytest.mark.parametrize("replay", [True, False], ids=["replay", "alembic"])
async def test_only_tenants_on_it_are_affected(tmp_path: Path, disk: Disk, replay: bool) -> None:
    """They fail at once with the cause and what to do, and are as before; the rest is done, and they are, after it."""
    project = make_project(tmp_path, {"r1": NOTES, "r2": FILL}, schemas(disk.url, *TENANTS, policy={"retries": 4}))
    await project.upgrade("r1")
    disk.fill([f"{tenant}.notes" for tenant in THERE])

    result = await project.upgrade(execution=replace(ALL, replay=replay))

    assert statuses(result) == {tenant: "failed" if tenant in THERE else "succeeded" for tenant in TENANTS}
    for tenant in THERE:
        failed = one(result, tenant)
        assert (failed["error"]["sqlstate"], failed["error"]["revision"]) == ("53100", "r2"), failed
        assert "No space left on device" in failed["error"]["message"]
        assert "orchestrator resume" in failed["error"]["hint"]
        # What a full disk needs is a person: each try would only write it full again.
        assert failed["attempts"] == 1
        assert (failed["from"], failed["to"]) == (["r1"], ["r1"])
        assert (tables(disk.url, tenant), rows(disk.url, tenant)) == ({"alembic_version", "notes"}, 0)
    (cause,) = result.causes
    assert (cause.count, "tablespace" in cause.hint) == (len(THERE), True)

    disk.make_room()
    finished = await orchestrator.resume(project.fleet)

    assert statuses(finished) == dict.fromkeys(TENANTS, "succeeded"), finished.as_json()
    assert {rows(disk.url, tenant) for tenant in TENANTS} == {400}
