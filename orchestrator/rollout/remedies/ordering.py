"""In what order differences are mended: what is in the way goes first, what others need comes before them. Pure.

The kinds have an order that fits most of it. Beyond that, what an object is said to be names what it needs: a foreign
key its other table, a view what it reads, a partition its parent, a column its type.
"""

from __future__ import annotations

import heapq
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence

from orchestrator.databases.definitions import Definition
from orchestrator.fleet.ignoring import ObjectKind
from orchestrator.rollout.differences import Change, What

_WORD = re.compile(r'"((?:[^"]|"")+)"|([^\W\d][\w$]*)')

#: What goes, by kind: dependents before what they depend on.
_GOING = (
    ObjectKind.POLICY,
    ObjectKind.RULE,
    ObjectKind.TRIGGER,
    ObjectKind.VIEW_COLUMN,
    ObjectKind.VIEW,
    ObjectKind.MATERIALIZED_VIEW,
    ObjectKind.CONSTRAINT,
    ObjectKind.INDEX,
    ObjectKind.COLUMN,
    ObjectKind.FOREIGN_TABLE,
    ObjectKind.TABLE,
    ObjectKind.SEQUENCE,
    ObjectKind.FUNCTION,
    ObjectKind.DOMAIN_CONSTRAINT,
    ObjectKind.DOMAIN,
    ObjectKind.ATTRIBUTE,
    ObjectKind.TYPE,
    ObjectKind.ENUM,
    ObjectKind.EXTENSION,
)
#: What comes or is altered, by kind: what is needed before those that need it.
_COMING = (
    ObjectKind.EXTENSION,
    ObjectKind.ENUM,
    ObjectKind.DOMAIN,
    ObjectKind.DOMAIN_CONSTRAINT,
    ObjectKind.TYPE,
    ObjectKind.ATTRIBUTE,
    ObjectKind.SEQUENCE,
    ObjectKind.TABLE,
    ObjectKind.FOREIGN_TABLE,
    ObjectKind.COLUMN,
    ObjectKind.INDEX,
    ObjectKind.CONSTRAINT,
    ObjectKind.FUNCTION,
    ObjectKind.VIEW,
    ObjectKind.MATERIALIZED_VIEW,
    ObjectKind.VIEW_COLUMN,
    ObjectKind.RULE,
    ObjectKind.TRIGGER,
    ObjectKind.POLICY,
)


def in_order(changes: Sequence[Change]) -> list[Change]:
    """``changes`` in an order in which their operations can be carried out, as far as their text tells.

    Args:
        changes: of one tenant, in the order that counts where nothing else does.
    """
    after: dict[int, set[int]] = defaultdict(set)
    for first, second in _needs(changes):
        after[first].add(second)
    waits = [0] * len(changes)
    for others in after.values():
        for other in others:
            waits[other] += 1
    # Who waits in a circle has its turn once nobody else is left.
    left = [(waits[at] > 0, _rank(change), at) for at, change in enumerate(changes)]
    heapq.heapify(left)
    done: set[int] = set()
    order: list[Change] = []
    while left:
        _, _, at = heapq.heappop(left)
        if at in done:
            continue
        done.add(at)
        order.append(changes[at])
        for other in after[at] - done:
            waits[other] -= 1
            if waits[other] == 0:
                heapq.heappush(left, (False, _rank(changes[other]), other))
    return order


def _rank(change: Change) -> tuple[bool, int, bool]:
    going = change.what is What.EXTRA
    key = change.definition.fields.get("type") == "foreign key"
    # A foreign key needs the other table's key, and goes before it.
    return not going, (_GOING if going else _COMING).index(change.kind), key is not going


def _needs(changes: Sequence[Change]) -> Iterator[tuple[int, int]]:
    """Pairs of places in ``changes``: the first comes before the second."""
    called: dict[str, list[int]] = defaultdict(list)
    for at, change in enumerate(changes):
        for name in _names(change):
            called[name].append(at)
    for at, change in enumerate(changes):
        wanted = _words(change.definition, change.parts)
        there = wanted if change.found is None else _words(change.found, ())
        for what, words in ((What.MISSING, wanted), (What.EXTRA, there)):
            if change.what not in (what, What.DIFFERENT):
                continue
            for word in words:
                for other in called.get(word, ()):
                    if other != at and changes[other].what is what and _is_meant(changes[other], words):
                        # What comes is there before it is needed; what goes is not needed by then.
                        yield (other, at) if what is What.MISSING else (at, other)


def _names(change: Change) -> Iterator[str]:
    """By what others may name it."""
    name = change.definition.name
    if change.kind is ObjectKind.FUNCTION:
        yield name.partition("(")[0]
    elif change.kind not in (ObjectKind.CONSTRAINT, ObjectKind.TRIGGER, ObjectKind.POLICY, ObjectKind.RULE):
        yield name
        yield from (part.definition.name for part in change.parts if part.kind is ObjectKind.SEQUENCE)


def _is_meant(named: Change, words: set[str]) -> bool:
    """A column's name alone means nothing: its table is there, too."""
    if named.kind not in (ObjectKind.COLUMN, ObjectKind.VIEW_COLUMN, ObjectKind.ATTRIBUTE):
        return True
    return named.definition.table in words


def _words(made: Definition, parts: Sequence[Change]) -> set[str]:
    """The names in all that is said of an object and of what comes with it."""
    found = {made.table} if made.table is not None else set()
    for each in (made, *(part.definition for part in parts)):
        for text in (*each.fields.values(), each.sql or ""):
            found.update(quoted.replace('""', '"') or plain for quoted, plain in _WORD.findall(text))
    if made.kind is ObjectKind.FUNCTION:
        found.update(quoted or plain for quoted, plain in _WORD.findall(made.name.partition("(")[2]))
    return found
