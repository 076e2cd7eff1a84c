"""What makes an object of PostgreSQL's what it should be."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from orchestrator.databases.definitions import COMMENT, OWNER, Definition
from orchestrator.fleet.ignoring import ObjectKind
from orchestrator.rollout.differences import Change, What
from orchestrator.rollout.remedies import asides, columns, constraints, tables
from orchestrator.rollout.remedies.source import by_hand, create_index, execute, py, quoted

_Make = Callable[[Definition], Iterator[str]]
_Alter = Callable[[Change, Definition], Iterator[str]]

_ENABLE = {
    "enabled": "ENABLE",
    "disabled": "DISABLE",
    "on replicas only": "ENABLE REPLICA",
    "always": "ENABLE ALWAYS",
}
_LABEL = re.compile(r"'(?:[^']|'')*'")


def operations(change: Change) -> Iterator[str]:
    """Lines for the ``upgrade()`` of a revision, in order."""
    fields = {name: value for name, value in change.fields.items() if name not in (COMMENT, OWNER)}
    if fields or change.what is not What.DIFFERENT:
        yield from _operations(replace(change, fields=fields))
    if change.what is not What.EXTRA and fields.keys() != change.fields.keys():
        yield from asides.said(change)


def _operations(change: Change) -> Iterator[str]:
    made = change.definition
    if change.kind is ObjectKind.TABLE and change.what is What.MISSING:
        yield from tables.create(change, operations)
    elif change.kind is ObjectKind.COLUMN and change.what is What.MISSING:
        yield from columns.add(change, operations)
    elif change.what is What.MISSING:
        yield from _MAKE[change.kind](made)
    elif change.what is What.EXTRA:
        yield from _DROP[change.kind](made)
    else:
        assert change.found is not None
        yield from _ALTER.get(change.kind, _anew)(change, change.found)


def _anew(change: Change, found: Definition) -> Iterator[str]:
    yield from _DROP[change.kind](found)
    yield from _MAKE[change.kind](change.definition)


def _make_index(made: Definition) -> Iterator[str]:
    yield create_index(made.name, made.table or "", made.fields["definition"])


def _drop_index(made: Definition) -> Iterator[str]:
    yield f"op.drop_index({py(made.name)}, table_name={py(made.table or '')})"


def _alter_index(change: Change, found: Definition) -> Iterator[str]:
    if "definition" in change.fields:
        yield from _anew(change, found)
    elif "no" in (found.fields.get("valid"), found.fields.get("ready")):
        yield execute(f"REINDEX INDEX {quoted(found.name)}")
    else:
        yield by_hand(f"which index {found.table} is known by ({', '.join(change.fields)}) is said by ALTER TABLE")


def _make_sequence(made: Definition) -> Iterator[str]:
    fields = made.fields
    if fields.get("identity"):
        return
    yield execute(
        f"CREATE SEQUENCE {quoted(made.name)} AS {fields['type']} INCREMENT {fields['increment']}"
        f" MINVALUE {fields['minimum']} MAXVALUE {fields['maximum']} START {fields['start']} CACHE {fields['cache']}"
        f"{' CYCLE' if 'cycle' in fields else ''}"
    )


def _alter_sequence(change: Change, _: Definition) -> Iterator[str]:
    made = change.definition
    words = {
        "type": "AS",
        "increment": "INCREMENT",
        "minimum": "MINVALUE",
        "maximum": "MAXVALUE",
        "start": "START",
        "cache": "CACHE",
    }
    parts = [f"{word} {made.fields[name]}" for name, word in words.items() if name in change.fields]
    if "cycle" in change.fields:
        parts.append("CYCLE" if "cycle" in made.fields else "NO CYCLE")
    if change.fields.keys() & {"owned by", "column"}:
        parts.append(owned_by(made))
    yield execute(f"ALTER SEQUENCE {quoted(made.name)} {' '.join(parts)}") if parts else _no_way(made)


def owned_by(sequence: Definition) -> str:
    """Whose sequence it is, in SQL."""
    if sequence.table is None:
        return "OWNED BY NONE"
    return f"OWNED BY {quoted(sequence.table)}.{quoted(sequence.fields.get('column', ''))}"


def _make_view(made: Definition) -> Iterator[str]:
    kind = "OR REPLACE VIEW" if made.kind is ObjectKind.VIEW else "MATERIALIZED VIEW"
    yield execute(f"CREATE {kind} {quoted(made.name)} AS {made.fields.get('definition', '').strip().rstrip(';')}")


def _alter_view(change: Change, found: Definition) -> Iterator[str]:
    if "definition" not in change.fields:
        yield _no_way(found)
        return
    if found.kind is not ObjectKind.VIEW:
        yield from _drop(found)
    yield from _make_view(change.definition)


def _make_trigger(made: Definition) -> Iterator[str]:
    yield execute(made.fields["definition"])
    if made.fields.get("enabled") != "enabled":
        yield _enabled(made, "TRIGGER")


def _alter_trigger(change: Change, found: Definition) -> Iterator[str]:
    if "definition" in change.fields:
        yield from _anew(change, found)
    else:
        yield _enabled(change.definition, found.kind.value.upper())


def _enabled(made: Definition, kind: str) -> str:
    how = _ENABLE[made.fields["enabled"]]
    return execute(f"ALTER TABLE {quoted(made.table or '')} {how} {kind} {quoted(made.name)}")


def _make_policy(made: Definition) -> Iterator[str]:
    fields = made.fields
    parts = [f"CREATE POLICY {quoted(made.name)} ON {quoted(made.table or '')}"]
    parts.append(f"AS {fields['kind'].upper()} FOR {fields['command'].upper()}")
    roles = [role if role == "public" else quoted(role) for role in fields.get("roles", "public").split(", ")]
    parts.append(f"TO {', '.join(roles)}")
    parts += [f"{word} ({fields[name]})" for name, word in _POLICY.items() if name in fields]
    yield execute(" ".join(parts))


_POLICY = {"using": "USING", "with check": "WITH CHECK"}


def _make_enum(made: Definition) -> Iterator[str]:
    yield execute(f"CREATE TYPE {quoted(made.name)} AS ENUM ({made.fields.get('values', '')})")


def _alter_enum(change: Change, found: Definition) -> Iterator[str]:
    name = quoted(found.name)
    wanted, there = (_LABEL.findall(each.fields.get("values", "")) for each in (change.definition, found))
    odd = [(old, new) for old, new in zip(there, wanted, strict=False) if old != new]
    if [value for value in wanted if value in there] == there:
        for at, value in enumerate(wanted):
            if value not in there:
                place = f" AFTER {wanted[at - 1]}" if at else f" BEFORE {there[0]}" if there else ""
                yield execute(f"ALTER TYPE {name} ADD VALUE {value}{place}")
    elif len(wanted) == len(there) and len(odd) == 1 and odd[0][0] not in wanted and odd[0][1] not in there:
        yield execute(f"ALTER TYPE {name} RENAME VALUE {odd[0][0]} TO {odd[0][1]}")
    else:
        yield by_hand(
            f"PostgreSQL takes no value out of an enum: rename {found.name}, make it anew, ALTER each column to it"
            " USING a cast, drop the old one"
        )


def _make_domain(made: Definition) -> Iterator[str]:
    default = f" DEFAULT {made.fields['default']}" if "default" in made.fields else ""
    null = " NOT NULL" if made.fields.get("nullable") == "no" else ""
    yield execute(f"CREATE DOMAIN {quoted(made.name)} AS {made.fields.get('base', 'text')}{default}{null}")


def _alter_domain(change: Change, _: Definition) -> Iterator[str]:
    made = change.definition
    start = f"ALTER DOMAIN {quoted(made.name)}"
    if "default" in change.fields:
        default = made.fields.get("default")
        yield execute(f"{start} SET DEFAULT {default}" if default else f"{start} DROP DEFAULT")
    if "nullable" in change.fields:
        yield execute(f"{start} {'SET' if made.fields.get('nullable') == 'no' else 'DROP'} NOT NULL")
    if change.fields.keys() & {"base", "collation"}:
        yield _no_way(made)


def _make_domain_constraint(made: Definition) -> Iterator[str]:
    start = f"ALTER DOMAIN {quoted(made.table or '')} ADD CONSTRAINT {quoted(made.name)}"
    yield execute(f"{start} {made.fields['definition']}")


def _drop_domain_constraint(made: Definition) -> Iterator[str]:
    yield execute(f"ALTER DOMAIN {quoted(made.table or '')} DROP CONSTRAINT {quoted(made.name)}")


def _alter_attribute(change: Change, _: Definition) -> Iterator[str]:
    made = change.definition
    start = f"ALTER TYPE {quoted(made.table or '')}"
    if "type" in change.fields:
        yield execute(f"{start} ALTER ATTRIBUTE {quoted(made.name)} TYPE {made.fields['type']}")
    else:
        yield _no_way(made)


def _make_attribute(made: Definition) -> Iterator[str]:
    start = f"ALTER TYPE {quoted(made.table or '')} ADD ATTRIBUTE"
    yield execute(f"{start} {quoted(made.name)} {made.fields['type']}")


def _drop_attribute(made: Definition) -> Iterator[str]:
    yield execute(f"ALTER TYPE {quoted(made.table or '')} DROP ATTRIBUTE {quoted(made.name)}")


def _make_function(made: Definition) -> Iterator[str]:
    fields = made.fields
    if fields.get("kind") == "aggregate" or "library" in fields:
        yield _no_way(made)
        return
    name, _, arguments = made.name.partition("(")
    kind = "PROCEDURE" if fields.get("kind") == "procedure" else "FUNCTION"
    parts = [f"CREATE OR REPLACE {kind} {quoted(name)}({arguments}"]
    if "returns" in fields:
        parts.append(f"RETURNS {fields['returns']}")
    parts.append(f"LANGUAGE {fields['language']}")
    if kind == "FUNCTION":
        parts.append(fields["volatility"].upper())
        parts += ["STRICT"] * ("strict" in fields) + ["LEAKPROOF"] * ("leakproof" in fields)
        parts += [f"PARALLEL {fields['parallel'].upper()}"] if fields.get("parallel") != "unsafe" else []
    parts += ["SECURITY DEFINER"] * ("security definer" in fields)
    parts.append(fields["sql body"] if "sql body" in fields else f"AS {_dollars(fields.get('body', ''))}")
    yield execute(" ".join(parts))
    if "settings" in fields:
        yield by_hand(f"ALTER {kind} {name} SET {fields['settings']}")


def _alter_function(change: Change, found: Definition) -> Iterator[str]:
    if change.fields.keys() & {"arguments", "returns", "kind"}:
        yield from _drop_function(found)
    yield from _make_function(change.definition)


def _drop_function(made: Definition) -> Iterator[str]:
    name, _, arguments = made.name.partition("(")
    kind = {"procedure": "PROCEDURE", "aggregate": "AGGREGATE"}.get(made.fields.get("kind", ""), "FUNCTION")
    # DROP takes no defaults; a comma in one would need parsing, and the server's message says what it wants.
    without = re.sub(r" DEFAULT (?:'(?:[^']|'')*'|[^,()'])+(?=[,)])", "", f"({arguments}")
    yield execute(f"DROP {kind} {quoted(name)}{without}")


def _dollars(body: str) -> str:
    tag = next(tag for number in range(1000) if (tag := f"$body{number or ''}$") not in body)
    return f"{tag}{body}{tag}"


def _make_extension(made: Definition) -> Iterator[str]:
    yield execute(f"CREATE EXTENSION {quoted(made.name)} VERSION '{made.fields.get('version', '')}'")


def _alter_extension(change: Change, _: Definition) -> Iterator[str]:
    made = change.definition
    if "version" in change.fields:
        yield execute(f"ALTER EXTENSION {quoted(made.name)} UPDATE TO '{made.fields['version']}'")
    else:
        yield _no_way(made)


def _make_by_its_definition(made: Definition) -> Iterator[str]:
    yield execute(made.fields["definition"])


def _drop(made: Definition) -> Iterator[str]:
    """Of what stands by itself."""
    kind = "TYPE" if made.kind in (ObjectKind.ENUM, ObjectKind.TYPE) else made.kind.value.upper()
    yield execute(f"DROP {kind} {quoted(made.name)}")


def _drop_from_table(made: Definition) -> Iterator[str]:
    yield execute(f"DROP {made.kind.value.upper()} {quoted(made.name)} ON {quoted(made.table or '')}")


def _by_hand(made: Definition) -> Iterator[str]:
    yield _no_way(made)


def _alter_by_hand(change: Change, _: Definition) -> Iterator[str]:
    yield _no_way(change.definition)


def _no_way(made: Definition) -> str:
    if made.kind is ObjectKind.VIEW_COLUMN:
        return by_hand(f"make the view {made.table} anew; its columns follow the tables that it reads")
    return by_hand(f"make the {made.kind.value} {made.name} what it is in the reference")


_MAKE: Mapping[ObjectKind, _Make] = {
    ObjectKind.FOREIGN_TABLE: _by_hand,
    ObjectKind.VIEW: _make_view,
    ObjectKind.MATERIALIZED_VIEW: _make_view,
    ObjectKind.VIEW_COLUMN: _by_hand,
    ObjectKind.ATTRIBUTE: _make_attribute,
    ObjectKind.CONSTRAINT: constraints.create,
    ObjectKind.INDEX: _make_index,
    ObjectKind.SEQUENCE: _make_sequence,
    ObjectKind.TRIGGER: _make_trigger,
    ObjectKind.POLICY: _make_policy,
    ObjectKind.RULE: _make_by_its_definition,
    ObjectKind.ENUM: _make_enum,
    ObjectKind.DOMAIN: _make_domain,
    ObjectKind.DOMAIN_CONSTRAINT: _make_domain_constraint,
    ObjectKind.TYPE: _by_hand,
    ObjectKind.FUNCTION: _make_function,
    ObjectKind.EXTENSION: _make_extension,
}
_DROP: Mapping[ObjectKind, _Make] = {
    ObjectKind.TABLE: tables.drop,
    ObjectKind.FOREIGN_TABLE: _drop,
    ObjectKind.VIEW: _drop,
    ObjectKind.MATERIALIZED_VIEW: _drop,
    ObjectKind.COLUMN: columns.drop,
    ObjectKind.VIEW_COLUMN: _by_hand,
    ObjectKind.ATTRIBUTE: _drop_attribute,
    ObjectKind.CONSTRAINT: constraints.drop,
    ObjectKind.INDEX: _drop_index,
    ObjectKind.SEQUENCE: _drop,
    ObjectKind.TRIGGER: _drop_from_table,
    ObjectKind.POLICY: _drop_from_table,
    ObjectKind.RULE: _drop_from_table,
    ObjectKind.ENUM: _drop,
    ObjectKind.DOMAIN: _drop,
    ObjectKind.DOMAIN_CONSTRAINT: _drop_domain_constraint,
    ObjectKind.TYPE: _drop,
    ObjectKind.FUNCTION: _drop_function,
    ObjectKind.EXTENSION: _drop,
}
#: Others are dropped and made anew.
_ALTER: Mapping[ObjectKind, _Alter] = {
    ObjectKind.TABLE: tables.alter,
    ObjectKind.FOREIGN_TABLE: _alter_by_hand,
    ObjectKind.VIEW: _alter_view,
    ObjectKind.MATERIALIZED_VIEW: _alter_view,
    ObjectKind.COLUMN: columns.alter,
    ObjectKind.VIEW_COLUMN: _alter_by_hand,
    ObjectKind.ATTRIBUTE: _alter_attribute,
    ObjectKind.CONSTRAINT: constraints.alter,
    ObjectKind.INDEX: _alter_index,
    ObjectKind.SEQUENCE: _alter_sequence,
    ObjectKind.TRIGGER: _alter_trigger,
    ObjectKind.RULE: _alter_trigger,
    ObjectKind.ENUM: _alter_enum,
    ObjectKind.DOMAIN: _alter_domain,
    ObjectKind.TYPE: _alter_by_hand,
    ObjectKind.FUNCTION: _alter_function,
    ObjectKind.EXTENSION: _alter_extension,
}
