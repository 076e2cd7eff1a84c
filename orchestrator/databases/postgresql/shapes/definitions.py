"""The lines that a PostgreSQL schema's fingerprint is made from, taken apart: see ``lines`` for each."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from orchestrator.databases.definitions import OWNER, RELATIONS, Definition
from orchestrator.fleet.ignoring import ObjectKind

_Row = Sequence[str | None]

#: ``pg_class.relkind`` (PostgreSQL documentation, 53.11).
_RELATIONS = {
    "r": ObjectKind.TABLE,
    "p": ObjectKind.TABLE,
    "f": ObjectKind.FOREIGN_TABLE,
    "v": ObjectKind.VIEW,
    "m": ObjectKind.MATERIALIZED_VIEW,
    "c": ObjectKind.TYPE,
    "S": ObjectKind.SEQUENCE,
}
_COLUMNS = {
    ObjectKind.VIEW: ObjectKind.VIEW_COLUMN,
    ObjectKind.MATERIALIZED_VIEW: ObjectKind.VIEW_COLUMN,
    ObjectKind.TYPE: ObjectKind.ATTRIBUTE,
}
_PERSISTENCE = {"u": "unlogged", "t": "temporary"}
_REPLICA_IDENTITY = {"n": "nothing", "f": "full", "i": "an index"}
_IDENTITY = {"a": "always", "d": "by default"}
_STORAGE = {"p": "plain", "x": "extended", "e": "external", "m": "main"}
_CONSTRAINTS = {
    "p": "primary key",
    "u": "unique",
    "f": "foreign key",
    "c": "check",
    "x": "exclusion",
    "t": "trigger",
    "n": "not null",
}
_ENABLED = {"O": "enabled", "D": "disabled", "R": "on replicas only", "A": "always"}
_COMMANDS = {"r": "select", "a": "insert", "w": "update", "d": "delete", "*": "all"}
_FUNCTIONS = {"f": "function", "p": "procedure", "a": "aggregate", "w": "window function"}
_VOLATILITY = {"i": "immutable", "s": "stable", "v": "volatile"}
_PARALLEL = {"s": "safe", "r": "restricted", "u": "unsafe"}
_TYPES = {"e": ObjectKind.ENUM, "d": ObjectKind.DOMAIN}

#: Fields that are expressions, or have some in them.
_EXPRESSIONS = frozenset({"definition", "using", "with_check", "default", "generated_as"})
#: What ``IN ('a', 'b')`` on a varchar comes to. Dumped and restored it is the same, and prints each element's cast.
_ARRAY_CAST = re.compile(
    r"\(ARRAY\[((?:'(?:[^']|'')*'::[a-z ]+(?:\(\d+\))?(?:, )?)+)\]\)::([a-z ]+(?:\(\d+\))?)\[\]", re.DOTALL
)
_LITERAL = re.compile(r"'(?:[^']|'')*'::[a-z ]+(?:\(\d+\))?", re.DOTALL)

_QUOTED = re.compile(r'"((?:[^"\\]|""|\\.)*)"|((?:[^",()\\]|\\.)*)', re.DOTALL)
_ELEMENT = re.compile(r'(?:^|(?<=,))(?:"((?:[^"\\]|\\.)*)"|((?:[^",\\]|\\.)+))(?=,|$)', re.DOTALL)
_IDENTIFIER = re.compile(r'"((?:[^"]|"")*)"|([^".]+)')


def definitions_of(lines: Iterable[str]) -> tuple[Definition, ...]:
    """Take apart what ``lines_of_tenants`` in ``fingerprint`` reads of one tenant."""
    rows = [parse_row(line) for line in lines]
    kinds = {str(row[1]): _RELATIONS[str(row[2])] for row in rows if row[0] == "relation"}
    sequences = {bare(str(row[1])): row for row in rows if row[0] == "sequence"}
    views = {bare(str(row[1])): str(row[4]) for row in rows if row[:1] == ["rule"] and row[2] == "_RETURN"}
    found: list[Definition] = []
    asides: dict[tuple[str, ...], dict[str, str]] = {}
    for row in rows:
        match row[0]:
            case "comment" | "owner":
                aside, what, name, part, text = map(str, row)
                name = name if what in ("type", "function") else bare(name)
                asides.setdefault((what, name, part) if row[3] else (what, name), {})[aside] = text
            case "constraint trigger":
                table, name, own, enabled = map(str, row[1:])
                # One on the table that is referred to carries out what happens to the rows that refer.
                what = "enabled" if own == "t" else "actions"
                asides.setdefault(("constraint", bare(table), name), {})[what] = _ENABLED[enabled]
            case "relation" if row[2] == "S":
                found.append(_sequence(row, sequences[str(row[1])]))
            case "relation":
                found.append(_relation(row, views))
            case "sequence":
                pass
            case "type" if row[2] == "m":
                # A multirange comes and goes with its range.
                pass
            case "rule" if row[2] == "_RETURN":
                pass
            case "column":
                found.append(_column(row, kinds[str(row[1])]))
            case kind:
                found.append(_OTHERS[str(kind)](row))
    return tuple(_with(each, asides.get(_aside(each))) for each in found) if asides else tuple(found)


def _with(definition: Definition, said: Mapping[str, str] | None) -> Definition:
    if said is None:
        return definition
    if definition.kind is ObjectKind.SEQUENCE and definition.table is not None:
        # It goes with its table.
        said = {name: value for name, value in said.items() if name != OWNER}
    return replace(definition, fields={**definition.fields, **said})


def _aside(definition: Definition) -> tuple[str, ...]:
    """How comments and owners name the object."""
    kind, table = definition.kind, definition.table or ""
    if kind in (ObjectKind.COLUMN, ObjectKind.VIEW_COLUMN, ObjectKind.ATTRIBUTE):
        return "column", table, definition.name
    if kind is ObjectKind.CONSTRAINT:
        return "constraint", table, definition.name
    if kind in (ObjectKind.INDEX, ObjectKind.FUNCTION):
        return kind.value, definition.name
    is_relation = kind in RELATIONS - {ObjectKind.TYPE} or kind is ObjectKind.SEQUENCE or table == definition.name
    return "relation" if is_relation else "type", definition.name


def parse_row(line: str) -> list[str | None]:
    """The fields of the text of a composite value: nothing stands for NULL, and quotes for an empty text."""
    fields: list[str | None] = []
    at = 1
    while True:
        found = _QUOTED.match(line, at)
        assert found, line
        if found[1] is not None:
            fields.append(re.sub(r'""|\\(.)', lambda each: each[1] or '"', found[1], flags=re.DOTALL))
        else:
            fields.append(re.sub(r"\\(.)", r"\1", found[2], flags=re.DOTALL) if found[2] else None)
        at = found.end() + 1
        if at >= len(line):
            return fields


def parse_array(text: str) -> list[str]:
    """The elements of a one-dimensional array's text without NULLs, ``{a,"b c"}``."""
    found = _ELEMENT.finditer(text[1:-1]) if text != "{}" else ()
    return [re.sub(r"\\(.)", r"\1", each[1] if each[1] is not None else each[2], flags=re.DOTALL) for each in found]


