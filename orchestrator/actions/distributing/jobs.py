"""What workers are told: plain JSON, so that any version can read why it does not take it; never a secret."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from orchestrator.actions.execution import DBOS, Execution
from orchestrator.fleet.fleet import FailureBudget
from orchestrator.fleet.tenant import Limits
from orchestrator.rollout.chunks import Chunk
from orchestrator.rollout.plan import PlannedWave

#: Fields of an execution that are not the workers' business.
_NOT_TOLD = ("executor", "detach", "workforce")


@dataclass(frozen=True, slots=True)
class RunJob:
    """A run as a whole."""

    run: str
    #: Make missing schemas, databases and files.
    provision: bool
    execution: Execution
    #: It has just been planned, and nobody has touched a tenant for it.
    fresh: bool
    #: The wave that waited when somebody approved; ``None`` where nobody has.
    approves: str | None = None
    #: When the attempts had ended that the run had made before, of tenants that were not done, by id.
    ended: Mapping[str, str] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """For the queue."""
        return {
            "run": self.run,
            "provision": self.provision,
            "execution": execution_as_json(self.execution),
            "fresh": self.fresh,
            "approves": self.approves,
            "ended": dict(self.ended),
        }

    @classmethod
    def from_json(cls, job: Mapping[str, Any]) -> RunJob:
        """What :meth:`as_json` made."""
        execution = execution_from_json(job["execution"])
        return cls(job["run"], job["provision"], execution, job["fresh"], job["approves"], job["ended"])


@dataclass(frozen=True, slots=True)
class ChunkJob:
    """A chunk of a wave."""

    run: str
    #: The workflow of the run as a whole: another one each time that the run is given to workers.
    part: str
    wave: str
    #: Their ids, in the order in which to begin.
    tenants: tuple[str, ...]
    #: Where each is to go, by id.
    targets: Mapping[str, str]
    #: Tenants that had no schema, database or file when the run was planned.
    missing: tuple[str, ...]
    #: How often the run had tried each before, by id; without those it had not.
    tried: Mapping[str, int]
    #: Tenants at once.
    width: int
    #: Tenants at once that the server takes in all.
    cap: int
    #: How many tenants the wave has.
    size: int
    #: How many of them have failed so far, and how many may.
    failures: int
    budget: FailureBudget
    #: The run stops when so many tenants have failed for one cause.
    same_cause: int | None
    #: Make missing schemas, databases and files.
    provision: bool
    execution: Execution
    #: Nobody has touched a tenant for this run before it was planned.
    fresh: bool
    #: Of the shared directory's files.
    digest: str

    @classmethod
    def of(
        cls,
        run: str,
        wave: PlannedWave,
        chunk: Chunk,
        *,
        part: str,
        missing: tuple[str, ...],
        tried: Mapping[str, int],
        cap: int,
        failures: int,
        same_cause: int | None,
        provision: bool,
        execution: Execution,
        fresh: bool,
        digest: str,
    ) -> ChunkJob:
        """What there is to say of ``chunk``."""
        return cls(
            run,
            part,
            wave.name,
            tuple(each.tenant.id for each in chunk.tenants),
            {each.tenant.id: each.target for each in chunk.tenants},
            missing,
            tried,
            chunk.width,
            cap,
            wave.size,
            failures,
            wave.budget,
            same_cause,
            provision,
            execution,
            fresh and not chunk.rounds,
            digest,
        )

    def as_json(self) -> dict[str, Any]:
        """For the queue: a target that all share is said once."""
        told = asdict(replace(self, execution=Execution()))
        if len(set(self.targets.values())) == 1:
            told["targets"] = next(iter(self.targets.values()))
        return {**told, "execution": execution_as_json(self.execution)}

    @classmethod
    def from_json(cls, job: Mapping[str, Any]) -> ChunkJob:
        """What :meth:`as_json` made."""
        given = {name: job[name] for name in cls.__slots__}
        tenants = tuple(given["tenants"])
        targets = given["targets"]
        given |= {
            "tenants": tenants,
            "targets": dict.fromkeys(tenants, targets) if isinstance(targets, str) else targets,
            "missing": tuple(given["missing"]),
            "budget": FailureBudget(**given["budget"]),
            "execution": execution_from_json(given["execution"]),
        }
        return cls(**given)


def execution_as_json(execution: Execution) -> dict[str, Any]:
    """How a run is carried out, as far as workers have to know."""
    told = asdict(replace(execution, workforce=None))
    for name in _NOT_TOLD:
        del told[name]
    backup = execution.backup
    return {**told, "accept_edited": list(execution.accept_edited), "backup": None if backup is None else str(backup)}


def execution_from_json(told: Mapping[str, Any]) -> Execution:
    """What :func:`execution_as_json` made."""
    budget, backup = told["max_failures"], told["backup"]
    given = {
        **told,
        "max_failures": None if budget is None else FailureBudget(**budget),
        "limits": Limits(**told["limits"]),
        "accept_edited": tuple(told["accept_edited"]),
        "backup": None if backup is None else Path(backup),
        "executor": DBOS,
    }
    return Execution(**given)
