"""From the text that pg_dump writes about one schema to SQL that makes the same in another one."""

from __future__ import annotations

import re

from orchestrator.databases.postgresql.script import Snapshot

#: What newer versions of pg_dump put around a script, for psql alone, with another word each time.
_RESTRICT = re.compile(r"(?:[ \t]*\n|--[^\n]*\n)*(\\restrict (\S+)\n)")
#: What a script begins with before its first object: settings, comments.
_PREAMBLE = re.compile(r"(?:[ \t]*\n|--[^\n]*\n|SET [a-z_]+ = [^;\n]*;\n|SELECT pg_catalog\.set_config\([^;\n]*\);\n)*")
_SPACE = r"(?:[ \t]*\n|--[^\n]*\n)*"


def plain(text: str) -> str:
    """A script of pg_dump's without what is different each time."""
    found = _RESTRICT.match(text)
    if found is None:
        return text
    # Its word is random: no row has it, and where a row begins like it, that is not at the script's beginning.
    return (text[: found.start(1)] + text[found.end(1) :]).replace(f"\\unrestrict {found[2]}\n", "")


def snapshot(text: str, schema: str, heads: tuple[str, ...]) -> Snapshot | None:
    """What a script of pg_dump's about ``schema`` says, to be run in a schema of that name that is there.

    Args:
        text: in ``--inserts`` form, and :func:`plain`: nothing in it is meant for psql.
        schema: a name that does without quotes.
        heads: what its version table says.

    Returns:
        The snapshot; ``None`` where the script does not begin as expected.
    """
    begin = _PREAMBLE.match(text)
    assert begin is not None
    made = re.compile(
        rf"CREATE SCHEMA {re.escape(schema)};\n{_SPACE}(?:ALTER SCHEMA {re.escape(schema)} OWNER TO [^;\n]*;\n)?"
    ).match(text, begin.end())
    return None if made is None else Snapshot(schema, text[made.end() :].rstrip().removesuffix(";"), heads)
