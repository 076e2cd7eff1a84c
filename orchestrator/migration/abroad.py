"""Whether a migration does anything outside its tenant's schema: a copy of the schema would be without it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, event

from orchestrator.databases.failures import shortened
from orchestrator.databases.script import literal
from orchestrator.migration.recording import OWN, Recording

#: Locks that say no more than that rows were read, or that a foreign key leads there.
_HARMLESS = "('AccessShareLock', 'RowShareLock', 'ShareRowExclusiveLock')"
#: What belongs to the database or the server, whatever schema it is said in.
_SHARED = re.compile(
    r"\b(?:PUBLICATION|SUBSCRIPTION|EVENT\s+TRIGGER|FOREIGN\s+DATA\s+WRAPPER|TABLESPACE|SECURITY\s+LABEL"
    r"|ALTER\s+SYSTEM|DEFAULT\s+PRIVILEGES|NOTIFY|DROP\s+EXTENSION|pg_notify|lo_\w+|dblink\w*)\b"
    r"|\b(?:CREATE|ALTER|DROP)\s+(?:ROLE|USER|GROUP|DATABASE|SCHEMA|SERVER|LANGUAGE|CAST)\b",
    re.IGNORECASE,
)
#: What may be the name of a schema: a word or quoted name with a dot behind it.
_QUALIFIER = re.compile(r'(?:"((?:[^"]|"")+)"|\b([^\W\d]\w*))\s*\.')
_OURS = "('pg_catalog', 'information_schema', 'pg_toast')"


#: Of what is gone, no lock can be told whose it was: its name has to do.
_TAKES_AWAY = re.compile(r"\b(?:DROP|TRUNCATE)\b", re.IGNORECASE)
#: Catalogs of what is changed without a lock on any table; how its name and its schema are found.
_BESIDE = (
    ("pg_proc", "o.proname", "n.oid = o.pronamespace"),
    ("pg_type", "o.typname", "n.oid = o.typnamespace"),
    ("pg_namespace", "''", "n.oid = o.oid"),
)


class Abroad(Exception):
    """A migration was about to commit what it did outside its tenant's schema."""


@dataclass(slots=True)
class Watched(Recording):
    """A recording of a scratch tenant that also notes what is touched outside its schema; see :attr:`abroad`.

    What a scratch tenant would write there is not committed: it would stay when the tenant is gone.
    """

    #: The tenant's schema, and the one with the extensions.
    home: tuple[str, ...] = ()
    #: What was touched, for people; ``None`` for nothing.
    abroad: str | None = None
    #: What was to be written, and was not.
    prevented: bool = False
    _words: set[str] = field(default_factory=set)
    #: Those of statements that take something away.
    _dropped: set[str] = field(default_factory=set)

    def listen(self, connection: Connection) -> None:
        """Hear what is sent on ``connection`` from now on; the listeners end with it."""
        # Not super(): a dataclass with slots is a new class, which the compiler's cell does not know.
        Recording.listen(self, connection)

        def executed(_: Connection, __: Any, statement: str, ___: Any, state: Any, ____: bool) -> None:
            if not (state and state.execution_options.get(OWN)):
                self._read(statement)

        event.listen(connection, "after_cursor_execute", executed)
        event.listen(connection, "commit", self._look)

    def _read(self, statement: str) -> None:
        words = {quoted or word.lower() for quoted, word in _QUALIFIER.findall(statement)}
        self._words |= words
        if _TAKES_AWAY.search(statement):
            self._dropped |= words
        if _SHARED.search(statement):
            self.abroad = self.abroad or f"runs what is not the tenant's alone: {shortened(statement)}"

    def _look(self, connection: Connection) -> None:
        """What the transaction has locked so far, and which of the words that it used are schemas.

        The locks tell of what functions and triggers do, too; statements outside a transaction hold none any more.
        """
        query = _touched(self.home, sorted(self._words), sorted(self._dropped))
        found = connection.exec_driver_sql(query, execution_options={OWN: True}).first()
        if found is not None:
            self.abroad = self.abroad or found.touched
            if found.written:
                self.abroad, self.prevented = found.touched, True
                raise Abroad(f"it {self.abroad}, which is not the scratch tenant's")


def _changed(catalog: str, name: str, space: str) -> str:
    """Rows of a catalog that this transaction has made or changed; what comes with an extension is nobody's.

    A row that is visible and whose maker is still under way is our own; savepoints have later numbers.
    """
    return (
        f"SELECT format('changes %s.%s', n.nspname, {name}), true FROM {catalog} o JOIN pg_namespace n ON {space}"
        " WHERE age(o.xmin) <= 0 AND txid_status(txid_current() - age(o.xmin)) = 'in progress'"
        f" AND NOT EXISTS (SELECT FROM pg_depend WHERE classid = '{catalog}'::regclass AND objid = o.oid"
        " AND deptype = 'e')"
    )


def _touched(home: Sequence[str], words: Sequence[str], dropped: Sequence[str]) -> str:
    at_home = f"n.nspname IN ({', '.join(map(literal, home))}) OR n.nspname IN {_OURS} OR n.nspname ~ '^pg_t'"
    named = f" OR n.nspname IN ({', '.join(map(literal, words))})" if words else ""
    return (
        "SELECT touched, written FROM ("
        + "".join(
            f" {_changed(catalog, name, space)} AND NOT ({at_home}) UNION ALL" for catalog, name, space in _BESIDE
        )
        + f" SELECT format('drops or empties something in %s', n.nspname), true FROM pg_namespace n"
        f" WHERE NOT ({at_home}) AND n.nspname = ANY (ARRAY[{', '.join(map(literal, dropped))}]::text[]) UNION ALL"
        f" SELECT format('touches %s.%s', n.nspname, c.relname) AS touched, l.mode NOT IN {_HARMLESS} AS written"
        " FROM pg_locks l JOIN pg_class c ON c.oid = l.relation JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE l.pid = pg_backend_pid() AND l.locktype = 'relation'"
        " AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        f" AND (c.relname ~ '^pg_largeobject' OR NOT ({at_home}))"
        " UNION ALL SELECT format('names the schema %s', n.nspname), false FROM pg_namespace n"
        f" WHERE NOT ({at_home}) AND (false{named})"
        ") t (touched, written) ORDER BY written DESC LIMIT 1"
    )
