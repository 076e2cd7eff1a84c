"""drift: every kind of difference is found and told, none is invented, and what is suggested takes it away."""

from __future__ import annotations

import asyncio
import socket
import sqlite3
from contextlib import closing
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import pytest

import orchestrator
from orchestrator.databases.postgresql import looking
from orchestrator.databases.postgresql.shapes.fingerprint import fingerprint_tenants
from tests.command_line import FIRST, SECOND, THIRD, Project, assert_error
from tests.drifting import PLANTS, carry_out, drifting, plant
from tests.projects import make_project, schemas
from tests.servers import execute, fetch
from tests.workspace import Workspace

TENANTS = [f"t{number:03}" for number in range(1, 301)]
#: Every sixth tenant is odd, or at least not as the others are.
ODD = dict(zip(TENANTS[::6], islice(cycle(PLANTS), len(TENANTS[::6])), strict=True))


def lines_of(document: Any) -> dict[str, list[str]]:
    """What is told of each odd tenant."""
    return {each["tenant"]: each["difference"] for each in document["odd"]}


async def test_every_kind_of_drift_in_some_of_300(project: Project) -> None:
    """All that was planted is found, in those tenants and no others; carrying the suggestions out takes it away."""
    drifting(project, TENANTS)
    assert project.json("drift")["summary"] == {"identical": 300, "accepted": 0, "odd": 0, "not_compared": 0}
    for tenant, kind in ODD.items():
        plant(project, tenant, PLANTS[kind].sql)
    document = project.json("drift", exit_code=3, timeout=120)
    expected = {tenant: list(PLANTS[kind].told) for tenant, kind in ODD.items() if PLANTS[kind].told}
    assert lines_of(document) == expected
    assert document["not_compared"] == []
    shapes = {shape["example"]: shape for shape in document["shapes"]}
    assert shapes[TENANTS[1]]["tenants"] == 300 - len(expected)
    assert {shape["fingerprint"] for shape in shapes.values()} >= {each["fingerprint"] for each in document["odd"]}
    mended = set()
    for kind, planted in PLANTS.items():
        tenants = [tenant for tenant, there in ODD.items() if there == kind]
        if not planted.told:
            continue
        shape = shapes[tenants[0]]
        assert shape["tenants"] == len(tenants), kind
        lines = shape["operations"]
        for line, start in zip(lines, planted.operations, strict=planted.operations[-1] != "..."):
            assert start == "..." or line.startswith(start), (kind, lines)
        if not any(line.startswith("#") for line in lines):
            await carry_out(project.url, tenants[0], lines)
            mended.add(tenants[0])
    again = lines_of(project.json("drift", exit_code=3, timeout=120))
    assert again.keys() == expected.keys() - mended


SIX = ["acme", "bluebird", "cobalt", "dunes", "evergreen", "foxtrot"]


@pytest.fixture
def six(project: Project) -> Project:
    """Six tenants with one of each kind of object, all alike."""
    drifting(project, SIX)
    return project


def more_keys(project: Project, text: str) -> None:
    """Add top-level keys to tenants.yaml."""
    file = project.workspace.path / "tenants.yaml"
    file.write_text(f"{file.read_text()}{text}\n")


def test_what_is_ignored_is_as_the_reference(six: Project) -> None:
    """Who differs only in what tenants.yaml ignores is identical, and counted; what else differs is still told."""
    plant(six, "acme", "CREATE INDEX tmp_note ON invoices (note); CREATE TABLE import_1 (id serial PRIMARY KEY)")
    plant(six, "bluebird", "CREATE INDEX tmp_id ON invoices (id)")
    plant(six, "cobalt", "CREATE INDEX tmp_note ON invoices (note); CREATE INDEX kept ON invoices (note)")
    plant(six, "dunes", "ALTER TABLE invoices DROP CONSTRAINT uq_number")
    more_keys(
        six, "drift: {ignore: [{kind: index, name: 'tmp_*'}, {table: 'import_*'}, {kind: constraint, name: uq_number}]}"
    )
    document = six.json("drift", exit_code=3)
    told = "extra index kept on invoices: CREATE INDEX kept ON invoices USING btree (note)"
    assert lines_of(document) == {"cobalt": [told]}
    identical = document["shapes"][0]
    assert (identical["tenants"], identical["ignored"], identical["difference"]) == (5, 3, [])
    shown = six.run("drift").stdout.splitlines()
    assert shown[0] == "5 identical (3 but for what is ignored); 1 unique"