def bare(name: str) -> str:
    """The last part of a name in SQL, without its quotes."""
    *_, last = _IDENTIFIER.finditer(name)
    return str(last[2]) if last[1] is None else last[1].replace('""', '"')


def _said(**fields: str | None) -> Mapping[str, str]:
    """What is so; words are joined by an underscore here and by a space there."""
    return {
        name.replace("_", " "): _restored(value) if name in _EXPRESSIONS else value
        for name, value in fields.items()
        if value
    }


def _restored(expression: str) -> str:
    """An expression as it prints after a dump was restored."""

    def each_cast(found: re.Match[str]) -> str:
        return f"ARRAY[{', '.join(f'({each})::{found[2]}' for each in _LITERAL.findall(found[1]))}]"

    return _ARRAY_CAST.sub(each_cast, expression)


def _yes(value: str | None) -> str | None:
    return "yes" if value == "t" else None


def _no(value: str | None) -> str | None:
    return "no" if value == "f" else None


def _elements(value: str | None) -> str | None:
    return None if value is None else ", ".join(parse_array(value))


def _relation(row: _Row, views: Mapping[str, str]) -> Definition:
    _, name, kind, persistence, replica, secured, forced, options, method, bound, key, of_type, parents, foreign = row
    fields = _said(
        definition=views.get(str(name)),
        persistence=_PERSISTENCE.get(persistence or ""),
        replica_identity=_REPLICA_IDENTITY.get(replica or "") if kind in ("r", "p") else None,
        row_security=_yes(secured),
        row_security_for_its_owner=_yes(forced),
        options=_elements(options),
        access_method=None if method == "heap" else method,
        partition_bound=bound,
        partition_key=key,
        of_type=of_type,
        parents=_elements(parents),
        foreign_server=foreign,
    )
    return Definition(_RELATIONS[str(kind)], str(name), str(name), fields)


def _column(row: _Row, relation: ObjectKind) -> Definition:
    _, table, name, type_, not_null, default, identity, generated, collation, storage, compression, local, at = row
    fields = _said(
        type=type_,
        nullable="no" if not_null == "t" else "yes",
        default=None if generated else default,
        identity=_IDENTITY.get(identity or ""),
        generated_as=default if generated else None,
        virtual="yes" if generated == "v" else None,
        collation=None if collation == '"default"' else collation,
        storage=_STORAGE.get(storage or "", storage),
        compression=compression,
        inherited="yes" if local == "f" else None,
        position=at,
    )
    return Definition(_COLUMNS.get(relation, ObjectKind.COLUMN), str(name), str(table), fields)


