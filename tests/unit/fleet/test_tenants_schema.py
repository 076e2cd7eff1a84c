"""The published JSON Schema is the models', and says of documents what load() says."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pydantic
import pytest

from orchestrator.fleet import schema
from orchestrator.fleet.fleet import Fleet
from orchestrator.fleet.schema import json_schema
from tests.workspace import REPOSITORY

PUBLISHED = Path(schema.__file__).with_name("tenants.schema.json")


def test_published_schema_is_up_to_date() -> None:
    """The file in the package is what the models say; on failure run: python -m tests.unit.fleet.test_tenants_schema

    It is made with the pinned pydantic; other versions put the same models into other words, with the same keys.
    """
    published, made = json.loads(PUBLISHED.read_text(encoding="utf-8")), json_schema()
    assert _keys(published) == _keys(made)
    if f"pydantic=={pydantic.VERSION} " in (REPOSITORY / "requirements" / "dev.txt").read_text(encoding="utf-8"):
        assert published == made


def _keys(document: dict[str, Any]) -> dict[str, list[str]]:
    """The keys of every object that a schema knows, by its name."""
    named = {"": document, **document["$defs"]}
    return {name: list(each.get("properties", [])) for name, each in named.items()}


def test_keys() -> None:
    """The keys of the contract, in its order, and none else."""
    published = json_schema()
    keys = [
        "name",
        "servers",
        "defaults",
        "tenants",
        "sources",
        "policy",
        "waves",
        "hooks",
        "onboarding",
        "drift",
        "lint",
        "journal",
    ]
    assert list(published["properties"]) == keys
    assert published["additionalProperties"] is False
    tenant = published["$defs"]["TenantEntry"]
    assert list(tenant["properties"]) == [
        *("id", "server", "isolation", "schema", "database", "file", "url", "tags", "target", "pin", "reason", "until"),
        *("lock_timeout", "statement_timeout", "idle_in_transaction_timeout"),
    ]
    assert tenant["required"] == ["id"]
    assert tenant["properties"]["schema"]["type"] == "string"


def test_short_forms() -> None:
    """Editors accept a server as its address and a tenant as its id."""
    published = json_schema()
    assert {"type": "string"} in published["properties"]["servers"]["additionalProperties"]["anyOf"]
    assert {"type": "string"} in published["properties"]["tenants"]["items"]["anyOf"]


@pytest.mark.parametrize("key", ["schema", "database", "server", "pin"])
def test_no_nulls(key: str, load_text: Callable[[str], Fleet]) -> None:
    """A name without a value is refused by load(); the schema does not allow it either."""
    assert "null" not in json.dumps(json_schema()["$defs"]["TenantEntry"]["properties"][key])


if __name__ == "__main__":
    PUBLISHED.write_text(json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
