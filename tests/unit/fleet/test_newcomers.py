"""Who is to come: files of entries, and what is wrong with them told at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.errors import ConfigurationError, UsageError
from orchestrator.fleet.fleet import Fleet
from orchestrator.fleet.load import load
from orchestrator.fleet.newcomers import read_entries, read_newcomers


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    """One tenant on one of two servers."""
    path = tmp_path / "tenants.yaml"
    path.write_text(
        "servers: {main: postgresql://db/app, eu: postgresql://eu/app}\ndefaults: {server: main}\n"
        "onboarding: {seeds: {demo: demo.sql}}\ntenants: [acme]\n"
    )
    return load(path)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("new.csv", 'id,tags,seed\na,"x,y",demo\nb,,\n'),
        ("new.csv", '\ufeffid,tags,seed\r\na,"x,y",demo\r\nb,,\r\n'),
        ("new.yaml", "- {id: a, tags: [x, y], seed: demo}\n- b\n"),
        ("new.yml", "tenants:\n  - {id: a, tags: 'x,y', seed: demo}\n  - b\n"),
        ("new.json", '[{"id": "a", "tags": ["x", "y"], "seed": "demo"}, "b"]'),
        ("-", "- {id: a, tags: [x, y], seed: demo}\n- b\n"),
        ("-", 'id,tags,seed\na,"x,y",demo\nb,,\n'),
    ],
)
def test_forms(fleet: Fleet, name: str, text: str) -> None:
    """CSV, YAML and JSON say the same."""
    found = read_newcomers(fleet, read_entries(text, name), name)

    assert [(each.tenant.id, each.tenant.tags, each.seed) for each in found.newcomers] == [
        ("a", ("x", "y"), "demo"),
        ("b", (), None),
    ]
    assert [tenant.id for tenant in found.fleet.tenants] == ["acme", "a", "b"]


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("new.csv", "name\na\n", "names no column `id`"),
        ("new.csv", "", "names no column `id`"),
        ("new.csv", "id,tags\na\n", "another number of columns"),
        ("new.csv", "id,tags\na,b,c\n", "another number of columns"),
        ("new.csv", 'id\n"a\n', "unexpected end"),
        ("new.yaml", "a: b", "no list"),
        ("new.yaml", "- [1]", "entry 1 is neither"),
        ("new.yaml", "- {", "expected"),
        ("new.json", "[", "Expecting"),
    ],
)
def test_bad_files(name: str, text: str, told: str) -> None:
    """What is no list of tenants is told with its name."""
    with pytest.raises(ConfigurationError, match=told) as caught:
        read_entries(text, name)
    assert caught.value.file == name


def test_listed_already(fleet: Fleet) -> None:
    """One that the fleet has in the same place is that one; in another place, it is refused."""
    (same,) = read_newcomers(fleet, [{"id": "acme", "tags": ["x"]}], "test").newcomers
    assert (same.listed, same.tenant) == (True, fleet.tenants[0])
    with pytest.raises(ConfigurationError, match="a tenant already, in acme"):
        read_newcomers(fleet, [{"id": "acme", "server": "eu"}], "test")


def test_all_that_is_wrong(fleet: Fleet) -> None:
    """Rows are numbered as they were given, whatever else is wrong with others."""
    entries = [
        {"id": "pg_a"},
        {"id": "b", "seed": "dmo"},
        {"id": "c", "server": "uk"},
        {"id": "d", "schema": "acme"},
        {"nme": "e"},
    ]
    with pytest.raises(ConfigurationError) as caught:
        read_newcomers(fleet, entries, "new.csv")
    for number in range(1, 6):
        assert f"new.csv, row {number}" in str(caught.value)
    assert len(fleet.tenants) == 1


def test_nobody(fleet: Fleet) -> None:
    """No entry is no onboarding."""
    with pytest.raises(UsageError, match="names no tenant"):
        read_newcomers(fleet, [], "new.csv")


@pytest.mark.parametrize(("expand", "text"), [(True, "postgresql://a/${DB:-x}"), (False, "postgresql://a/$${DB:-x}")])
def test_secrets_in_addresses(fleet: Fleet, expand: bool, text: str) -> None:
    """What an operator types may name a secret; what stands in data stays text."""
    found = read_newcomers(fleet, [{"id": "own", "url": "postgresql://a/${DB:-x}"}], "test", expand=expand)
    assert found.fleet.servers["own"].url.text == text
