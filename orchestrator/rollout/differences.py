"""How one tenant's objects differ from another's: what is missing, extra or otherwise. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from orchestrator.databases.definitions import RELATIONS, Definition
from orchestrator.fleet.ignoring import IgnoreRule, ObjectKind

_KINDS = list(ObjectKind)
#: Fields that only repeat what another one says when both differ.
_IMPLIED = {
    "definition": ("validated", "deferrable", "deferred", "no inherit", "type"),
    "type": ("storage", "collation"),
    "kind": ("cost", "rows"),
    "language": ("cost", "rows"),
}


class What(StrEnum):
    """What is the matter with an object."""

    #: The reference has it, the tenant does not.
    MISSING = "missing"
    #: The tenant has it, the reference does not.
    EXTRA = "extra"
    #: Both have it, and it is not the same.
    DIFFERENT = "different"


@dataclass(frozen=True, slots=True)
class Change:
    """One object that is not as in the reference."""

    what: What
    #: The object as it should be; of an extra one, as it is.
    definition: Definition
    #: What is said of it here and not there, as (in the reference, in the tenant); ``None`` for nothing.
    fields: Mapping[str, tuple[str | None, str | None]] = field(default_factory=dict)
    #: The object as it is, of a different one.
    found: Definition | None = None
    #: What comes and goes with it: the columns of a missing table, for example.
    parts: tuple[Change, ...] = ()

    @property
    def kind(self) -> ObjectKind:
        """What the object is."""
        return self.definition.kind

    def is_ignored(self, rules: Iterable[IgnoreRule]) -> bool:
        """Whether one of ``rules`` says that it may differ."""
        made = self.definition
        return any(rule.matches(made.kind, made.table, made.name) for rule in rules)

    def as_json(self) -> dict[str, Any]:
        """An entry of ``changes``; also what a baseline keeps."""
        made = self.definition
        return {
            "change": self.what.value,
            "kind": made.kind.value,
            "table": made.table,
            "name": made.name,
            "fields": {name: {"expected": values[0], "found": values[1]} for name, values in self.fields.items()},
            "parts": [part.as_json() for part in self.parts],
        }


def differences(
    reference: Iterable[Definition], found: Iterable[Definition], rules: Collection[IgnoreRule] = ()
) -> tuple[Change, ...]:
    """What is not in ``found`` as it is in ``reference``, by table and kind.

    Args:
        reference: what should be there.
        found: what is there.
        rules: what may differ.
    """
    expected, there = ({each.key: each for each in side} for side in (reference, found))
    changes = [_change(expected.get(key), there.get(key)) for key in expected.keys() | there.keys()]
    told = _without_repetitions(_paired([change for change in changes if change is not None]))
    return _sorted(_gathered([change for change in told if not change.is_ignored(rules)]))


def _change(expected: Definition | None, found: Definition | None) -> Change | None:
    if expected is None or found is None:
        there = expected or found
        assert there is not None
        fields = {
            name: (value, None) if found is None else (None, value) for name, value in sorted(there.fields.items())
        }
        return Change(What.MISSING if found is None else What.EXTRA, there, fields)
    names = sorted(expected.fields.keys() | found.fields.keys())
    pairs = {name: (expected.fields.get(name), found.fields.get(name)) for name in names}
    pairs = {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
    if expected.kind is ObjectKind.SEQUENCE and expected.table != found.table:
        pairs["owned by"] = (expected.table, found.table)
    for told, implied in _IMPLIED.items():
        if told in pairs:
            pairs = {name: pair for name, pair in pairs.items() if name not in implied or name == told}
    return Change(What.DIFFERENT, expected, pairs, found) if pairs else None


def _paired(changes: Sequence[Change]) -> list[Change]:
    """A function with other arguments is the same function, as long as it is the only one of its name."""
    functions: dict[str, list[Change]] = {}
    for change in changes:
        if change.kind is ObjectKind.FUNCTION:
            functions.setdefault(change.definition.name.partition("(")[0], []).append(change)
    kept = list(changes)
    for same in functions.values():
        sides = {change.what: change for change in same}
        if len(same) == 2 and sides.keys() == {What.MISSING, What.EXTRA}:
            expected, found = sides[What.MISSING].definition, sides[What.EXTRA].definition
            otherwise = _change(expected, found)
            fields = {} if otherwise is None else otherwise.fields
            kept = [each for each in kept if each not in same]
            kept.append(Change(What.DIFFERENT, expected, {"arguments": (expected.name, found.name), **fields}, found))
    return kept


def _without_repetitions(changes: Sequence[Change]) -> list[Change]:
    """Without what PostgreSQL makes of something else that is told: a constraint's index, an identity's sequence."""
    constraints = {
        (change.what, change.definition.table, change.definition.name): change
        for change in changes
        if change.kind is ObjectKind.CONSTRAINT
    }
    columns = {
        (change.definition.table, change.definition.name): change
        for change in changes
        if change.kind is ObjectKind.COLUMN
    }
    views = {
        change.definition.table
        for change in changes
        if change.kind in (ObjectKind.VIEW, ObjectKind.MATERIALIZED_VIEW) and change.what is What.DIFFERENT
    }

    def repeats(change: Change) -> bool:
        made = change.definition
        match made.kind:
            case ObjectKind.INDEX:
                return (change.what, made.table, made.name) in constraints
            case ObjectKind.CONSTRAINT if made.fields.get("type") == "not null":
                column = columns.get((made.table, _not_null_column(made.name)))
                return column is not None and (column.what is not What.DIFFERENT or "nullable" in column.fields)
            case ObjectKind.SEQUENCE if made.fields.get("identity"):
                return (made.table, made.fields.get("column")) in columns
            case ObjectKind.VIEW_COLUMN:
                return made.table in views
        return False

    return [change for change in changes if not repeats(change)]


def _not_null_column(definition: str) -> str:
    name = definition.removeprefix("NOT NULL ")
    return name[1:-1].replace('""', '"') if name.startswith('"') else name


def _gathered(changes: Sequence[Change]) -> list[Change]:
    """What comes or goes with a table, a view or a column, put under it."""
    whole: dict[tuple[What, str | None], Change] = {
        (change.what, change.definition.table): change
        for change in changes
        if change.kind in RELATIONS and change.what is not What.DIFFERENT
    }
    columns: dict[tuple[What, str | None, str], Change] = {
        (change.what, change.definition.table, change.definition.name): change
        for change in changes
        if change.kind is ObjectKind.COLUMN and change.what is not What.DIFFERENT
    }
    parts: dict[int, list[Change]] = {}
    alone: list[Change] = []
    for change in changes:
        made = change.definition
        owner = whole.get((change.what, made.table))
        if owner is None and change.kind is ObjectKind.SEQUENCE:
            owner = columns.get((change.what, made.table, made.fields.get("column", "")))
        if owner is None or owner is change:
            alone.append(change)
        else:
            parts.setdefault(id(owner), []).append(change)
    return [replace(change, parts=_sorted(parts.get(id(change), ()))) for change in alone]


def _sorted(changes: Iterable[Change]) -> tuple[Change, ...]:
    def place(change: Change) -> tuple[str, int, str]:
        return change.definition.table or "", _KINDS.index(change.kind), change.definition.name

    return tuple(sorted(changes, key=place))
