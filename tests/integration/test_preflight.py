"""plan --preflight: whose rows stand against a revision is known before anything is run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.command_line import SECOND, THIRD, Project, assert_error

FOURTH, FIFTH = "d4d4d4d4d4d4", "e5e5e5e5e5e5"
TABLES = """
    CREATE TABLE {0}.people (id int PRIMARY KEY, email text, team int, age bigint, price numeric, code varchar(20));
    CREATE TABLE {0}.teams (id int PRIMARY KEY);
    INSERT INTO {0}.teams VALUES (1);
    INSERT INTO {0}.people VALUES (1, 'a@x', 1, 30, 9.5, 'abc'), (2, 'b@x', NULL, 40, 1, 'd');
"""


def prepared(project: Project, *bad: str) -> None:
    """Two tenants with two tables at THIRD; ``bad`` is run in the second one."""
    project.fleet("acme", "globex")
    project.json("upgrade")
    for schema in ("acme", "globex"):
        project.execute(TABLES.format(schema))
    for statement in bad:
        project.execute(f"SET search_path = globex; {statement}")


def look(project: Project, exit_code: int, *args: str) -> dict[str, Any]:
    """The key ``preflight`` of the plan."""
    found: dict[str, Any] = project.json("plan", "--preflight", *args, exit_code=exit_code)["preflight"]
    return found


def failing(found: dict[str, Any]) -> dict[str, dict[str, int]]:
    """By kind and subject: the tenants that would fail, and their rows."""
    return {
        f"{probe['kind']} {probe['subject']}": {each["tenant"]: each["rows"] for each in probe["fails"]}
        for probe in found["probes"]
    }


BREAKING = {
    "op.alter_column('people', 'email', nullable=False)": (
        "UPDATE people SET email = NULL", "not_null people.email", 2,
    ),
    "op.create_unique_constraint('u', 'people', ['email', 'age'])": (
        "INSERT INTO people SELECT id + 10, email, team, age FROM people", "unique people.email, age", 2,
    ),
    "op.create_index('u', 'people', [sa.text('lower(email)')], unique=True, postgresql_where=sa.text('age > 35'))": (
        "INSERT INTO people VALUES (3, 'B@X', 1, 50), (4, 'A@X', 1, 50)", "unique people.lower(email)", 1,
    ),
    "op.create_foreign_key('f', 'people', 'teams', ['team'], ['id'])": (
        "UPDATE people SET team = 7 WHERE id = 1", "foreign_key people.team", 1,
    ),
    "op.create_check_constraint('c', 'people', 'age < 100')": (
        "UPDATE people SET age = 200 WHERE id = 1", "check people", 1,
    ),
    "op.alter_column('people', 'age', type_=sa.Integer())": (
        "UPDATE people SET age = 3000000000 WHERE id = 1", "type people.age", 1,
    ),
    "op.alter_column('people', 'price', type_=sa.Numeric(4, 2))": (
        "UPDATE people SET price = 99.999 WHERE id = 1", "type people.price", 1,
    ),
    "op.alter_column('people', 'code', type_=sa.String(3))": (
        "UPDATE people SET code = 'abcd' WHERE id = 1; UPDATE people SET code = 'abc  ' WHERE id = 2",
        "type people.code", 1,
    ),
    "op.add_column('people', sa.Column('phone', sa.Text(), nullable=False))": (
        "SELECT 1", "no_default people.phone", 2,
    ),
    "op.create_primary_key('k', 'notes', ['body'])": (
        "INSERT INTO notes VALUES (1, 'x'), (2, 'x'), (3, NULL)", "unique notes.body", 1,
    ),
}  # fmt: skip


@pytest.mark.parametrize(("upgrade", "bad", "subject", "rows"), [(up, *rest) for up, rest in BREAKING.items()])
def test_what_would_fail(project: Project, upgrade: str, bad: str, subject: str, rows: int) -> None:
    """Each kind of step: the preflight names the tenant that the step then does fail for, and no other."""
    prepared(project, bad)
    if "no_default" in subject:
        project.execute("DELETE FROM acme.people")
    if "primary_key" in upgrade:
        project.execute("".join(f"ALTER TABLE {name}.notes DROP CONSTRAINT pk_notes;" for name in ("acme", "globex")))
    project.revision(FOURTH, THIRD, upgrade)
    before = project.catalog()
    found = look(project, 1)
    assert failing(found)[subject] == {"globex": rows}
    assert not found["ready"]
    assert project.catalog() == before
    run = project.json("upgrade", "--continue-on-error", exit_code=1)
    assert {tenant["tenant"]: tenant["status"] for tenant in run["tenants"]} == {
        "acme": "succeeded",
        "globex": "failed",
    }


@pytest.mark.parametrize(
    "upgrade",
    [
        "op.create_unique_constraint('u', 'people', ['team'])",
        "op.create_foreign_key('f', 'people', 'teams', ['team'], ['id'])",
        "op.alter_column('people', 'code', existing_type=sa.String(20), type_=sa.Text())",
        "op.alter_column('people', 'age', existing_type=sa.Integer(), type_=sa.BigInteger())",
        "op.add_column('people', sa.Column('phone', sa.Text(), nullable=False, server_default=''))",
        "op.create_foreign_key('f', 'people', 'teams', ['age'], ['id'], postgresql_not_valid=True)",
    ],
)
def test_what_would_not(project: Project, upgrade: str) -> None:
    """NULLs in keys, wider types, defaults and NOT VALID stand against nothing."""
    prepared(project)
    project.revision(FOURTH, THIRD, upgrade)
    assert look(project, 0)["ready"]
    project.json("upgrade")


FILLED = {
    "op.execute(\"UPDATE people SET email = ''\")": "may change rows of people first",
    "op.execute('SELECT fill()')": "may change rows first: SELECT fill()",
    "op.execute('ANALYZE teams; CALL fill()')": "may change rows first",
    "op.get_bind().execute(sa.text('SELECT 1'))": "it uses get_bind (line 13)",
    "op.bulk_insert(sa.table('people', sa.column('id')), [])": "may change rows of people first",
    "op.add_column('people', sa.Column('email', sa.Text()))": "people.email is made by",
    "op.rename_table('old_people', 'people')": "people is made by",
    "op.alter_column('people', 'email', new_column_name='mail')": "people.email is renamed or dropped by",
}


@pytest.mark.parametrize(("first", "reason"), FILLED.items())
@pytest.mark.parametrize("together", [True, False], ids=["one revision", "two revisions"])
def test_what_cannot_be_known_beforehand(project: Project, first: str, reason: str, together: bool) -> None:
    """Rows that an earlier step may fill, make or rename are not judged as they are now, and it is said why."""
    prepared(project, "UPDATE people SET email = NULL")
    then = "op.alter_column('people', 'email', nullable=False)"
    if together:
        project.revision(FOURTH, THIRD, f"{first}\n    {then}")
    else:
        project.revision(FOURTH, THIRD, first)
        project.revision(FIFTH, FOURTH, then)
    found = look(project, 0)
    assert not found["probes"]
    reasons = [each["reason"] for each in found["not_probed"] if each["tenants"] == 2]
    assert any(reason in each for each in reasons), reasons


def test_a_step_outside_transactions_and_in_batch_is_seen(project: Project) -> None:
    """A unique index that is built concurrently, and a batch: both are looked at."""
    prepared(project, "UPDATE people SET email = 'a@x', code = NULL")
    project.revision(
        FOURTH,
        THIRD,
        "with op.get_context().autocommit_block():\n"
        "        op.create_index('u', 'people', ['email'], unique=True, postgresql_concurrently=True)\n"
        "    with op.batch_alter_table('people') as people:\n"
        "        people.alter_column('code', nullable=False)",
    )
    assert failing(look(project, 1)) == {"unique people.email": {"globex": 1}, "not_null people.code": {"globex": 2}}


OWN = """preflight = [
    "SELECT id FROM people WHERE age > 35;",
    {"sql": "SELECT email FROM people -- all", "message": "has a mail"},
]


