"""What the journal holds, as frozen values: a run, its attempt on each tenant, and the events in between."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from orchestrator.journal import process
from orchestrator.statuses import RunStatus, TenantStatus

#: A run on another machine counts as alive while its last heartbeat is younger than this.
HEARTBEAT_LIFETIME = timedelta(seconds=30)

#: The option of a run that names who attempts its tenants, where that is not the process that began it.
EXECUTOR = "executor"

#: Letters and digits that are not mistaken for each other, in type or read aloud; no vowels, so no words.
_ALPHABET = "23456789bcdfghjkmnpqrstvwxz"


@dataclass(frozen=True, slots=True)
class Actor:
    """Who started a run, from where, and as which process."""

    #: The user's name on that machine.
    user: str
    #: The machine's host name.
    host: str
    #: The process's number on that machine.
    pid: int
    #: A mark that a later process with the same number does not have; ``None`` where the system offers none.
    process_started: str | None
    #: The commit that was checked out; ``None`` outside a repository.
    git_commit: str | None

    @classmethod
    def current(cls, root: Path) -> Actor:
        """This process, with the commit checked out at ``root``. Runs ``git``: call it once per run."""
        pid = os.getpid()
        return cls(
            user=process.current_user(),
            host=socket.gethostname(),
            pid=pid,
            process_started=process.process_identity(pid),
            git_commit=process.git_commit(root),
        )


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One command that changed, or was to change, tenants."""

    #: See :func:`new_run_id`.
    id: str
    #: ``upgrade``, ``downgrade``, ``rollback``, ``resume``, ``onboard``, ``stamp``.
    command: str
    #: The revisions that the asked target stood for.
    target: tuple[str, ...]
    #: The target as it was asked for: ``heads``, ``-1``, ``3f2a9c``.
    requested_target: str
    status: RunStatus
    started_at: datetime
    #: ``None`` while it goes on, and for good when its process died.
    finished_at: datetime | None
    actor: Actor
    #: Digest of the shared directory's files; ``None`` where none was read.
    directory_digest: str | None = None
    #: The command's options that a resumed run takes over; only what JSON can hold.
    options: Mapping[str, Any] = field(default_factory=dict)
    #: When its process last said that it is there.
    heartbeat_at: datetime | None = None

    @property
    def executor(self) -> str | None:
        """Who attempts its tenants; ``None`` for the process that began it."""
        return self.options.get(EXECUTOR)


@dataclass(frozen=True, slots=True)
class AttemptRecord:
    """What a run did to one tenant, as far as it has come."""

    #: The run's id.
    run: str
    #: The tenant's id.
    tenant: str
    #: Name of the wave it goes in; ``None`` for a command without waves.
    wave: str | None
    status: TenantStatus
    #: Heads before; ``None`` when they could not be read (``()`` is a tenant without any revision).
    from_heads: tuple[str, ...] | None = None
    #: Heads after; ``None`` when nobody could read them.
    to_heads: tuple[str, ...] | None = None
    #: Times it was tried.
    attempts: int = 0
    #: Milliseconds from its turn to its verification; ``None`` before that.
    duration_ms: float | None = None
    #: ``alembic``, ``replay`` or ``mixed``; ``None`` when nothing was migrated.
    path: str | None = None
    #: ``type``, ``sqlstate``, ``message``, ``revision``, ``statement`` and ``hint``, as in docs/cli.md.
    error: Mapping[str, Any] | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class EventRecord:
    """Something that happened in a run: a revision applied, a lock waited for, a retry."""

    #: The run's id.
    run: str
    #: The tenant's id; ``None`` for what concerns the run as a whole.
    tenant: str | None
    at: datetime
    #: What happened, in a word: ``revision``, ``retry``, ``lock_wait``.
    kind: str
    #: The revision it is about.
    revision: str | None = None
    #: ``upgrade`` or ``downgrade``.
    direction: str | None = None
    #: Milliseconds it took.
    duration_ms: float | None = None
    #: Anything else worth telling; only what JSON can hold.
    detail: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class StepRecord:
    """A revision that works outside any transaction on a tenant: written before it does, and again as it goes on.

    Of each tenant only the last one is kept: one that is not done is what :attr:`TenantStatus.PARTIAL` is known from.
    """

    #: The tenant's id.
    tenant: str
    #: The id of the run that it is part of.
    run: str
    revision: str
    #: ``upgrade`` or ``downgrade``.
    direction: str
    #: What the tenant's version table says as long as the step is not through: where it says something else, it is.
    heads: tuple[tuple[str, ...], ...]
    begun_at: datetime
    #: The last statements that went through and stay, shortened.
    stayed: tuple[str, ...] = ()
    #: How many went through.
    count: int = 0
    #: The statement that was begun last and has not ended, shortened.
    current: str | None = None
    #: Names of the indexes that were invalid before.
    invalid_before: tuple[str, ...] = ()
    #: Names of the indexes that it left invalid, as far as is known.
    invalid: tuple[str, ...] = ()
    #: Whether somebody looked for invalid indexes after it had ended.
    looked: bool = False
    #: Why it ended, as in :attr:`AttemptRecord.error`; ``None`` while it goes on, and where its process was killed.
    error: Mapping[str, Any] | None = None
    #: When it was through, or was found to be; ``None`` before that.
    done_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class RevisionRecord:
    """A file that a revision was applied from, or was about to be."""

    revision: str
    #: SHA-256 (hex), see :meth:`History.checksum`.
    checksum: str
    #: The id of the run that met it first.
    first_run: str
    #: When that was.
    at: datetime
    #: When the first tenant was seen to have it, from this file or accepted as if it were; ``None`` before that.
    applied_at: datetime | None = None


def new_run_id() -> str:
    """A new run's id such as ``20261122-215307-k7m2p``: UTC to the second, then five random letters and digits.

    Sorts by time, can be typed and read aloud. Two runs of one second, on whatever machines, share an id once in
    14 million times.
    """
    moment = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    return f"{moment}-{''.join(secrets.choice(_ALPHABET) for _ in range(5))}"


def alive(run: RunRecord, now: datetime) -> bool:
    """Whether the process that carries out ``run`` is still there, or another one surely takes its place.

    On this machine the process is looked up, and its start compared, so that a number given out again is not taken
    for it. A process that cannot be seen from here (another machine, another container, before a reboot) is judged
    by its heartbeat.

    Args:
        run: the run as the journal has it.
        now: the present, timezone aware.
    """
    if run.executor is not None:
        # Workers carry it on, whichever of them are there: it goes on until it is ended.
        return True
    return process_is_there(run, now)


def process_is_there(run: RunRecord, now: datetime) -> bool:
    """Whether the process that began ``run``, or carried it on last, is still there; see :func:`alive`."""
    actor = run.actor
    if actor.host == socket.gethostname():
        realm = process.process_realm()
        if actor.process_started is None and realm is None:
            return process.process_exists(actor.pid)
        if actor.process_started is not None and actor.process_started.startswith(f"{realm}/"):
            return process.process_identity(actor.pid) == actor.process_started
    return run.heartbeat_at is not None and now - run.heartbeat_at < HEARTBEAT_LIFETIME


@dataclass(frozen=True, slots=True)
class Spread:
    """How long one revision took, from tenant to tenant."""

    #: Milliseconds that half of them took at most.
    p50_ms: float
    #: Milliseconds that nine in ten took at most.
    p90_ms: float
    #: How often it was run.
    times: int