def test_a_baseline_is_accepted_until_something_else_differs(six: Project) -> None:
    """What was saved is normal, also after everybody was migrated; another difference of the same tenant is odd."""
    for tenant in ("acme", "bluebird"):
        plant(six, tenant, "CREATE INDEX ix_note ON invoices (note)")
    assert six.run("drift", "--save", "normal.json").returncode == 0
    document = six.json("drift", "--baseline", "normal.json")
    assert document["summary"] == {"identical": 4, "accepted": 2, "odd": 0, "not_compared": 0}
    six.revision(SECOND, FIRST, "op.add_column('accounts', sa.Column('vip', sa.Boolean))")
    six.json("upgrade")
    assert six.json("drift", "--baseline", "normal.json")["summary"]["accepted"] == 2
    plant(six, "acme", "ALTER TABLE accounts DROP COLUMN vip")
    document = six.json("drift", "--baseline", "normal.json", exit_code=3)
    assert lines_of(document).keys() == {"acme"}
    assert six.run("drift").returncode == 3


def test_bad_baselines(six: Project) -> None:
    """A file that is not there, is no baseline, or was made against another reference is told with what to type."""
    assert_error(
        six.run("drift", "--baseline", "none.json"), "no file none.json", "orchestrator drift --save none.json"
    )
    six.workspace.write("other.json", '{"saved": 1}')
    assert_error(six.run("drift", "--baseline", "other.json"), "is not a baseline")
    six.workspace.write("list.json", '{"drift_baseline": 1, "reference": "revisions", "accepted": [3]}')
    assert_error(six.run("drift", "--baseline", "list.json"), "is not a baseline")
    six.run("drift", "--save", "normal.json", "--against", "acme")
    assert_error(six.run("drift", "--baseline", "normal.json"), "made against tenant acme, not against the revisions")
    assert_error(six.run("drift", "--save", "nowhere/normal.json"), "cannot write nowhere/normal.json")