def _constraint(row: _Row) -> Definition:
    _, table, name, kind, validated, deferrable, deferred, local, no_inherit, definition = row
    if kind == "n":
        # PostgreSQL 18 gives NOT NULL a name, after what the table was called then. Nobody else does, or means it.
        name = re.sub(r" (NO INHERIT|NOT VALID)", "", definition or "")
    fields = _said(
        type=_CONSTRAINTS.get(kind or "", kind),
        definition=definition,
        validated=_no(validated),
        deferrable=_yes(deferrable),
        deferred=_yes(deferred),
        inherited="yes" if local == "f" else None,
        no_inherit=_yes(no_inherit) if kind in ("c", "n") else None,
    )
    return Definition(ObjectKind.CONSTRAINT, str(name), bare(str(table)), fields)


def _index(row: _Row) -> Definition:
    _, table, name, valid, ready, primary, replica, partition, definition = row
    fields = _said(
        valid=_no(valid),
        ready=_no(ready),
        primary=_yes(primary),
        replica_identity=_yes(replica),
        of_a_partition=_yes(partition),
        definition=definition,
    )
    return Definition(ObjectKind.INDEX, str(name), bare(str(table)), fields)


def _sequence(relation: _Row, row: _Row) -> Definition:
    _, _, type_, start, increment, low, high, cache, cycle, owner = row
    owned = parse_row(owner) if owner else [None, None, None]
    fields = _said(
        type=type_,
        start=start,
        increment=increment,
        minimum=low,
        maximum=high,
        cache=cache,
        cycle=_yes(cycle),
        persistence=_PERSISTENCE.get(relation[3] or ""),
        column=owned[2],
        identity="yes" if owned[0] == "i" else None,
    )
    return Definition(ObjectKind.SEQUENCE, str(relation[1]), bare(owned[1]) if owned[1] else None, fields)


def _rule(row: _Row) -> Definition:
    _, table, name, enabled, definition = row
    fields = _said(enabled=_ENABLED.get(enabled or "", enabled), definition=definition)
    return Definition(ObjectKind.RULE, str(name), bare(str(table)), fields)


def _trigger(row: _Row) -> Definition:
    _, table, name, enabled, definition = row
    fields = _said(enabled=_ENABLED.get(enabled or "", enabled), definition=definition)
    return Definition(ObjectKind.TRIGGER, str(name), bare(str(table)), fields)


def _policy(row: _Row) -> Definition:
    _, table, name, command, permissive, using, check, roles = row
    fields = _said(
        command=_COMMANDS.get(command or "", command),
        kind="permissive" if permissive == "t" else "restrictive",
        using=using,
        with_check=check,
        roles=_elements(roles),
    )
    return Definition(ObjectKind.POLICY, str(name), bare(str(table)), fields)


def _type(row: _Row) -> Definition:
    _, name, kind, _, delimiter, length, not_null, base, default, collation, labels, of_range, functions = row
    if kind == "e":
        values = ", ".join("'" + label.replace("'", "''") + "'" for label in parse_array(labels or "{}"))
        return Definition(ObjectKind.ENUM, str(name), None, {"values": values})
    fields = _said(
        base=base,
        nullable="no" if not_null == "t" else None,
        default=default,
        collation=None if collation == '"default"' else collation,
        range=of_range,
        functions=functions,
        length=length if kind == "b" else None,
        delimiter=delimiter if kind == "b" else None,
    )
    return Definition(_TYPES.get(kind or "", ObjectKind.TYPE), str(name), None, fields)


def _domain_constraint(row: _Row) -> Definition:
    _, domain, name, validated, definition = row
    fields = _said(definition=definition, validated=_no(validated))
    return Definition(ObjectKind.DOMAIN_CONSTRAINT, str(name), bare(str(domain)), fields)


def _function(row: _Row) -> Definition:
    _, name, arguments, result, kind, language, volatility, parallel, strict, definer, leakproof, *rest = row
    cost, rows, settings, body, library, sql_body, aggregate = rest
    fields = _said(
        kind=_FUNCTIONS.get(kind or "", kind),
        returns=result,
        language=language,
        body=body or None,
        sql_body=sql_body,
        volatility=_VOLATILITY.get(volatility or "", volatility),
        parallel=_PARALLEL.get(parallel or "", parallel),
        strict=_yes(strict),
        security_definer=_yes(definer),
        leakproof=_yes(leakproof),
        cost=cost,
        rows=None if rows == "0" else rows,
        settings=_elements(settings),
        library=library,
        aggregate=aggregate,
    )
    return Definition(ObjectKind.FUNCTION, f"{name}({arguments or ''})", None, fields)


def _extension(row: _Row) -> Definition:
    _, name, version, schema = row
    return Definition(ObjectKind.EXTENSION, str(name), None, _said(version=version, schema=schema))


_OTHERS: Mapping[str, Callable[[_Row], Definition]] = {
    "constraint": _constraint,
    "index": _index,
    "rule": _rule,
    "trigger": _trigger,
    "policy": _policy,
    "type": _type,
    "domain constraint": _domain_constraint,
    "function": _function,
    "extension": _extension,
}
