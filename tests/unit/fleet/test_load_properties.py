"""load() over generated documents: a Fleet or a ConfigurationError with a line, and fast enough."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.errors import ConfigurationError
from orchestrator.fleet.fleet import Fleet
from orchestrator.fleet.load import load

words = st.sampled_from(
    [
        "main",
        "second",
        "a",
        "b",
        "acme",
        "public",
        "pg_x",
        "eu",
        "schema",
        "database",
        "file",
        "heads",
        "x" * 64,
        "10%",
        "2s",
        "no",
        "",
    ]
)
urls = st.sampled_from(
    [
        "postgresql://h/d",
        "postgres://u:p@h2/d",
        "sqlite:///data",
        "sqlite://",
        "mysql://h",
        "${NOT_SET}",
        "${",
        "x",
        "postgresql://h:x/d",
    ]
)
scalars = st.one_of(
    words,
    urls,
    st.text(max_size=5),
    st.integers(-3, 10**6),
    st.booleans(),
    st.none(),
    st.floats(),
    st.dates(),
    st.datetimes(),
)
anything = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3), max_leaves=5
)


def entry(*likely: str, **known: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """A mapping that is mostly right: some keys with likely values, now and then anything at all."""
    right = {key: known.get(key, words) for key in likely}
    return st.one_of(
        st.fixed_dictionaries({}, optional=right),
        st.fixed_dictionaries({}, optional={**dict.fromkeys(likely, anything), "unknown": scalars}),
        anything,
    )


tenants = entry(
    "id", "server", "isolation", "schema", "database", "file", "url", "tags", "pin", "until", "target", url=urls
)
servers = entry("url", "direct_url", "max_concurrency", "lock_timeout", url=urls, max_concurrency=st.integers(0, 9))
sources = entry("sql", "schemas", "databases", "python", "entry_point", "server", "options")
waves = entry("name", "select", "percent", "count", "max_failures", "bake", select=entry("tags", "servers"))
documents = entry(
    "servers",
    "defaults",
    "tenants",
    "sources",
    "policy",
    "waves",
    "journal",
    servers=st.dictionaries(words, st.one_of(urls, servers), max_size=3),
    defaults=entry("server", "isolation", "target", "tags"),
    tenants=st.lists(st.one_of(words, tenants), max_size=6),
    sources=st.lists(sources, max_size=3),
    policy=entry("max_failures", "lock_timeout", "statement_timeout", "retries"),
    waves=st.lists(waves, max_size=3),
)


def fleet_or_line(path: Path) -> None:
    refusal: ConfigurationError | None = None
    try:
        fleet = load(path)
    except ConfigurationError as error:
        refusal = error
    if refusal is not None:
        assert refusal.line is not None
        assert refusal.line >= 1
        assert refusal.hint
        return
    assert isinstance(fleet, Fleet)
    assert fleet.tenants or fleet.sources
    assert {tenant.server for tenant in fleet.tenants} <= fleet.servers.keys()
    assert len({tenant.id for tenant in fleet.tenants}) == len(fleet.tenants)


@settings(
    max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None
)
@given(document=documents, flow=st.booleans())
def test_documents(tmp_path: Path, document: Any, flow: bool) -> None:
    """Whatever tenants.yaml says, it is a Fleet or an error with a line and a hint."""
    path = tmp_path / "tenants.yaml"
    path.write_text(yaml.safe_dump(document, default_flow_style=flow, allow_unicode=True), encoding="utf-8")
    fleet_or_line(path)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.one_of(st.binary(max_size=60), st.text("ab:-[]{}&*!|>'\"\n\t #%@,?~0", max_size=60).map(str.encode)))
def test_bytes(tmp_path: Path, data: bytes) -> None:
    """Whatever bytes the file holds, it is a Fleet or an error with a line and a hint."""
    path = tmp_path / "tenants.yaml"
    path.write_bytes(data)
    fleet_or_line(path)


@pytest.mark.parametrize("style", ["block", "flow"])
def test_ten_thousand_tenants(tmp_path: Path, style: str) -> None:
    """10,000 tenants with tags and isolation load in under a second (processor time: neighbours do not count)."""
    entries = {
        "block": "  - id: tenant-{n:05d}\n    tags: [eu, enterprise]\n    isolation: schema\n    schema: t_{n:05d}\n",
        "flow": "  - {{id: tenant-{n:05d}, tags: [eu, enterprise], isolation: schema, schema: t_{n:05d}}}\n",
    }
    head = "servers:\n  main: postgresql://app:${file:pw}@h/app\ndefaults: {server: main}\ntenants:\n"
    path = tmp_path / "tenants.yaml"
    path.write_text(head + "".join(entries[style].format(n=number) for number in range(10_000)))
    before = time.process_time()
    fleet = load(path)
    assert time.process_time() - before < 1.0
    assert len(fleet.tenants) == 10_000
