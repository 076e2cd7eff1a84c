"""What one object of a tenant is, taken apart into what can be compared and told. Values only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from orchestrator.fleet.ignoring import ObjectKind

#: What is compared only where somebody asks for it.
COMMENTS, OWNERS = "comments", "owners"
#: Fields of a definition that say so.
COMMENT, OWNER = "comment", "owner"

#: Objects that others belong to.
RELATIONS = frozenset(
    {
        ObjectKind.TABLE,
        ObjectKind.FOREIGN_TABLE,
        ObjectKind.VIEW,
        ObjectKind.MATERIALIZED_VIEW,
        ObjectKind.TYPE,
    }
)


@dataclass(frozen=True, slots=True)
class Definition:
    """One object."""

    kind: ObjectKind
    #: What it is called; of a function with its arguments.
    name: str
    #: The table, view or type that it belongs to, or is; ``None`` for what stands by itself.
    table: str | None = None
    #: What is said of it, by what that is. What is not so, or as usual, is left out.
    fields: Mapping[str, str] = field(default_factory=dict)
    #: The SQL that makes it, where that is known and more than the fields say.
    sql: str | None = None

    @property
    def key(self) -> tuple[ObjectKind, str, str]:
        """What makes it the same object in two tenants. A sequence stays itself when it gets another owner."""
        table = "" if self.kind is ObjectKind.SEQUENCE else self.table or ""
        return self.kind, table, self.name
