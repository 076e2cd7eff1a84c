"""YAML as plain data with places: what is read, what is refused, and where."""

from __future__ import annotations

from datetime import date

import pytest
import yaml

from orchestrator.errors import ConfigurationError
from orchestrator.fleet import document
from orchestrator.fleet.document import Document, compose


def composed(text: str) -> Document:
    found = compose(text, "tenants.yaml")
    assert found is not None
    return found


@pytest.fixture(params=["C", "pure"])
def loader(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both parsers: libyaml's, and the one in Python for a PyYAML without it."""
    monkeypatch.setattr(document, "LOADER", yaml.CSafeLoader if request.param == "C" else yaml.SafeLoader)


@pytest.mark.usefixtures("loader")
def test_data_is_what_pyyaml_reads() -> None:
    """Plain data comes out as PyYAML's own loader has it."""
    text = """
    a: [1, -2, 0, 3.5, yes, no, ~, null, 2024-01-31, 2024-02-31, plain text, "quoted", 'no', "012"]
    b: {c: d, e: {f: []}}
    g: |
      two
      lines
    h:
    i: 3f2a9c
    "no": x
    """
    assert composed(text).data == yaml.safe_load(text.replace("2024-02-31", "'2024-02-31'"))
    assert composed(text).problems == []
    assert composed("a: 2024-01-31").data == {"a": date(2024, 1, 31)}


@pytest.mark.usefixtures("loader")
def test_places() -> None:
    """Each value and each key has its line and column, from 1."""
    found = composed("a:\n  - b: 1\n    cc: [x, y]\n")
    assert found.place(("a",), at_key=True) == (1, 1)
    assert found.place(("a", 0, "b")) == (2, 8)
    assert found.place(("a", 0, "cc"), at_key=True) == (3, 5)
    assert found.place(("a", 0, "cc", 1)) == (3, 13)
    assert found.place(("a", 0, "missing")) == (2, 5)
    assert found.place(("nowhere",)) == (1, 1)
    assert found.written(("a", 0, "b")) == "1"
    assert found.written(("a", 0, "cc", 1)) is None


@pytest.mark.usefixtures("loader")
@pytest.mark.parametrize(
    ("text", "message", "place"),
    [
        ("a: 1\nb: 2\na: 3", "`a` stands here twice, first in line 1", (3, 1)),
        ("a: {x: 1, x: 2}", "`x` stands here twice", (1, 11)),
        ("a: &n [1]\nb: 1", "`n` is an anchor", (1, 4)),
        ("a: &n 1\nb: *n", "`n` is an alias", (2, 4)),
        ("a: !!python/name:os.system x", "the YAML tag", (1, 4)),
        ("a: !mine [1]", "the YAML tag `!mine`", (1, 4)),
        ("a: 012", "`012` is a number to some YAML readers", (1, 4)),
        ("a: 1e3", "`1e3` is a number", (1, 4)),
        ("a: 0x1F", "`0x1F` is a number", (1, 4)),
        ("a: 0o17", "`0o17` is a number", (1, 4)),
        ("a: 12:30", "`12:30` is a number", (1, 4)),
        ("a: 1_000", "`1_000` is a number", (1, 4)),
        ("a: " + "1" * 5000, "is a number", (1, 4)),
        ("no: 1", "the key `no` is read by YAML as a yes-or-no value", (1, 1)),
        ("a: {012: 1}", "the key `012` is read by YAML as a number", (1, 5)),
        ("2024-01-01: 1", "the key `2024-01-01` is read by YAML as a date", (1, 1)),
        ("? !!str a\n: 1", "has an anchor or a tag", (1, 3)),
    ],
)
def test_problems(text: str, message: str, place: tuple[int, int]) -> None:
    """What YAML would take silently for something else is told, with its place; the rest is still read."""
    found = composed(text)
    (problem,) = [problem for problem in found.problems if message in problem.message]
    assert found.place(problem.path, at_key=problem.at_key) == place
    assert all(problem.hint for problem in found.problems)
    assert isinstance(found.data, dict)


def test_first_of_equal_keys_wins() -> None:
    """After a duplicate key is told, the first value is looked at further."""
    assert composed("a: 1\na: 2").data == {"a": 1}


def test_names_that_only_look_odd() -> None:
    """Hex revisions, underscores, times within text and the like are text."""
    names = [
        "3f2a9c",
        "_x",
        "a_1",
        "1a",
        "0a1b2c",
        "e3",
        "12e",
        "v1.2",
        "1.2.3",
        "12-30",
        "_",
        "__",
        "=",
        "<<",
        "+",
        "0123x",
    ]
    assert composed(f"[{', '.join(names)}]").data == names
    assert composed(f"[{', '.join(names)}]").problems == []


@pytest.mark.usefixtures("loader")
@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a: [1\nb: 2", 2),
        ("a: b: c", 1),
        ("a:\n\t- b", 2),
        ('a: "x', 1),
        ("a: *missing b", 1),
        ("%YAML 9.9\n---\na: 1", 1),
        ("- [a]: 1\n- {[a]: b}", 1),
        ("[" * 40 + "]" * 40, 1),
        ("[" * 5000, 1),
        ("a: 1\nb: \x01", 2),
        ("a: 1\nb: \x00", 2),
    ],
)
def test_no_yaml(text: str, line: int) -> None:
    """What is no YAML is a ConfigurationError with the line and a hint, never PyYAML's own error."""
    with pytest.raises(ConfigurationError) as caught:
        compose(text, "tenants.yaml")
    assert caught.value.line == line
    assert caught.value.hint
    assert str(caught.value).startswith(f"tenants.yaml:{line}:")


@pytest.mark.usefixtures("loader")
def test_several_documents() -> None:
    """A second document would be left unread: refused, with its line."""
    with pytest.raises(ConfigurationError, match="second YAML document") as caught:
        compose("a: 1\n---\nb: 2\n", "tenants.yaml")
    assert caught.value.line == 2


@pytest.mark.usefixtures("loader")
@pytest.mark.parametrize("text", ["", "\n", "# nothing\n"])
def test_nothing(text: str) -> None:
    """Nothing in it is None."""
    assert compose(text, "tenants.yaml") is None