def upgrade"""


def test_a_revisions_own_checks(project: Project) -> None:
    """They name the tenants with their message; values are shown only where they are asked for."""
    prepared(project, "DELETE FROM people WHERE age > 35")
    file = project.revision(FOURTH, THIRD)
    file.write_text(file.read_text().replace("def upgrade", OWN))
    probes = look(project, 1)["probes"]
    assert [probe["fails"] for probe in probes] == [
        [{"tenant": "acme", "rows": 1, "more": False, "values": []}],
        [
            {"tenant": "acme", "rows": 2, "more": False, "values": []},
            {"tenant": "globex", "rows": 1, "more": False, "values": []},
        ],
    ]
    assert probes[1]["message"] == "has a mail"
    shown = look(project, 1, "--show-values", "-t", "globex")["probes"]
    assert shown[1]["fails"][0]["values"] == ["a@x"]
    text = project.run("plan", "--preflight")
    assert text.returncode == 1
    assert "2 tenants would fail" in text.stdout
    assert "has a mail" in text.stdout
    assert "a@x" not in text.stdout


@pytest.mark.parametrize(
    "given",
    [
        "1",
        '"SELECT 1"',
        "[1]",
        '[{"message": "x"}]',
        '[{"sql": 1}]',
        '["DELETE FROM people"]',
        '[{"sql": "SELECT 1", "x": "y"}]',
    ],
)
def test_what_is_no_check(project: Project, given: str) -> None:
    """A `preflight` that is not a list of queries is an error with the file's name and what to write."""
    project.fleet("acme")
    file = project.revision(FOURTH, THIRD)
    file.write_text(file.read_text().replace("def upgrade", f"preflight = {given}\n\n\ndef upgrade"))
    assert_error(project.run("plan", "--preflight"), f"{FOURTH}.py: preflight: ", "write preflight = [")


