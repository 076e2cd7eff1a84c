"""Names of tenants, schemas and databases that mean something to SQL, Python, YAML or a shell, and must not."""

from __future__ import annotations

from hypothesis import strategies as st

#: Longest name that PostgreSQL keeps, in bytes.
LONGEST = 63
#: What somebody's parser may stumble over.
FRAGMENTS = [
    '"', '""', "'", "''", ";", "--", "/*", "*/", "\\", "\\'", "$$", "$a$", "$1", "${HOME}", "${file:/x}", "%", "%%",
    "%s", "%(id)s", "%40", ":name", "::text", "{}", "{0}", "{tenant}", "[a]", "*", "?", "!", "#", "&", "|", "<b>", "`",
    ",", ".", "..", "/", "@", "=", "~", "-", "(", ")", " ", "  ", "é", "e\u0301", "İ", "ß", "日本", "😀",
    "\u05d0", "Ω", "E'", "U&\"", "x'; DROP SCHEMA bystander CASCADE; --", 'x"; DROP SCHEMA bystander CASCADE; --',
    "select", "user", "table", "default", "null", "true", "no", "012", "1e5", "public", "information", "A", "a", "0",
]  # fmt: skip
#: Seen once, and always tried.
KNOWN = [
    'a"b', "a'b", "a;b", "a b", "a%b", "a%sb", "a\\b", "$$", "a:b", "select", "User", "user", "${HOME}", "no", "012",
    "é", "e\u0301", "日本" * 10, "x" * 63, "x" * 62 + "y", "ж" * 31 + "a", "😀" * 15 + "abc", "-t", "a*", "a[b]",
    "x'; DROP SCHEMA bystander CASCADE; --", 'x"; DROP SCHEMA bystander CASCADE; --', "{}", "%(id)s", "a.b", "..", "#a",
    "--help",
]  # fmt: skip


def fits(name: str) -> bool:
    """Whether a fleet takes it as a schema's name; docs/tenants.md says which it does not."""
    return (
        0 < len(name.encode()) <= LONGEST
        and name.isprintable()
        and name == name.strip(" ")
        and not name.startswith("pg_")
        and name not in ("information_schema", "bystander", "public")
    )


def _padded(name: str, filler: str) -> str:
    """``name`` filled up to the last byte that PostgreSQL keeps, or as near as ``filler`` comes."""
    return name + filler * ((LONGEST - len(name.encode())) // len(filler.encode()))


_pieces = st.one_of(st.sampled_from(FRAGMENTS), st.text(st.characters(codec="utf-8"), min_size=1, max_size=6))
_plain = st.lists(_pieces, min_size=1, max_size=5).map("".join)
_full = st.builds(_padded, _plain.filter(lambda name: len(name.encode()) < LONGEST), st.sampled_from("xé日😀"))
names = st.one_of(st.sampled_from(KNOWN), _plain, _full).filter(fits)
