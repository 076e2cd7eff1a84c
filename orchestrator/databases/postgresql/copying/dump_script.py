"""A dump as SQL, run by psql between lines of ours: pg_restore writes it, and the last word, a COMMIT, is ours."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Collection, Sequence
from pathlib import Path
from subprocess import PIPE
from typing import IO

from orchestrator.databases.libpq import Login
from orchestrator.databases.postgresql.copying.pipeline import CHUNK, Pipeline, Program
from orchestrator.databases.postgresql.script import REFUSED
from orchestrator.databases.server_binaries import Client
from orchestrator.errors import BackupError

#: What is said of a dump that is not at the heads that it was made at.
OTHER_HEADS = "the restored version table does not say what it said when the backup was made"
#: What pg_restore begins a script with and must not: a lock on a table that others share would be waited for without
#: end; and older servers do not know of a timeout for transactions.
_LOCK_TIMEOUT, _TRANSACTION_TIMEOUT = b"SET lock_timeout = 0;", b"SET transaction_timeout = 0;"
#: Lines that a script of pg_restore's begins with, before anything that is the tenant's.
_PREAMBLE = re.compile(rb"\s*$|--|\\restrict |SET [a-z_]+ = [^;]*;\s*$|SELECT pg_catalog\.set_config\('search_path', ")
#: Has psql write a line to its own output, which it does at once, and not to where results go.
_READY = "\\copy (SELECT 1) TO pstdout\n"


class CommitUnanswered(BackupError):
    """psql was told to commit and ended with an error: only looking tells whether the server did."""


async def run_dump(
    client: Client, into: Login, server: int, dump: Path, before: Sequence[str] = (), after: Sequence[str] = ()
) -> None:
    """Have psql run a dump's SQL, between our own where there is some, and commit when all of it has been run.

    Args:
        client: the programs.
        into: how psql comes into the database.
        server: its major version.
        dump: what pg_dump made.
        before: lines for psql, each with its end; they begin a transaction, unless there are none.
        after: the same, for the transaction's end.

    Raises:
        CommitUnanswered: all was run, and what became of the COMMIT is not known.
        BackupError: it could not be run; where there was a transaction, it is rolled back.
    """
    unpack = [client.program("pg_restore"), "--file=-", "--exit-on-error", str(dump)]
    apply = [client.program("psql"), "--no-psqlrc", "--quiet", "--no-password", "--set=ON_ERROR_STOP=1"]
    apply += ["--set=VERBOSITY=terse", "--set=SHOW_CONTEXT=never", f"--output={os.devnull}"]

    def run(pipeline: Pipeline) -> None:
        psql = pipeline.start("psql", apply, into, stdin=PIPE, stdout=PIPE)
        script = pipeline.start("pg_restore", unpack, stdout=PIPE)
        assert psql.process.stdin is not None
        assert psql.process.stdout is not None
        assert script.process.stdout is not None
        whole = False
        try:
            sink = psql.process.stdin
            # Between two statements it waits for us, and we for pg_restore, longer than a role may be allowed to.
            sink.write("".join([*unhurried(server), *before]).encode())
            sink.flush()
            pump_preamble(script.process.stdout, sink, server)
            shutil.copyfileobj(script.process.stdout, sink, CHUNK)
            if script.process.wait() != 0:
                raise _explained(script)
            sink.write("".join([*after, _READY]).encode())
            sink.flush()
            # Not sent ahead: killed while psql was still at work, we would have given the word already.
            whole = bool(psql.process.stdout.readline())
            if whole and before:
                sink.write(b"COMMIT;\n")
            sink.close()
        except BrokenPipeError:
            pass  # psql has ended, and says why
        if psql.process.wait() != 0 or not whole:
            error = _explained(psql)
            raise CommitUnanswered(error.message, passing=error.passing) if whole and before else error

    await Pipeline().run(run)


def unhurried(server: int) -> list[str]:
    """Lines that keep the server from ending a session for saying nothing, whatever its role is allowed.

    Args:
        server: its major version; before 14 there is nothing that ends a session outside a transaction.
    """
    names = ["idle_in_transaction_session_timeout", *(["idle_session_timeout"] if server >= 14 else [])]
    return [f"SET {name} = 0;\n" for name in names]


def pump_preamble(source: IO[bytes], sink: IO[bytes], server: int, more: Collection[bytes] = ()) -> None:
    """Hand on the beginning of what pg_dump or pg_restore writes, without some lines of its own.

    Args:
        source: is read up to the first line that is the tenant's, that one included.
        sink: psql's input.
        server: its major version.
        more: further lines to leave out.
    """
    dropped = {*more, _LOCK_TIMEOUT, *([_TRANSACTION_TIMEOUT] if server < 17 else [])}
    for line in source:
        if line.rstrip() not in dropped:
            sink.write(line)
        if not _PREAMBLE.match(line):
            break


def _explained(program: Program) -> BackupError:
    error = program.failed()
    if REFUSED in error.message:
        return BackupError(OTHER_HEADS)
    return error