@pytest.mark.parametrize(
    ("sql", "told"),
    [
        ("SELECT nextval('globex.numbers')", "read-only"),
        ("SELECT pg_sleep(60)", "statement timeout"),
        ("SELECT 1 WHERE 1 / 0 = 1", "division by zero"),
        ("SELECT 1; DELETE FROM people", "syntax error"),
    ],
)
def test_a_check_that_gives_no_answer(project: Project, sql: str, told: str) -> None:
    """What writes, takes too long or is wrong is told as no answer, exit code 1, and has changed nothing."""
    prepared(project, "CREATE SEQUENCE numbers")
    project.execute("GRANT USAGE ON SCHEMA globex TO public")
    file = project.revision(FOURTH, THIRD, "op.alter_column('people', 'email', nullable=False)")
    file.write_text(file.read_text().replace("def upgrade", f"preflight = [{sql!r}]\n\n\ndef upgrade"))
    own, derived = look(project, 1, "-t", "globex", "--statement-timeout", "1s")["probes"]
    assert [each["tenant"] for each in own["unanswered"]] == ["globex"]
    assert told in own["unanswered"][0]["error"]["message"]
    assert (derived["tenants"], derived["fails"], derived["unanswered"]) == (1, [], [])


def test_who_has_nothing_to_look_at(project: Project) -> None:
    """Tables that pending revisions make, and tenants that are not there, are not probed, and it is said why."""
    project.fleet("acme", "globex", schemas=False)
    project.execute("CREATE SCHEMA acme")
    project.revision(FOURTH, THIRD, "op.alter_column('notes', 'body', nullable=False)")
    file = project.revision(FIFTH, FOURTH, "op.alter_column('nowhere', 'body', nullable=False)")
    file.write_text(file.read_text().replace("def upgrade", 'preflight = ["SELECT 1 FROM notes"]\n\n\ndef upgrade'))
    found = look(project, 0, "--provision")
    assert {(each["revision"], each["not_there_yet"], each["tenants"]) for each in found["not_probed"]} == {
        (FOURTH, True, 2),
        (FIFTH, False, 1),
    }
    reasons = " ".join(each["reason"] for each in found["not_probed"])
    assert 'relation "notes" does not exist' in reasons
    assert 'relation "nowhere" does not exist' in reasons
    assert "its schema, database or file does not exist yet" in reasons
    assert "nothing to look at yet" in project.run("plan", "--preflight", "--provision").stdout


