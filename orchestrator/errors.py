"""One error tree: what went wrong, where, and the next command to type.

Every error that a user can cause or meet is an :class:`OrchestratorError`. The edges (CLI, ``env.py``) print
``message`` and ``hint`` and leave with ``exit_code``; nobody is shown a traceback for bad input.
"""

from __future__ import annotations


class OrchestratorError(Exception):
    """Something the operator can act on.

    Args:
        message: what is wrong and where, one or a few lines, secrets already masked.
        hint: what to type or change next; ``None`` where there is nothing better to say.
    """

    #: The process's exit code when this error ends a command (see docs/cli.md).
    exit_code = 2

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(OrchestratorError):
    """The command line asks for something that cannot be done as asked."""


class ConfigurationError(OrchestratorError):
    """tenants.yaml, alembic.ini or env.py is not as it must be.

    Args:
        message: what is wrong.
        file: the file at fault, as the user named it.
        line: 1-based line in that file.
        column: 1-based column in that file.
        hint: what to change.
    """

    def __init__(
        self,
        message: str,
        *,
        file: str | None = None,
        line: int | None = None,
        column: int | None = None,
        hint: str | None = None,
    ) -> None:
        place = ":".join(str(part) for part in (file, line, column) if part is not None)
        super().__init__(f"{place}: {message}" if place else message, hint=hint)
        self.file = file
        self.line = line
        self.column = column


class SelectionError(UsageError):
    """No tenant matches the selection, or a selection is needed and none was given."""


class HistoryError(OrchestratorError):
    """The shared Alembic directory cannot be read, or a revision in it cannot be resolved."""


class DatabaseError(OrchestratorError):
    """A server or a tenant's database cannot be used."""


class ServerUnreachable(DatabaseError):
    """No connection can be had: the address, the network, the password or the server's limits."""


class JournalError(OrchestratorError):
    """The journal cannot be opened, read or written."""


class Unprovisioned(DatabaseError):
    """The tenant's schema, database or file does not exist."""


class TenantLocked(DatabaseError):
    """Another process is at work on the tenant."""


class AlreadyThere(DatabaseError):
    """What is to be made is there, or holds something already."""


class OtherShape(DatabaseError):
    """What was made is not what it should be, and is gone again."""


class MayPass(OrchestratorError):
    """Something that may go well the next time.

    Args:
        message: what is wrong.
        passing: whether it may, without anybody changing anything.
        hint: what to do.
    """

    def __init__(self, message: str, *, passing: bool = False, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.passing = passing


class BackupError(MayPass):
    """A tenant cannot be backed up, or not be put back."""


class RevisionMissing(OrchestratorError):
    """A tenant does not have a revision that its application needs, or is not known to have it.

    Args:
        message: what is missing where.
        heads: what the tenant's version table says, sorted; ``None`` where it could not be read.
        hint: what to do.
    """

    def __init__(self, message: str, *, heads: tuple[str, ...] | None, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.heads = heads


class OnboardingError(MayPass):
    """A tenant cannot be taken in or out."""


class StillListed(OnboardingError):
    """An onboarding is to be undone, and the fleet has its tenant."""


class RestoreUnknown(BackupError):
    """The connection was lost at a restore's very end, and it could not be seen whether the tenant is back."""
