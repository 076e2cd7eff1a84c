"""Whether a migration does anything outside its tenant's schema: a copy of the schema would be without it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, event

from orchestrator.databases.failures import shortened
from orchestrator.databases.postgresql.confinement import Confinement
from orchestrator.databases.postgresql.outreach import ours
from orchestrator.databases.postgresql.script import literal
from orchestrator.databases.sqlite.confinement import FileConfinement
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
#: The only statements that say a schema's name without a dot, and run outside transactions.
_WHOLE = re.compile(r'\bSCHEMA\s+(?:CONCURRENTLY\s+)?(?:"((?:[^"]|"")+)"|([^\W\d]\w*))', re.IGNORECASE)
#: Names without a schema lead elsewhere after it.
_LEADS_AWAY = re.compile(r"\bsearch_path\b", re.IGNORECASE)
_OURS = "('pg_catalog', 'information_schema', 'pg_toast')"
#: Catalogs of what is changed without a lock on any table that says so; how its name and the OID of its schema are
#: found, 0 for the database's own.
_BESIDE = (
    ("pg_proc", "o.proname", "o.pronamespace"),
    ("pg_type", "o.typname", "o.typnamespace"),
    ("pg_namespace", "''", "o.oid"),
    ("pg_trigger", "o.tgname", "(SELECT relnamespace FROM pg_class WHERE oid = o.tgrelid AND NOT o.tgisinternal)"),
    ("pg_default_acl", "'default privileges'", "o.defaclnamespace"),
    ("pg_publication", "o.pubname", "0"),
    ("pg_event_trigger", "o.evtname", "0"),
    ("pg_language", "o.lanname", "0"),
    ("pg_cast", "o.castfunc::text", "0"),
)
#: Catalogs of what may be dropped: the name of each object, and the OID of its schema, 0 for the database's own.
_DROPPED = (
    ("pg_class", "relname", "relnamespace"),
    ("pg_proc", "proname", "pronamespace"),
    ("pg_type", "typname", "typnamespace"),
    ("pg_operator", "oprname", "oprnamespace"),
    ("pg_opclass", "opcname", "opcnamespace"),
    ("pg_opfamily", "opfname", "opfnamespace"),
    ("pg_collation", "collname", "collnamespace"),
    ("pg_conversion", "conname", "connamespace"),
    ("pg_statistic_ext", "stxname", "stxnamespace"),
    ("pg_ts_config", "cfgname", "cfgnamespace"),
    ("pg_ts_dict", "dictname", "dictnamespace"),
    ("pg_namespace", "''", "oid"),
    ("pg_extension", "extname", "0"),
    ("pg_publication", "pubname", "0"),
    ("pg_event_trigger", "evtname", "0"),
    ("pg_foreign_server", "srvname", "0"),
    ("pg_foreign_data_wrapper", "fdwname", "0"),
)
#: What is being dropped is locked so until the commit, table or not.
_LOCKED = (
    "l.mode = 'AccessExclusiveLock' AND l.granted AND l.locktype IN ('relation', 'object')"
    " AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())"
)
#: Whether this transaction may have dropped something; tables that are still there it has not.
_MAY_HAVE_DROPPED = (
    f"SELECT pg_backend_pid() FROM pg_locks l WHERE l.pid = pg_backend_pid() AND {_LOCKED}"
    " AND NOT EXISTS (SELECT FROM pg_class WHERE oid = l.relation) LIMIT 1"
)


class Abroad(Exception):
    """A migration was about to commit what it did outside its tenant's schema."""


@dataclass(slots=True)
class Watched(Recording):
    """A recording of a scratch tenant that also notes what is touched outside its schema; see :attr:`abroad`.

    What a scratch tenant would write there is not committed: it would stay when the tenant is gone.
    """

    #: The tenant's schema, and the one with the extensions; none where all of the database is the tenant's.
    home: tuple[str, ...] = ()
    #: What was touched, for people; ``None`` for nothing.
    abroad: str | None = None
    #: What was to be written, and was not.
    prevented: bool = False
    #: What to do about that, where it is something of its own.
    hint: str | None = None
    _words: set[str] = field(default_factory=set)
    _confinement: Confinement | FileConfinement | None = None

    def listen(self, connection: Connection) -> None:
        """Hear what is sent on ``connection`` from now on; the listeners end with it."""
        # Not super(): a dataclass with slots is a new class, which the compiler's cell does not know.
        Recording.listen(self, connection)
        look = self._look if self.home else _nothing
        named = self._named if self.home else _nothing_named
        if connection.dialect.name == "sqlite":
            self._confinement = FileConfinement()
        else:
            alone = not self.home
            self._confinement = Confinement(
                OWN, alone=alone, closed=not alone, at_its_word=alone, committing=look, beside=named
            )
        self._confinement.listen(connection)

        def executed(_: Connection, __: Any, statement: str, ___: Any, state: Any, ____: bool) -> None:
            if self.home and not (state and state.execution_options.get(OWN)):
                self._read(statement)

        event.listen(connection, "after_cursor_execute", executed)

    def finish(self) -> None:
        """The migration is through, or has failed: what was refused is noted, whoever caught that."""
        if self._confinement is not None:
            self._confinement.end()
            if self._confinement.refused is not None:
                self.abroad, self.prevented = f"runs {self._confinement.refused.what}", True
                self.hint = self._confinement.refused.hint

    def _read(self, statement: str) -> None:
        self._words |= _names(_QUALIFIER, statement)
        if _SHARED.search(statement):
            self.abroad = self.abroad or f"runs what is not the tenant's alone: {shortened(statement)}"

    def _look(self, connection: Connection) -> None:
        """What the transaction has locked, changed and dropped so far, and which of the words that it used are schemas.

        Locks and catalogs tell of what functions and triggers do, too.
        """
        found = _first(connection, _touched(self.home, sorted(self._words)))
        if found is not None:
            self.abroad = self.abroad or found.touched
            if found.written:
                self._prevent(found.touched)
        pid = _first(connection, _MAY_HAVE_DROPPED)
        if pid is not None:
            # What is gone here, others see until the commit; what this transaction has made itself they never saw.
            with connection.engine.connect() as other:
                dropped = _first(other, _dropped(self.home, pid[0]))
            if dropped is not None:
                self._prevent(dropped.touched)

    def _named(self, connection: Connection, text: str) -> str | None:
        """What a statement says of other schemas that runs where nobody can look before its commit."""
        if _LEADS_AWAY.search(text):
            return "sets search_path"
        words = _names(_QUALIFIER, text) | _names(_WHOLE, text)
        found = _first(connection, _reached(self.home, sorted(words)))
        return None if found is None else f"reaches the schema {found.nspname}"

    def _prevent(self, touched: str) -> None:
        self.abroad, self.prevented = touched, True
        raise Abroad(f"it {touched}, which is not the scratch tenant's")


