"""What reaches beyond a place: told by a statement's words before it runs, or by the catalogs after it."""

from __future__ import annotations

import re

from orchestrator.databases.postgresql.concurrently import BLANK, CONCURRENTLY, LEADING
from orchestrator.databases.postgresql.copying.clone_needs import REACHING
from orchestrator.databases.postgresql.script import literal

#: What ends a transaction, and of that what commits it.
ENDING = re.compile(
    LEADING + r"(?:(COMMIT|END)|ROLLBACK|ABORT)\b(?!\s+(?:(?:WORK|TRANSACTION)\s+)?(?:TO|PREPARED)\b)",
    re.IGNORECASE | re.DOTALL,
)
#: It has to come before any question in its transaction, and writes nothing.
ISOLATES = re.compile(LEADING + r"SET\s+TRANSACTION\b", re.IGNORECASE | re.DOTALL)
#: What is about transactions, or the session.
AROUND = re.compile(
    LEADING
    + r"(?:BEGIN|START|(?:COMMIT|ROLLBACK)(?!\s+PREPARED)|END|ABORT|SAVEPOINT|RELEASE|SET|RESET|SHOW|DISCARD)\b",
    re.IGNORECASE | re.DOTALL,
)
#: What runs only outside transactions, and stays in its database, if it is not of :data:`OF_ALL`.
STAYS = re.compile(
    f"{LEADING}(?:{CONCURRENTLY}"
    r"|(?:VACUUM|CLUSTER|REINDEX\s*(?:\([^)]*\)\s*)?(?:INDEX|TABLE|SCHEMA)"
    r"|ALTER\s+TABLE\b[^;']*\bDETACH\s+PARTITION\b[^;']*\bFINALIZE)\b)",
    re.IGNORECASE | re.DOTALL,
)
#: The same of all of its database, without a table's name for example: stays only where that is the migration's own.
OF_ALL = re.compile(
    f"{LEADING}(?:"
    r"REINDEX\s*(?:\([^)]*\)\s*)?DATABASE\b"
    r"|(?:VACUUM|CLUSTER)\b"
    rf"(?:(?:FULL|FREEZE|VERBOSE|ANALY[SZ]E)\b|\([^)]*\)|;|{BLANK})*$)",
    re.IGNORECASE | re.DOTALL,
)
#: What may end transactions by itself; the name of what is called.
CALLS = re.compile(LEADING + r"(?:DO\b|CALL\s+(?:[^\s(]*\.)?\"?([^\s(\".]+)\"?\s*\()", re.IGNORECASE | re.DOTALL)
ENDS = re.compile(r"\b(?:COMMIT|ROLLBACK)\b", re.IGNORECASE)
#: It puts SQL together, of which nobody can tell what it does.
EXECUTES = re.compile(r"\bEXECUTE\b", re.IGNORECASE)
#: What such a body may have done by then, SQL that it puts together apart.
MAY_REACH = re.compile(
    r"\b(?:GRANT|REVOKE|OWNED|COPY|dblink\w*"
    r"|(?:CREATE|ALTER|DROP|ON)\s+(?:ROLE|USER|GROUP|DATABASE|TABLESPACE|SUBSCRIPTION|SYSTEM|SERVER|FOREIGN|EXTENSION))\b",
    re.IGNORECASE,
)
BODIES = "SELECT coalesce(string_agg(prosrc, ' '), '') FROM pg_proc WHERE proname = $1 AND prokind = 'p'"
#: Files and programs of the server's host; a transaction that the server keeps for whoever comes.
HOST = re.compile(
    "^" + LEADING + r"(?:COPY\b.*\b(?:PROGRAM|TO)\s*E?'|PREPARE\s+TRANSACTION\b)"
    r"|\b(?:lo_export|pg_file_(?:write|unlink|rename|sync))\s*\(",
    re.IGNORECASE | re.DOTALL,
)
#: The server runs these only outside transactions; a procedure has ended one.
NOT_IN_TRANSACTION = frozenset({"25001", "2D000"})
ITS_PARTS = "write the loop in Python: in an autocommit block each op.execute() commits by itself"
#: The transaction has failed, and can only be rolled back.
FAILED = "25P02"
#: Catalogs of the server, but for the one that says who owns what.
_SHARED = (
    *("pg_authid", "pg_auth_members", "pg_database", "pg_db_role_setting", "pg_parameter_acl", "pg_replication_origin"),
    *("pg_shdescription", "pg_shseclabel", "pg_subscription", "pg_tablespace"),
)
#: Counted by the backend itself, as it goes; what a savepoint takes back counts, too.
WRITTEN = f"""
    SELECT c.oid::regclass::text AS name, pg_stat_get_xact_tuples_inserted(c.oid)
        + pg_stat_get_xact_tuples_updated(c.oid) + pg_stat_get_xact_tuples_deleted(c.oid) AS rows
    FROM (SELECT to_regclass('pg_catalog.' || name)::oid FROM unnest(ARRAY[{", ".join(map(literal, _SHARED))}]) name)
        c (oid)
    WHERE c.oid IS NOT NULL
    UNION ALL SELECT 'does what nobody counts (track_counts is off)', NULL WHERE current_setting('track_counts') = 'off'
"""