def test_a_bad_baseline_asks_no_server(tmp_path: Path) -> None:
    """Whoever has mistyped it is told at once: nobody connects."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"postgresql://nobody@127.0.0.1:{server.getsockname()[1]}/app"
        # The server has to be asked who there is.
        asks = [{"schemas": "t_*", "server": "main"}]
        project = make_project(tmp_path, {"r1": "pass"}, schemas(url, sources=asks))
        (tmp_path / "other.json").write_text('{"saved": 1}')
        for name, told in (("none.json", "no file none.json"), ("other.json", "is not a baseline")):
            assert_error(Workspace(project.path).run("drift", "--baseline", name), told)
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.accept()


def test_each_is_held_against_the_revisions_at_its_own_heads(six: Project) -> None:
    """Being behind is no drift, nor is a branch; what differs at an older revision, or at two heads, is found."""
    six.revision(SECOND, FIRST, "op.add_column('accounts', sa.Column('vip', sa.Boolean))")
    six.revision(THIRD, FIRST, "op.add_column('accounts', sa.Column('age', sa.Integer))")
    six.json("upgrade", SECOND, "-t", "acme", "-t", "bluebird")
    six.json("upgrade", THIRD, "-t", "cobalt")
    six.json("upgrade", "heads", "-t", "dunes")
    six.revision("d4d4d4d4d4d4", (SECOND, THIRD), "op.add_column('accounts', sa.Column('last', sa.Integer))")
    assert six.json("drift")["summary"]["identical"] == 6
    plant(six, "bluebird", "ALTER TABLE accounts ALTER vip SET NOT NULL")
    plant(six, "dunes", "ALTER TABLE accounts DROP vip")
    plant(six, "evergreen", "ALTER TABLE accounts ADD vip boolean")
    assert lines_of(six.json("drift", exit_code=3)) == {
        "bluebird": ["column accounts.vip is NOT NULL"],
        "dunes": ["missing column accounts.vip: boolean"],
        "evergreen": ["extra column accounts.vip: boolean"],
    }


def test_before_the_first_revision(project: Project) -> None:
    """An empty schema is right where it is, with or without the empty version table that a downgrade leaves."""
    project.fleet("acme", "bluebird", "cobalt")
    project.json("upgrade", "-t", "acme")
    project.json("downgrade", "base", "-t", "acme", "--yes", "--allow-data-loss")
    plant(project, "cobalt", "CREATE TABLE left_over (id int)")
    document = project.json("drift", exit_code=3)
    assert lines_of(document) == {"cobalt": ["extra table left_over (1 column)"]}
    assert document["summary"]["identical"] == 2


def test_who_cannot_be_compared_is_named(six: Project) -> None:
    """Missing, unreachable and unknown tenants are in the answer with their reason; exit code 1 where nobody is odd."""
    file = six.workspace.path / "tenants.yaml"
    away = "  - {id: away, url: 'postgresql://nobody@127.0.0.1:9/none'}\n  - {id: missing}\n"
    file.write_text(f"{file.read_text()}{away}")
    six.execute("UPDATE bluebird.alembic_version SET version_num = 'feedfeedfeed'")
    document = six.json("drift", exit_code=1)
    states = {each["tenant"]: each["state"] for each in document["not_compared"]}
    assert states == {"bluebird": "unknown_revision", "away": "unreachable", "missing": "unprovisioned"}
    assert document["summary"] == {"identical": 5, "accepted": 0, "odd": 0, "not_compared": 3}
    result = six.run("drift")
    assert result.returncode == 1
    assert result.stdout.splitlines()[0] == "5 identical; 3 not compared"
    assert "1 tenant unprovisioned: missing" in result.stdout
    plant(six, "acme", "DROP INDEX ix_invoices_account_id")
    assert six.run("drift").returncode == 3


def test_where_the_revisions_make_nothing(six: Project) -> None:
    """Where the directory does not lead from nothing to a tenant's heads, that is said, with what to do instead."""
    (six.versions / f"{FIRST}.py").write_text((six.versions / f"{FIRST}.py").read_text().replace("CREATE TYPE", "MAKE"))
    document = six.json("drift", exit_code=1)
    assert {each["state"] for each in document["not_compared"]} == {"no_reference"}
    assert "--against TENANT" in document["not_compared"][0]["error"]["hint"]
    plant(six, "acme", "DROP INDEX ix_invoices_account_id")
    assert lines_of(six.json("drift", "--against", "bluebird", exit_code=3)).keys() == {"acme"}


def test_against_a_tenant(six: Project) -> None:
    """A real tenant is the reference for those at its heads; others are named, and so is one that there is not."""
    for tenant in SIX[1:]:
        plant(six, tenant, "CREATE INDEX ix_note ON invoices (note)")
    document = six.json("drift", "--against", "bluebird", exit_code=3)
    assert document["reference"] == "bluebird"
    told = "missing index ix_note on invoices: CREATE INDEX ix_note ON invoices USING btree (note)"
    assert lines_of(document) == {"acme": [told]}
    assert six.json("drift", "--against", "bluebird", "-t", "c*", "-t", "d*")["summary"]["identical"] == 2
    six.revision(SECOND, FIRST, "op.add_column('accounts', sa.Column('vip', sa.Boolean))")
    six.json("upgrade", "-t", "acme")
    (left,) = six.json("drift", "--against", "bluebird", exit_code=1)["not_compared"]
    assert (left["tenant"], left["state"]) == ("acme", "not_alike")
    assert_error(six.run("drift", "--against", "blubird"), "no tenant 'blubird'", "did you mean 'bluebird'?")