def test_without_preflight_nothing_is_asked(project: Project) -> None:
    """A plan without it has no such key, its exit code is 0, and the two options go together."""
    prepared(project, "UPDATE people SET email = NULL")
    project.revision(FOURTH, THIRD, "op.alter_column('people', 'email', nullable=False)")
    assert "preflight" not in project.json("plan")
    assert_error(project.run("plan", "--show-values"), "--preflight")


def test_many_rows_are_not_counted_to_the_end(project: Project) -> None:
    """A thousand and more are told as more than a thousand."""
    prepared(project, "INSERT INTO people SELECT g, NULL FROM generate_series(10, 3000) AS g")
    project.revision(FOURTH, THIRD, "op.alter_column('people', 'email', nullable=False)")
    (probe,) = look(project, 1)["probes"]
    assert probe["fails"] == [{"tenant": "globex", "rows": 1000, "more": True, "values": []}]
    assert "more than 1000 rows" in project.run("plan", "--preflight").stdout


def test_a_role_that_may_not_read(project: Project) -> None:
    """A table that cannot be read gives no answer; it does not pass for one in order."""
    prepared(project)
    parts = urlsplit(project.url)
    role = f"reader_{parts.path.lstrip('/')}"
    project.execute(f"CREATE ROLE {role} LOGIN; GRANT USAGE ON SCHEMA acme, globex TO {role}")
    project.execute(f"GRANT SELECT ON acme.alembic_version, globex.alembic_version, globex.people TO {role}")
    try:
        project.revision(FOURTH, THIRD, "op.alter_column('people', 'email', nullable=False)")
        Project(project.workspace, parts._replace(netloc=f"{role}@{parts.hostname}:{parts.port}").geturl()).fleet(
            "acme", "globex", schemas=False
        )
        (probe,) = look(project, 1)["probes"]
        assert probe["tenants"] == 1
        assert [(each["tenant"], each["error"]["sqlstate"]) for each in probe["unanswered"]] == [("acme", "42501")]
    finally:
        project.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


def test_sqlite(project: Project, tmp_path: Path) -> None:
    """Files are asked the same, as far as SQLite looks at rows when it migrates; a check cannot write there either."""
    project.workspace.write(
        "tenants.yaml",
        f'servers: {{files: {{url: "sqlite:///{tmp_path}/data"}}}}\n'
        "defaults: {server: files}\ntenants: [acme, globex]\n",
    )
    project.json("upgrade", SECOND, "--provision")
    script = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute(sys.argv[2]); c.commit()"
    shown = project.json("tenants", "list")["tenants"]
    (file,) = [each["file"] for each in shown if each["tenant"] == "globex"]
    insert = "INSERT INTO notes VALUES (1, NULL), (2, 'x'), (3, 'x')"
    assert project.workspace.python("-c", script, file, insert).returncode == 0
    batch = (
        "with op.batch_alter_table('notes') as notes:\n"
        "        notes.alter_column('body', existing_type=sa.Text(), nullable=False)\n"
        "        notes.create_unique_constraint('u', ['body'])"
    )
    written = project.revision(FOURTH, THIRD, batch)
    written.write_text(
        written.read_text().replace("def upgrade", 'preflight = ["SELECT id FROM notes WHERE id > 2"]\n\n\ndef upgrade')
    )
    found = look(project, 1)
    assert failing(found) == {
        "own SELECT id FROM notes WHERE id > ?": {"globex": 1},
        "not_null notes.body": {"globex": 1},
        "unique notes.body": {"globex": 1},
    }
    assert json.loads(project.run("status", "--json").stdout)["summary"] == {"behind": 2}