def _nothing(_: Connection) -> None:
    pass


def _nothing_named(_: Connection, __: str) -> None:
    pass


def _names(pattern: re.Pattern[str], text: str) -> set[str]:
    return {quoted.replace('""', '"') or word.lower() for quoted, word in pattern.findall(text)}


def _first(connection: Connection, query: str) -> Any:
    return connection.exec_driver_sql(query, execution_options={OWN: True}).first()


def _changed(catalog: str, name: str, schema: str) -> str:
    """Rows of a catalog that this transaction has made or changed; what comes with an extension is nobody's."""
    return (
        f"SELECT format('changes %s%s', n.nspname || '.', {name}) AS touched, true AS written"
        f" FROM {catalog} o LEFT JOIN pg_namespace n ON n.oid = {schema} WHERE {ours('o')} AND {schema} IS NOT NULL"
        f" AND NOT EXISTS (SELECT FROM pg_depend WHERE classid = '{catalog}'::regclass AND objid = o.oid"
        " AND deptype = 'e')"
    )


def _at_home(home: Sequence[str]) -> str:
    names = ", ".join(map(literal, home))
    return f"coalesce(n.nspname IN ({names}) OR n.nspname IN {_OURS} OR n.nspname ~ '^pg_t', false)"


def _reached(home: Sequence[str], words: Sequence[str]) -> str:
    """Which schema is named, or is where names without one lead by now, that is not the tenant's."""
    named = "".join(f", {literal(word)}" for word in words)
    reached = f"current_schemas(false) || ARRAY[NULL{named}]::name[]"
    return f"SELECT nspname FROM pg_namespace n WHERE nspname = ANY({reached}) AND NOT {_at_home(home)} LIMIT 1"


def _touched(home: Sequence[str], words: Sequence[str]) -> str:
    at_home = _at_home(home)
    named = f" OR n.nspname IN ({', '.join(map(literal, words))})" if words else ""
    return (
        "SELECT touched, written FROM ("
        + "".join(f"{_changed(*each)} AND NOT {at_home} UNION ALL " for each in _BESIDE)
        + f"SELECT format('touches %s.%s', n.nspname, c.relname), l.mode NOT IN {_HARMLESS}"
        " FROM pg_locks l JOIN pg_class c ON c.oid = l.relation JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE l.pid = pg_backend_pid() AND l.locktype = 'relation'"
        " AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        f" AND (c.relname ~ '^pg_largeobject' OR NOT {at_home})"
        " UNION ALL SELECT format('names the schema %s', n.nspname), false FROM pg_namespace n"
        f" WHERE NOT {at_home} AND (false{named})"
        ") t ORDER BY written DESC LIMIT 1"
    )


def _dropped(home: Sequence[str], pid: int) -> str:
    """What a backend has dropped that was not its tenant's, as another one sees it."""
    objects = " UNION ALL ".join(
        f"SELECT {name}::text AS name, {space}::oid AS space FROM {catalog} WHERE oid = "
        + ("l.relation" if catalog == "pg_class" else f"l.objid AND l.classid = '{catalog}'::regclass")
        for catalog, name, space in _DROPPED
    )
    return (
        "SELECT format('drops %s%s', n.nspname || '.', o.name) AS touched"
        f" FROM pg_locks l CROSS JOIN LATERAL ({objects}) o LEFT JOIN pg_namespace n ON n.oid = o.space"
        f" WHERE l.pid = {pid} AND {_LOCKED} AND NOT {_at_home(home)}"
        # What has fallen with something else comes after it.
        " ORDER BY n.nspname IS NOT NULL, l.locktype DESC, o.name LIMIT 1"
    )