async def test_a_tenant_migrated_meanwhile_is_not_odd(six: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Heads and shape are read one after the other; who is migrated in between is named, and not called odd."""
    six.revision(SECOND, FIRST, "op.add_column('accounts', sa.Column('vip', sa.Boolean))")

    async def migrate_and_fingerprint(raw: Any, tenants: Any, *others: Any) -> Any:
        if len(tenants) == len(SIX):
            await asyncio.to_thread(six.json, "upgrade", "-t", "acme")
        return await fingerprint_tenants(raw, tenants, *others)

    monkeypatch.setattr(looking, "fingerprint_tenants", migrate_and_fingerprint)
    report = await orchestrator.drift(orchestrator.load(six.workspace.path / "tenants.yaml"))
    assert [(each.tenant, each.state) for each in report.not_compared] == [("acme", "moved")]
    assert (report.odd, report.exit_code) == ((), 1)


def test_a_restored_tenant_is_not_odd(six: Project) -> None:
    """What comes out of a backup is printed otherwise by PostgreSQL (IN over a varchar), and is the same."""
    six.json("backup", "--to", "saved", "-t", "acme")
    (dump,) = (six.workspace.path / "saved").rglob("*.dump")
    six.json("restore", str(dump), "-t", "acme", "--yes", "--allow-data-loss")
    document = six.json("drift")
    assert document["summary"]["identical"] == 6
    assert document["shapes"][0]["ignored"] == 0
    # Otherwise this would prove nothing: its digest is another one.
    (alone,) = six.json("drift", "--against", "acme", "-t", "acme")["shapes"]
    assert alone["fingerprint"] != document["shapes"][0]["fingerprint"]


def test_nothing_is_left_behind(six: Project) -> None:
    """The scratch tenant is gone afterwards, and no tenant was touched."""
    before = six.catalog()
    six.json("drift")
    assert six.catalog() == before


def test_what_somebody_paged_sees(six: Project) -> None:
    """The first line says how bad it is; then each shape, its tenants, each object and what would undo it."""
    for tenant in ("acme", "bluebird", "cobalt"):
        plant(six, tenant, "CREATE INDEX ix_note ON invoices (note)")
    plant(six, "dunes", "ALTER TABLE invoices DISABLE TRIGGER touched")
    result = six.run("drift")
    assert result.returncode == 3
    assert result.stdout == (
        "2 identical; 3 share one extra index; 1 unique\n\n"
        f"3 tenants at {FIRST}: acme, bluebird, cobalt\n"
        "  extra index ix_note on invoices: CREATE INDEX ix_note ON invoices USING btree (note)\n"
        '      op.drop_index("ix_note", table_name="invoices")\n\n'
        f"1 tenant at {FIRST}: dunes\n"
        "  trigger touched on invoices is disabled\n"
        '      op.execute("ALTER TABLE invoices ENABLE TRIGGER touched")\n'
    )


def test_rules_are_checked(six: Project) -> None:
    """A rule that would ignore everything, or names no kind of object, is an error with its line."""
    more_keys(six, "drift: {ignore: [{}]}")
    assert_error(six.run("drift"), "would ignore everything")
    file = six.workspace.path / "tenants.yaml"
    file.write_text(file.read_text().replace("[{}]", "[{kind: indx}]"))
    assert_error(six.run("drift"), "`indx` is no kind", "did you mean `index`?")
    file.write_text(file.read_text().replace("kind: indx", "nme: x"))
    assert_error(six.run("drift"), "unknown key `nme`")


async def test_databases_and_files(workspace: Workspace, make_database: Any, tmp_path: Path) -> None:
    """Tenants with databases and files of their own: extensions count, each kind has a reference, the API says it."""
    project = Project.create(workspace, make_database())
    databases = {name: make_database() for name in ("acme", "bluebird", "cobalt")}
    names = {name: url.rpartition("/")[2] for name, url in databases.items()}
    lines = [f"{{id: {name}, isolation: database, database: {there}}}" for name, there in names.items()]
    files = [f"{{id: {name}, url: 'sqlite:///{tmp_path}/files/{name}.db'}}" for name in ("dunes", "evergreen")]
    project.fleet(*lines, *files, "foxtrot", schemas=False)
    project.json("upgrade", "--provision")
    assert project.json("drift")["summary"]["identical"] == 6
    execute(databases["bluebird"], "DROP EXTENSION plpgsql; ALTER TABLE notes ALTER body SET NOT NULL")
    with closing(sqlite3.connect(tmp_path / "files" / "dunes.db")) as connection:
        connection.executescript("CREATE INDEX ix_body ON notes (body)")
    report = await orchestrator.drift(orchestrator.load(project.workspace.path / "tenants.yaml"))
    assert {shape.tenants: shape.told for shape in report.odd} == {
        ("bluebird",): ["missing extension plpgsql: 1.0", "column notes.body is NOT NULL"],
        ("dunes",): ["extra index ix_body on notes: create index ix_body on notes (body)"],
    }
    assert {shape.kind.dialect: shape.operations for shape in report.odd} == {
        "postgresql": [
            "op.execute(\"CREATE EXTENSION plpgsql VERSION '1.0'\")",
            'op.alter_column("notes", "body", nullable=True)',
        ],
        "sqlite": ['op.drop_index("ix_body", table_name="notes")'],
    }
    assert fetch(project.url, "SELECT datname FROM pg_database WHERE starts_with(datname, 'orchestrator_')") == []


async def test_comments_and_owners_where_they_are_asked_for(six: Project) -> None:
    """Neither makes anybody odd by itself; asked for, each is told with the object that it is of, and taken back."""
    commented = {
        "TABLE accounts": "table accounts",
        "COLUMN accounts.name": "column accounts.name",
        "CONSTRAINT fk_account ON invoices": "constraint fk_account on invoices",
        "INDEX ix_invoices_account_id": "index ix_invoices_account_id on invoices",
        "SEQUENCE numbers": "sequence numbers",
        "TYPE state": "enum state",
        "VIEW open_invoices": "view open_invoices",
        "FUNCTION touch()": "function touch()",
    }
    plant(six, "acme", "; ".join(f"COMMENT ON {what} IS 'it''s: a \\note'" for what in commented))
    owned = {"TABLE accounts": "table accounts", "TYPE state": "enum state", "FUNCTION touch()": "function touch()"}
    execute(six.url, "DROP ROLE IF EXISTS somebody_else; CREATE ROLE somebody_else")
    plant(six, "bluebird", "; ".join(f"ALTER {what} OWNER TO somebody_else" for what in owned))

    assert six.json("drift")["summary"]["identical"] == 6
    document = six.json("drift", "--also", "comments", "--also", "owners", exit_code=3)

    me = fetch(six.url, "SELECT current_user")[0][0]
    assert {tenant: set(told) for tenant, told in lines_of(document).items()} == {
        "acme": {f"{what} comment is it's: a \\note, expected none" for what in commented.values()},
        "bluebird": {f"{what} owner is somebody_else, expected {me}" for what in owned.values()},
    }
    # Where the others' comments are missing, they are made.
    other = six.json("drift", "--also", "comments", "--against", "acme", "-t", "cobalt", exit_code=3)
    for shape in other["shapes"]:
        await carry_out(six.url, "cobalt", shape["operations"])
    assert six.json("drift", "--also", "comments", "--against", "acme", "-t", "cobalt")["summary"]["identical"] == 1
    for shape in document["shapes"]:
        await carry_out(six.url, shape["example"], shape["operations"])
    asked = six.json("drift", "--also", "comments", "--also", "owners", "--exclude", "cobalt")
    assert asked["summary"]["identical"] == 5
    execute(six.url, "DROP ROLE somebody_else")
