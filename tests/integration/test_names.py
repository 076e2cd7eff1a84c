"""Names with quotes, semicolons, unicode and the like, on the real command line; tests/faults has a thousand more."""

from __future__ import annotations

from tests.command_line import THIRD, Project, statuses
from tests.names import KNOWN
from tests.projects import schemas
from tests.servers import fetch


def test_hard_names(project: Project) -> None:
    """upgrade, status and downgrade mean the tenants they are told, and the JSON spells their names as given."""
    project.execute("CREATE SCHEMA bystander; CREATE TABLE bystander.notes (id int)")
    project.workspace.write("tenants.yaml", schemas(project.url, *KNOWN))
    assert statuses(project.json("upgrade", "--provision")) == dict.fromkeys(KNOWN, "succeeded")
    hard = ["-t", "--help", 'x"; DROP SCHEMA bystander CASCADE; --', "e\u0301", "#a"]
    chosen = [word for name in hard for word in ("-t", name)]
    status = project.json("status", *chosen)
    assert [(each["tenant"], each["heads"]) for each in status["tenants"]] == [
        (name, [THIRD]) for name in KNOWN if name in hard
    ]
    down = project.json("downgrade", "base", *chosen, "--yes", "--allow-data-loss")
    assert statuses(down) == {name: "succeeded" for name in KNOWN if name in hard}
    rows = fetch(project.url, "SELECT nspname FROM pg_namespace WHERE nspname !~ '^(pg_|information_schema$)'")
    assert {row[0] for row in rows} == {"public", "bystander", *KNOWN}
    with_notes = "SELECT nspname FROM pg_namespace n JOIN pg_class c ON relnamespace = n.oid WHERE relname = 'notes'"
    assert {row[0] for row in fetch(project.url, with_notes)} == {"bystander", *KNOWN} - set(hard)