#: Transactions that may begin on the server while one of ours is under way; older rows' numbers are farther off.
_MEANWHILE = 100_000_000


def ours(row: str) -> str:
    """SQL that says whether the running transaction has made or changed a row that it sees.

    The maker of a row that is visible and is still under way is ourselves; savepoints have later numbers. ``age()`` may
    count from where the server was before this transaction had a number: it tells no more than that a row is not older.
    """
    later = f"(({row}.xmin::text::bigint - txid_current()) & 4294967295)"
    return (
        f"age({row}.xmin) <= 0 AND CASE WHEN {later} > {_MEANWHILE} THEN false"
        # To others these have not begun, and nobody may ask for their status.
        f" WHEN txid_current() + {later} >= txid_snapshot_xmax(txid_current_snapshot()) THEN true"
        f" ELSE txid_status(txid_current() + {later}) = 'in progress' END"
    )


#: What is this database's own in catalogs that all share, and how that is told: it goes with it.
OF_THIS = (
    ("pg_database", "d.oid", "d"),
    ("pg_db_role_setting", "s.setdatabase", "s"),
    ("pg_shdescription", "CASE WHEN n.classoid = 'pg_database'::regclass THEN n.objoid ELSE 0 END", "n"),
)
_HERE = "(SELECT oid FROM pg_database WHERE datname = current_database())"
OWN_ROWS = " UNION ALL ".join(
    f"SELECT '{catalog}' WHERE EXISTS (SELECT FROM {catalog} {row} WHERE {of} = {_HERE} AND {ours(row)})"
    f" AND NOT EXISTS (SELECT FROM {catalog} {row} WHERE {of} <> {_HERE} AND {ours(row)})"
    for catalog, of, row in OF_THIS
)
#: Extensions that reach other servers bring a wrapper, or are known by name.
WAYS_OUT = f"""
    UNION ALL SELECT 'makes the foreign data wrapper ' || o.fdwname, NULL
    FROM pg_foreign_data_wrapper o WHERE {ours("o")}
    UNION ALL SELECT 'makes the foreign server ' || o.srvname, NULL FROM pg_foreign_server o WHERE {ours("o")}
    UNION ALL SELECT 'makes the foreign table ' || o.ftrelid::regclass, NULL FROM pg_foreign_table o WHERE {ours("o")}
    UNION ALL SELECT 'makes the extension ' || o.extname, NULL FROM pg_extension o
    WHERE {ours("o")} AND o.extname IN ({", ".join(map(literal, sorted(REACHING)))})
"""
