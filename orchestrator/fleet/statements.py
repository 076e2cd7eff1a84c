"""Statements of the user's with a tenant's fields in them: ``INSERT INTO customers (slug) VALUES (:id)``.

The values never become text of the statement: each ``:name`` is a parameter that the driver binds. Its type is told by
where it stands, so every occurrence is a parameter of its own: one may be a ``varchar`` and the other a ``text``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from orchestrator.fleet.kinds import wrong
from orchestrator.fleet.nearest import did_you_mean
from orchestrator.fleet.tenant import Limits, Tenant

#: Names that a statement may use: the tenant's fields.
PARAMETERS = (*(name for name in Tenant.__slots__ if name != "limits"), *Limits.__slots__)
#: Those that tell one tenant from the others.
_IDENTIFYING = ("id", "schema", "database", "file")

#: PostgreSQL's lexical structure (manual, 4.1), as far as it decides whether a colon begins a name.
_PIECE = re.compile(
    r"""
    (?P<text>
        (?<![\w$])[eE]'(?:[^'\\]|\\.|'')*'
      | '(?:[^']|'')*'
      | "(?:[^"]|"")*"
      | (?<![\w$])\$(?P<tag>(?:[^\W\d]\w*)?)\$.*?\$(?P=tag)\$
      | ::
    )
    | (?P<comment>--[^\r\n]* | /\*)
    | (?P<unclosed>['"] | (?<![\w$])\$(?:[^\W\d]\w*)?\$)
    | (?P<number>(?<![\w$])\$\d+)
    | :(?P<name>[^\W\d]\w*)
    | (?P<end>;)
    """,
    re.VERBOSE | re.DOTALL,
)
_BLOCK = re.compile(r"/\*|\*/")


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement and what it wants to know."""

    #: With ``$1``, ``$2``, ... in place of the names.
    numbered: str
    #: A name for each number.
    names: tuple[str, ...]


def parse(text: str) -> Statement:
    """Find the names in a statement.

    Raises:
        PydanticCustomError: a name is no field of a tenant, no name says which tenant, or it is not one statement.
    """
    out: list[str] = []
    names: list[str] = []
    at, ended = 0, False
    for found in _pieces(text):
        is_comment = found["comment"] is not None
        if ended and (text[at : found.start()].strip() or not (is_comment or found["end"])):
            raise _several()
        out.append(text[at : found.start()])
        at = _end_of_comment(text, found.end()) if found["comment"] == "/*" else found.end()
        if found["name"] is not None:
            names.append(_known(found["name"]))
            out.append(f"${len(names)}")
        elif found["end"]:
            ended = True
        else:
            out.append(text[found.start() : at])
    if ended and text[at:].strip():
        raise _several()
    if not set(names) & set(_IDENTIFYING):
        raise wrong("it does the same whatever the tenant", "say which tenant it means: :id")
    return Statement("".join([*out, text[at:]]), tuple(names))


def values_of(tenant: Tenant) -> dict[str, Any]:
    """The fields of a tenant by the names that statements know; what it does not have is ``None``."""
    values: dict[str, Any] = {name: getattr(tenant, name) for name in Tenant.__slots__ if name != "limits"}
    values |= {name: getattr(tenant.limits, name) for name in Limits.__slots__}
    return {**values, "isolation": str(tenant.isolation), "tags": list(tenant.tags)}


def _pieces(text: str) -> Iterator[re.Match[str]]:
    at = 0
    while found := _PIECE.search(text, at):
        if found["unclosed"]:
            raise wrong(f"the {found['unclosed']} in it is not closed", "close it")
        if found["number"]:
            raise wrong(f"`{found['number']}` has no meaning here", "write the name of a field: :id")
        yield found
        at = _end_of_comment(text, found.end()) if found["comment"] == "/*" else found.end()


def _end_of_comment(text: str, at: int) -> int:
    """Where the comment that was opened before ``at`` ends; in PostgreSQL, one may be in another."""
    depth = 1
    for mark in _BLOCK.finditer(text, at):
        depth += 1 if mark[0] == "/*" else -1
        if depth == 0:
            return mark.end()
    raise wrong("the /* in it is not closed", "close it with */")


def _known(name: str) -> str:
    if name in PARAMETERS:
        return name
    near = did_you_mean(name, PARAMETERS)
    known = ", ".join(f":{each}" for each in PARAMETERS)
    hint = f"did you mean `:{near}`?" if near else f"one of: {known}; a slice is written with spaces: [1 : n]"
    raise wrong(f"a tenant has no `:{name}`", hint)


def _several() -> Exception:
    return wrong("it is more than one statement", "write one; WITH ... AS (INSERT ...) INSERT ... does several things")
