"""Whatever tenants.yaml looks like, whoever is put in is in the fleet beside all others, and leaves no trace."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.fleet import document
from orchestrator.fleet.fleet import Fleet
from orchestrator.fleet.load import load
from orchestrator.fleet.registry import entry_of, register, register_all, unregister

#: Words that YAML reads as something else, or that end what they stand in.
ODD = ["no", "012", "1e3", "~", "null", "y", "On", "2027-01-31", "0x1F", "1:30", ".5", "-", "- a", "a: b", "a #b", "*a"]
ODD += [
    "&a",
    "!a",
    "%a",
    "@a",
    "`a`",
    "'",
    '"',
    "it's",
    'a "b"',
    "\\",
    "[a]",
    "{a}",
    "a,b",
    "?",
    ": ",
    "=",
    "<<",
    "é",
    "日本",
]
ODD = [word.strip() for word in ODD]
plain = st.from_regex(r"[a-z][a-z0-9_-]{0,8}", fullmatch=True)
printable = st.text(st.characters(min_codepoint=33, max_codepoint=0x1F9FF, exclude_categories=["C", "Z"]), min_size=1)
names = st.one_of(plain, st.sampled_from(ODD), printable.filter(lambda name: len(name.encode()) < 60))
ids = names.filter(lambda name: not name.startswith("pg_") and name.isprintable())
anything = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)
reasons = anything.filter(lambda text: text.strip())
tags = st.lists(ids.filter(lambda tag: "," not in tag), max_size=3)
pinned = st.fixed_dictionaries(
    {"pin": ids}, optional={"reason": reasons, "until": st.dates(date(2000, 1, 1), date(2099, 1, 1))}
)
details = st.fixed_dictionaries(
    {},
    optional={
        "schema": ids,
        "tags": tags,
        "server": st.sampled_from(["main", "eu"]),
        "target": st.sampled_from(["heads", "tenant@head", "3e5", "abc"]),
        "lock_timeout": st.one_of(st.integers(0, 99), st.sampled_from(["2s", "100ms", 0.5])),
    },
)
entries = st.builds(lambda tenant_id, more, pin: {"id": tenant_id, **more, **pin}, ids, details, st.just({}) | pinned)

#: How one tenant may stand in a block list; N is its number.
BLOCK_ITEMS = [
    "- tN",
    '- "tN"  # of old',
    "- {id: tN, tags: [a, 'b']}   # flow",
    "- id: tN\n  # in between\n  tags: [eu]",
    "- id: tN   # first\n  tags:\n    - eu\n    - 'x'  # last",
    "-\n  # lonely dash\n  id: tN",
    "-   id: tN\n    reason: |\n      two\n      lines\n    pin: abc",
    "- id: tN\n  pin: abc\n  reason: >-\n    folded\n    text\n",
    "- {id: tN,\n   tags: [a,\n          b]}\n",
    "- ? id\n  : tN",
    "- id: tN\n  tags:",
    "# - off\n\n- tN",
    "- {id: tN, reason: 'Ünï 🦀', pin: abc}",
]
FLOW_ITEMS = ["tN", "'tN'", "{id: tN, tags: [a]}", "id: tN", '{"id": "tN"}', "{id: tN,\n tags: [b]}"]
FLOW_GLUE = [", ", ",", " ,", ",\n  ", ", # why\n  ", "\n  , ", ",\n\n  # next\n  "]
SERVERS = "servers:\n  main: postgresql://h/d  # ours\n  eu: {url: 'postgresql://h2/d'}\ndefaults: {server: main}\n"
IN_BRACES = "servers: {main: 'postgresql://h/d', eu: 'postgresql://h2/d'}, defaults: {server: main}"
SOURCES = "sources: [{schemas: 't_*'}]\n"


@st.composite
def block_lists(draw: st.DrawFn) -> str:
    """``tenants:`` in block style."""
    items = draw(st.lists(st.sampled_from(BLOCK_ITEMS), min_size=1, max_size=4))
    margin = " " * draw(st.sampled_from([0, 2, 4]))
    lines = "\n".join(item.replace("N", str(number)) for number, item in enumerate(items)).split("\n")
    return "tenants:  # all of them\n" + "".join(f"{margin}{line}".rstrip() + "\n" for line in lines)


@st.composite
def flow_values(draw: st.DrawFn) -> str:
    """A list in brackets."""
    items = draw(st.lists(st.sampled_from(FLOW_ITEMS), max_size=4))
    text = "[" + draw(st.sampled_from(["", " ", "\n  ", " # some\n  "]))
    for number, item in enumerate(items):
        text += (draw(st.sampled_from(FLOW_GLUE)) if number else "") + item.replace("N", str(number))
    comma = draw(st.sampled_from(["", ",", " ,"])) if items else ""
    return text + comma + draw(st.sampled_from(["", " ", "\n  ", "  # end\n  ", "\n  # end\n  "])) + "]"


@st.composite
def files(draw: st.DrawFn) -> bytes:
    """A tenants.yaml with a list, in one of the ways that people and programs write it."""
    if draw(st.integers(0, 5)) == 0:
        text = f"{{{IN_BRACES}, tenants: {draw(flow_values())}, waves: []}}\n"
    else:
        flow = st.builds("tenants: {}  # done\n".format, flow_values())
        nothing = st.sampled_from(["tenants:\n", "tenants:   # nobody yet\n", "tenants: []\n", "tenants: [ ]  # no\n"])
        tenants = draw(st.one_of(block_lists(), flow, nothing))
        policy = "policy: {retries: 3}\n# the end\n"
        text = "".join(draw(st.permutations([SERVERS, tenants, policy, draw(st.sampled_from(["", SOURCES]))])))
        text = draw(st.sampled_from(["", "# top\n", "---\n", "%YAML 1.1\n---\n"])) + text
        text += draw(st.sampled_from(["", "...\n", "# bye\n"]))
    if draw(st.booleans()) and not text.rstrip("\n").endswith(("text", "lines")):
        text = text.rstrip("\n")
    text = text.replace("\n", draw(st.sampled_from(["\n", "\n", "\r\n", "\r"])))
    return draw(st.sampled_from([b"", b"", b"\xef\xbb\xbf"])) + text.encode()


@settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=files(), entry=entries)
def test_put_in_and_taken_out(tmp_path: Path, data: bytes, entry: dict[str, Any]) -> None:
    """The fleet is the old one and the new tenant; then the file is what it was, to the byte."""
    _in_and_out(tmp_path, data, entry)


# The places of an entry in the text are all that the other loader tells otherwise, and it is slow.
@settings(
    max_examples=50,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=files(), entry=entries)
def test_put_in_and_taken_out_without_libyaml(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: bytes, entry: dict[str, Any]
) -> None:
    """The same where PyYAML has no C library to read with."""
    monkeypatch.setattr(document, "LOADER", yaml.SafeLoader)
    _in_and_out(tmp_path, data, entry)


def _in_and_out(tmp_path: Path, data: bytes, entry: dict[str, Any]) -> None:
    path = tmp_path / "tenants.yaml"
    path.write_bytes(data)
    old = load(path, may_be_empty=True)
    if any(tenant.id == entry["id"] or tenant.schema == entry.get("schema", entry["id"]) for tenant in old.tenants):
        return
    assert register(path, entry)
    new = load(path)
    assert new.tenants[:-1] == old.tenants
    assert replace(new, tenants=old.tenants) == old
    assert new.tenants[-1].id == entry["id"]
    assert not register(path, entry)
    assert not register(path, entry_of(new.tenants[-1], new))
    assert _without_added(data, path.read_bytes())
    assert unregister(path, entry["id"])
    assert path.read_bytes() == data


def _without_added(old: bytes, new: bytes) -> bool:
    """Whether ``new`` is ``old`` with something added and nothing else changed."""
    rest = iter(new)
    return all(byte in rest for byte in old)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=files(), draw=st.data())
def test_anyone_taken_out(tmp_path: Path, data: bytes, draw: st.DataObject) -> None:
    """Any tenant of any file can be taken out: the others stay, and their comments."""
    path = tmp_path / "tenants.yaml"
    path.write_bytes(data)
    old = load(path, may_be_empty=True)
    if not old.tenants:
        return
    gone = draw.draw(st.sampled_from(old.tenants))
    assert unregister(path, gone.id)
    new = load(path, may_be_empty=True)
    assert new == replace(old, tenants=tuple(tenant for tenant in old.tenants if tenant != gone))
    assert _without_added(path.read_bytes(), data)
    for comment in (b"# top", b"# ours", b"# all of them", b"# the end", b"# bye", b"# off", b"# next"):
        assert path.read_bytes().count(comment) == data.count(comment)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=files(), new=st.lists(plain, min_size=1, max_size=5, unique=True))
def test_several_at_once(tmp_path: Path, data: bytes, new: list[str]) -> None:
    """Several in one write come out in their order."""
    path = tmp_path / "tenants.yaml"
    path.write_bytes(data)
    old: Fleet = load(path, may_be_empty=True)
    given = [{"id": f"new-{name}"} for name in new]
    assert register_all(path, given) == len(given)
    assert [tenant.id for tenant in load(path).tenants[len(old.tenants) :]] == [entry["id"] for entry in given]
