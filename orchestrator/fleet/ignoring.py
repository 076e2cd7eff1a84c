"""What may differ from tenant to tenant: rules for `drift`, by the kind of an object, its table and its name."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase


class ObjectKind(StrEnum):
    """What a definition is of, as `drift` and its rules spell it."""

    TABLE = "table"
    FOREIGN_TABLE = "foreign table"
    VIEW = "view"
    MATERIALIZED_VIEW = "materialized view"
    COLUMN = "column"
    #: Of a view: it cannot be altered by itself.
    VIEW_COLUMN = "view column"
    #: Of a composite type.
    ATTRIBUTE = "attribute"
    CONSTRAINT = "constraint"
    INDEX = "index"
    SEQUENCE = "sequence"
    TRIGGER = "trigger"
    POLICY = "policy"
    RULE = "rule"
    ENUM = "enum"
    DOMAIN = "domain"
    DOMAIN_CONSTRAINT = "domain constraint"
    #: Composite types, ranges and base types.
    TYPE = "type"
    FUNCTION = "function"
    EXTENSION = "extension"


@dataclass(frozen=True, slots=True)
class IgnoreRule:
    """Objects that may differ. All that is given must match."""

    kind: ObjectKind | None = None
    #: Glob for the table, view or composite type that the object belongs to or is; ``None`` for any, or none.
    table: str | None = None
    #: Glob for the object's own name; ``None`` for any.
    name: str | None = None

    def matches(self, kind: str, table: str | None, name: str) -> bool:
        """Whether the object may differ.

        Args:
            kind: of the object.
            table: what it belongs to; of a table itself, its own name; ``None`` where there is no such thing.
            name: its own.
        """
        return (
            self.kind in (None, kind)
            and (self.table is None or (table is not None and fnmatchcase(table, self.table)))
            and (self.name is None or fnmatchcase(name, self.name))
        )
