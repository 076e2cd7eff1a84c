"""From pg_dump's text to a snapshot."""

from __future__ import annotations

from orchestrator.databases.postgresql.copying.snapshot import plain, snapshot

TEXT = """--
-- PostgreSQL database dump
--

\\restrict aBc

SET statement_timeout = 0;
SELECT pg_catalog.set_config('search_path', '', false);

--
-- Name: s_1; Type: SCHEMA; Schema: -; Owner: me
--

CREATE SCHEMA s_1;


ALTER SCHEMA s_1 OWNER TO me;

CREATE TABLE s_1.a (b text DEFAULT 'CREATE SCHEMA s_1;');
INSERT INTO s_1.a VALUES ('
\\restrict other
');

\\unrestrict aBc
"""


def test_what_is_for_psql_is_gone() -> None:
    """Once at the beginning and once at the end; a row that looks like it stays."""
    assert "aBc" not in plain(TEXT)
    assert "\\restrict other" in plain(TEXT)
    assert plain(plain(TEXT)) == plain(TEXT)


def test_the_schema_is_not_made() -> None:
    """It is there, and has an owner of its own; what comes after that is as it was."""
    made = snapshot(plain(TEXT), "s_1", ("r1",))
    assert made is not None
    assert made.sql.strip().startswith("CREATE TABLE s_1.a (b text DEFAULT 'CREATE SCHEMA s_1;');")
    assert made.sql.endswith("');\n".strip().removesuffix(";"))
    assert (made.schema, made.heads) == ("s_1", ("r1",))


def test_an_unexpected_beginning() -> None:
    """A script that makes something else first is not taken."""
    assert snapshot(plain(TEXT).replace("CREATE SCHEMA s_1;\n", "CREATE SCHEMA s_2;\n"), "s_1", ()) is None
