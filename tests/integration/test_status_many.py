"""``status`` of many tenants: how many are where, then what is odd; filters, CSV, and watching."""

from __future__ import annotations

import csv
import io
import re
import signal

import pytest

from tests.command_line import FIRST, SECOND, THIRD, Project, assert_error
from tests.integration.test_cli_terminal import CONTROL


@pytest.fixture
def many(project: Project) -> Project:
    """Thirty tenants: twenty at the last revision, nine behind, one that is not there."""
    project.fleet(*(f"t{number:02}" for number in range(30)))
    project.execute("DROP SCHEMA t29")
    project.json("upgrade", FIRST, "--exclude", "t29")
    project.json("upgrade", *(f"-tt{number:02}" for number in range(20)))
    return project


def test_counts_come_first_and_what_is_odd_is_capped(many: Project) -> None:
    """How many stand where, with the revision's own words; five of each kind; and the command for the others."""
    lines = many.run("status").stdout.splitlines()
    assert [re.split(r"  +", line.strip()) for line in lines[:4]] == [
        ["TENANTS", "STATE", "HEADS", "MADE", "MESSAGE"],
        ["20", "current", THIRD, f"revision {THIRD}"],
        ["9", "behind", FIRST, f"revision {FIRST}"],
        ["1", "unprovisioned", "-"],
    ]
    at = lines.index("9 tenants behind:")
    assert [line.split()[0] for line in lines[at + 1 : at + 6]] == [f"t{number}" for number in range(20, 25)]
    assert lines[at + 6] == "  and 4 more: orchestrator status --state behind"
    assert lines[-1] == f"target {THIRD}: 20 current, 9 behind, 1 unprovisioned"
    assert not any("t05" in line for line in lines)
    everyone = many.run("status", "--all").stdout
    assert len(re.findall(r"^t\d\d ", everyone, re.MULTILINE)) == 30
    groups = many.json("status")["revisions"]
    assert [(group["tenants"], group["heads"], group["state"]) for group in groups][:2] == [
        (20, [THIRD], "current"),
        (9, [FIRST], "behind"),
    ]


def test_filters_narrow_what_is_told(many: Project) -> None:
    """States widen each other, the other filters narrow; the sum is of those that are told of, and none is no error."""

    def told(*options: str) -> int:
        document = many.json("status", *options)
        assert sum(document["summary"].values()) == len(document["tenants"])
        return len(document["tenants"])

    assert told("--behind") == told("--state", "behind") == 9
    assert told("--behind", "--state", "unprovisioned") == 10
    assert told("--older-than", SECOND) == 10
    assert told("--older-than", FIRST) == 1
    assert told("--older-than", SECOND, "--state", "current") == 0
    # Asked for, they are listed, however many they are.
    listed = many.run("status", "--state", "current", "--older-than", "heads", "--state", "behind").stdout
    assert len(re.findall(r"^t\d\d ", listed, re.MULTILINE)) == 9
    assert "Invalid value for '--state'" in many.run("status", "--state", "failed").stderr


def test_csv_has_a_line_for_each(many: Project) -> None:
    """Spreadsheets get every tenant, filtered or not; two forms at once are refused."""
    rows = list(csv.DictReader(io.StringIO(many.run("status", "--csv").stdout)))
    assert len(rows) == 30
    assert (rows[0]["tenant"], rows[0]["heads"], rows[0]["state"], rows[0]["pending"]) == ("t00", THIRD, "current", "0")
    assert (rows[29]["heads"], rows[29]["error"]) == ("", "its schema, database or file does not exist")
    assert_error(many.run("status", "--csv", "--watch"), "exclude each other")


def test_watching_repeats_a_line_until_it_is_interrupted(project: Project) -> None:
    """Off a terminal there is a plain line each time, read anew; Ctrl-C ends it with 130."""
    project.fleet("acme")
    with project.start("status", "--watch") as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        project.execute(f"CREATE TABLE acme.alembic_version AS SELECT '{THIRD}' AS version_num")
        seen = first
        while "1 current" not in seen:
            seen = process.stdout.readline()
            assert seen, "it ended"
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()
    assert re.fullmatch(rf"\d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d UTC  target {THIRD}: 1 behind\n", first)
    assert not CONTROL.search(first)
