"""Names in the engine: one queue for runs, and one for the chunks of servers with the same budget.

Whoever has another shared directory, or another version of this package, has queues of other names: it is never given
what it would do in another way.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from orchestrator import __version__

#: The schema of the engine's tables, beside the journal's.
SCHEMA = "orchestrator_engine"
#: The engine compares it before it hands out work. Ours says the same in the queues' names, and never changes, because
#: the engine would keep runs of an earlier one for good.
APPLICATION, APPLICATION_VERSION = "orchestrator", "1"
#: What is run: a run as a whole, and one chunk of one.
RUN, CHUNK = "orchestrator.run", "orchestrator.chunk"
#: Chunks at once on a server that there are queues for; always the same, as tenants.yaml may be edited while workers
#: listen.
PLACES = (1, 2, 4, 8, 16, 32)
#: Chunks at once in one worker.
WORKER_CONCURRENCY = 32
#: Starts of chunks on one server in a second, for each tenant that it takes at once.
STARTS = 10
#: Seconds between two looks for work: at least, at most, and for each server of the fleet. Each look asks about every
#: server that has work.
_POLL = (0.2, 1.0, 0.01)
#: Seconds between two looks for a run; queues of chunks are there only while one is under way. Looked into as often as
#: that, too, they took a worker that had nothing to do a fifth of a processor.
_POLL_RUNS = 0.25


@dataclass(frozen=True, slots=True)
class Queues:
    """Of workers that may take each other's work."""

    #: Tells fleets apart that share a journal.
    fleet: str
    #: Of the shared directory's files.
    digest: str
    version: str = __version__

    @classmethod
    def of(cls, identity: str, digest: str) -> Queues:
        """Those of a project.

        Args:
            identity: see :attr:`~orchestrator.actions.project.Project.identity`.
            digest: of its directory.
        """
        return cls(hashlib.sha256(identity.encode()).hexdigest()[:8], digest[:12])

    @property
    def runs(self) -> str:
        """The queue of runs: one at a time."""
        return f"{self.all_runs}{self.digest}:{self.version}"

    @property
    def all_runs(self) -> str:
        """How the queues of the fleet's runs begin, whatever the directory and the version."""
        return f"orchestrator:runs:{self.fleet}:"

    def chunks(self, budget: int) -> str:
        """The queue of chunks on servers that take ``budget`` tenants at once."""
        return f"{self.all_chunks}{budget}"

    @property
    def all_chunks(self) -> str:
        """How the queues of chunks begin."""
        return f"orchestrator:chunks:{self.fleet}:{self.digest}:{self.version}:"

    @property
    def mark(self) -> str:
        """What a worker shows to others: fits into an ``application_name``."""
        return f"{self.fleet}:{self.digest}:{self.version}"


def poll_interval(servers: int) -> float:
    """Seconds between two looks for chunks.

    Args:
        servers: how many the fleet has.
    """
    least, most, each = _POLL
    return min(most, max(least, each * servers))


def poll_interval_of_runs(servers: int) -> float:
    """Seconds between two looks for a run."""
    return max(_POLL_RUNS, poll_interval(servers))
