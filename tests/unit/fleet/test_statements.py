"""`register:` and `unregister:`: which colons are a tenant's fields, and what is refused when the file is read."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date

import pytest
from pydantic_core import PydanticCustomError

from orchestrator.errors import ConfigurationError
from orchestrator.fleet.fleet import Fleet
from orchestrator.fleet.sources import SqlSource
from orchestrator.fleet.statements import PARAMETERS, parse, values_of
from orchestrator.fleet.tenant import Isolation, Limits, Tenant


@pytest.mark.parametrize(
    ("text", "numbered", "names"),
    [
        ("f(:id, :schema,:id)", "f($1, $2,$3)", ("id", "schema", "id")),
        ("f(:id::text, a::int)", "f($1::text, a::int)", ("id",)),
        ("f(:id, ':schema', 'it''s :tags')", "f($1, ':schema', 'it''s :tags')", ("id",)),
        (r"f(E'\':tags', e'a\\', :id)", r"f(E'\':tags', e'a\\', $1)", ("id",)),
        (r"f('a\', :id, '')", r"f('a\', $1, '')", ("id",)),
        ('f(":id", "a"":b", :id)', 'f(":id", "a"":b", $1)', ("id",)),
        ("f($$:tags '$$, $t$ $$ :tags $t$, :id)", "f($$:tags '$$, $t$ $$ :tags $t$, $1)", ("id",)),
        ("f(a$b$c, :id) -- :tags'", "f(a$b$c, $1) -- :tags'", ("id",)),
        ("f(:id) /* :a /* ' */ :b */ + :pin", "f($1) /* :a /* ' */ :b */ + $2", ("id", "pin")),
        ("f(x := :id, a[1 : 2])", "f(x := $1, a[1 : 2])", ("id",)),
        ("f(:id); -- done", "f($1) -- done", ("id",)),
        ("f(:id) ; /* done */ ;", "f($1)  /* done */ ", ("id",)),
    ],
)
def test_names(text: str, numbered: str, names: tuple[str, ...]) -> None:
    """A name is what the server would not read as text, a comment, a cast or an identifier."""
    found = parse(text)
    assert (found.numbered, found.names) == (numbered, names)


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("f(:id, :schemas)", "a tenant has no `:schemas`", "did you mean `:schema`?"),
        ("f(:id, :zzz)", "a tenant has no `:zzz`", "one of: :id, :server"),
        ("f(:id, a[1:n])", "a tenant has no `:n`", "[1 : n]"),
        ("DELETE FROM customers", "the same whatever the tenant", ":id"),
        ("f(:tags)", "the same whatever the tenant", ":id"),
        ("f(':id')", "the same whatever the tenant", ":id"),
        ("f(:id); g(:id)", "more than one statement", "write one"),
        ("f(:id); g()", "more than one statement", "write one"),
        ("f(:id, $1)", "`$1` has no meaning here", ":id"),
        ("f(:id, 'x)", "the ' in it is not closed", "close it"),
        ('f(:id, "x)', 'the " in it is not closed', "close it"),
        ("f(:id, $t$ x $$)", "the $t$ in it is not closed", "close it"),
        ("f(:id /* x /* */", "the /* in it is not closed", "close it"),
    ],
)
def test_refused(text: str, message: str, hint: str) -> None:
    """What would fail, or mean every tenant, is told before it is ever sent."""
    with pytest.raises(PydanticCustomError) as caught:
        parse(text)
    told = caught.value.context or {}
    assert message in told["message"]
    assert hint in told["hint"]


def test_values() -> None:
    """Every name has a value; tags are a list, what is not there is NULL."""
    tenant = Tenant("a", "main", Isolation.SCHEMA, "s", tags=("x",), until=date(2027, 1, 31), limits=Limits(2.0))
    values = values_of(tenant)
    assert tuple(sorted(values)) == tuple(sorted(PARAMETERS))
    assert (values["isolation"], values["tags"], values["database"]) == ("schema", ["x"], None)
    assert (values["until"], values["lock_timeout"], values["statement_timeout"]) == (date(2027, 1, 31), 2.0, None)
    assert type(values["isolation"]) is str


def test_in_the_file(load_text: Callable[[str], Fleet], refusal: Callable[[str], ConfigurationError]) -> None:
    """The file keeps them as they are written; what is wrong is told with its line, and so is what is no text."""
    text = "servers: {m: postgresql://h/d}\nsources:\n  - sql: SELECT 1\n    register: "
    source = load_text(f"{text}INSERT INTO t VALUES (:id)\n    unregister: DELETE FROM t WHERE id = :id\n").sources[0]
    assert source == SqlSource("SELECT 1", "m", "INSERT INTO t VALUES (:id)", "DELETE FROM t WHERE id = :id")
    error = refusal(f"{text}INSERT INTO t VALUES (:idd)\n")
    assert (error.line, error.column) == (4, 15)
    assert "register: a tenant has no `:idd`" in error.message
    assert "did you mean `:id`?" in str(error.hint)
    assert "must be text" in refusal(f"{text}[INSERT]\n").message
    assert "has no value" in refusal(f"{text}\n").message
    assert "unregister: it does the same" in refusal(f"{text}x(:id)\n    unregister: DELETE FROM t\n").message
