"""A difference in words, a line for each object. Pure."""

from __future__ import annotations

from collections import Counter
from itertools import zip_longest

from orchestrator.fleet.ignoring import ObjectKind
from orchestrator.rollout.differences import Change, What

#: Values that say all by themselves, without what they should be.
_PLAIN = {
    ("valid", "no"): "is invalid",
    ("ready", "no"): "is not ready",
    ("validated", "no"): "is not validated",
    ("enabled", "disabled"): "is disabled",
    ("actions", "disabled"): "does not carry out its ON DELETE and ON UPDATE, which are disabled",
    ("nullable", "yes"): "is nullable",
    ("nullable", "no"): "is NOT NULL",
}
#: What is so where nothing is said, and "none" would be another thing.
_USUAL = {"replica identity": "default"}
#: Fields whose absence has a name of its own.
_ABSENT = {"generated as": "not generated"}
#: Objects that are called by their table, too.
_OF_A_TABLE = frozenset({ObjectKind.COLUMN, ObjectKind.VIEW_COLUMN, ObjectKind.ATTRIBUTE})
#: Texts of several lines, of which the first that differs is told.
_LONG = frozenset({"body", "sql body"})


def told(change: Change) -> str:
    """One line: what is the matter with which object."""
    if change.what is not What.DIFFERENT:
        return f"{change.what.value} {_object(change)}{_described(change)}"
    parts = [_field(name, *values) for name, values in change.fields.items()]
    return f"{_object(change)} {'; '.join(parts)}"


def _object(change: Change) -> str:
    made = change.definition
    if made.kind in _OF_A_TABLE:
        return f"{made.kind.value} {made.table}.{made.name}"
    if made.table is None or made.table == made.name:
        return f"{made.kind.value} {made.name}"
    return f"{made.kind.value} {made.name} on {made.table}"


def _described(change: Change) -> str:
    fields = change.definition.fields
    if change.parts:
        counts = Counter(part.kind for part in change.parts)
        return f" ({', '.join(_count(count, kind) for kind, count in counts.items())})"
    for name in ("definition", "values", "version"):
        if name in fields:
            return f": {_one_line(fields[name])}"
    if made := fields.get("type"):
        null = " not null" if fields.get("nullable") == "no" else ""
        default = f" default {fields['default']}" if "default" in fields else ""
        return f": {made}{null}{default}"
    return ""


def _count(count: int, kind: ObjectKind) -> str:
    plural = {"index": "indexes", "policy": "policies"}.get(kind.value, f"{kind.value}s")
    return f"{count} {kind.value if count == 1 else plural}"


def _field(name: str, expected: str | None, found: str | None) -> str:
    if found is not None and (name, found) in _PLAIN:
        return _PLAIN[name, found]
    if found is None and (name, expected) in _PLAIN:
        # What is left out is as usual, and the reference is not.
        return f"{name} is yes, expected {expected}"
    if name in _LONG and expected and found:
        pairs = zip_longest(expected.splitlines(), found.splitlines(), fillvalue="")
        differing = ((at, pair) for at, pair in enumerate(pairs, 1) if pair[0] != pair[1])
        line, (wanted, there) = next(differing, (0, ("", "")))
        if not line:
            return f"{name} has other line ends"
        return f"{name} differs in line {line}: {there.strip() or 'nothing'}, expected {wanted.strip() or 'nothing'}"
    if name in _ABSENT and found is None:
        return f"is {_ABSENT[name]}, expected {name} {_one_line(expected or '')}"
    if name in _ABSENT and expected is None:
        return f"is {name} {_one_line(found or '')}, expected {_ABSENT[name]}"
    usual = _USUAL.get(name, "none")
    return f"{name} is {_one_line(found or usual)}, expected {_one_line(expected or usual)}"


def _one_line(text: str) -> str:
    return " ".join(text.split())
