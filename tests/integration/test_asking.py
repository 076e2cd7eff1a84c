"""What is asked before tenants are taken away or put back: nothing about nobody, and else who and how many."""

from __future__ import annotations

import re

from tests.command_line import THIRD, Project, assert_error, statuses
from tests.servers import fetch
from tests.terminal import in_terminal

NAMES = [f"t{number:02}" for number in range(1, 9)]


def schemas(project: Project) -> list[str]:
    """The tenants' schemas that are there."""
    found = fetch(project.url, "SELECT nspname FROM pg_namespace WHERE nspname ~ '^t[0-9]' ORDER BY nspname")
    return [row[0] for row in found]


def test_offboard_says_whom(project: Project) -> None:
    """The question names the first few of the fleet and counts the others; no leaves them, yes takes those shown."""
    project.fleet(*NAMES)
    code, screen = in_terminal(project, "offboard", "--all", "--drop", answer="n")
    assert (code, schemas(project)) == (2, NAMES)
    assert "offboard of 8 tenants (t01, t02, t03, t04, t05 and 3 more): each is taken out of the fleet" in screen
    assert "dropped at once" in screen
    refused = project.run("offboard", "t0[12]", "--drop")
    assert_error(refused, "nobody is there to ask", "offboard of 2 tenants (t01, t02)", "--yes --allow-data-loss")
    code, screen = in_terminal(project, "offboard", "t0[12]", "--drop", answer="y")
    assert (code, schemas(project)) == (0, NAMES[2:])


def test_who_comes_later_is_spared(project: Project) -> None:
    """A tenant that comes into the fleet while the question stands is not taken along by the yes, nor put back."""
    project.execute("CREATE SCHEMA t01; CREATE SCHEMA t02")
    project.fleet(more='sources: [{schemas: "t0*", server: main}]\n')
    project.json("upgrade", "--backup", "saved")
    project.execute("INSERT INTO t02.notes (body) VALUES ('new')")

    def away() -> None:
        project.execute("ALTER SCHEMA t02 RENAME TO elsewhere")

    def back() -> None:
        project.execute("ALTER SCHEMA elsewhere RENAME TO t02")

    away()
    code, screen = in_terminal(project, "restore", "last", "--all", answer="y", asked=back)
    assert (code, "restore of 1 tenant (t01)" in screen) == (0, True)
    assert len(fetch(project.url, "SELECT * FROM t02.notes")) == 1
    away()
    code, screen = in_terminal(project, "offboard", "--all", "--drop", answer="y", asked=back)
    assert (code, schemas(project)) == (0, ["t02"])


def test_nobody_is_asked_about_nobody(project: Project) -> None:
    """A name that nobody has is told before any question, on a terminal and elsewhere."""
    project.fleet("acme", "globex")
    project.json("upgrade", "--backup", "saved")
    for words, complaint in (
        (("offboard", "-t", "acmee", "--drop"), "no tenant matches 'acmee'"),
        (("restore", "last", "-t", "acmee"), "no tenant matches 'acmee'"),
        (("restore", "nosuch", "--all"), "nosuch"),
        (("rollback", "nosuch"), "nosuch"),
        (("downgrade", "-1", "-t", "acmee"), "no tenant matches 'acmee'"),
        (("downgrade", "nosuch", "-t", "acme"), "nosuch"),
    ):
        code, screen = in_terminal(project, *words, answer="y")
        assert (code, "[y/N]" in screen, complaint in screen) == (2, False, True), (words, screen)
        away = project.run(*words)
        assert (away.returncode, complaint in away.stderr, "nobody is there" in away.stderr) == (2, True, False), words


def test_restore_says_what(project: Project) -> None:
    """The question says who, from which run's backups, and how old those are; who has none there is named, too."""
    project.fleet("acme", "globex", "initech")
    run = project.json("upgrade", "--backup", "saved", "-t", "acme", "-t", "globex")["run"]
    project.json("upgrade")
    project.execute("INSERT INTO acme.notes (body) VALUES ('new')")
    code, screen = in_terminal(project, "restore", "last", "--all", answer="n")
    assert code == 2
    told = " ".join(screen.split())
    assert re.search(
        rf"restore of 2 tenants \(acme, globex\) from {run}, as of \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d UTC"
        r".* \(\d+ (s|min) ago\)",
        told,
    ), told
    assert project.heads("acme") == [THIRD]
    away = project.run("restore", "last", "-t", "acme")
    assert_error(away, "nobody is there to ask", f"restore of 1 tenant (acme) from {run}", "--keep")
    code, screen = in_terminal(project, "restore", "last", "-t", "*", answer="y")
    assert "no backup there, and left alone: 1 tenant (initech)" in " ".join(screen.split())
    assert (code, project.heads("acme"), project.heads("initech")) == (1, [], [THIRD])


def test_rollback_and_downgrade_name_them(project: Project) -> None:
    """The question names them; `last` is the run that was shown."""
    project.fleet("acme", "globex")
    run = project.json("upgrade")["run"]
    code, screen = in_terminal(project, "downgrade", "-1", "--all", answer="n")
    assert (code, "downgrade of 2 tenants (acme, globex):" in screen) == (2, True)
    code, screen = in_terminal(project, "rollback", "last", answer="y")
    assert (code, "rollback of 2 tenants (acme, globex):" in screen) == (0, True)
    assert f"rollback of run {run}" in screen
    assert statuses(project.json("upgrade")) == {"acme": "succeeded", "globex": "succeeded"}
