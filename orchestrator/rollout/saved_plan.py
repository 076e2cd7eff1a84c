"""A plan in a file: made and looked at today, run tomorrow, and only if all is still as it was."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from orchestrator.errors import UsageError
from orchestrator.fleet.fleet import FailureBudget
from orchestrator.fleet.selection import Selection
from orchestrator.fleet.wave_lists import waves_from
from orchestrator.history.directory import History
from orchestrator.rollout.next_commands import flags_of
from orchestrator.rollout.plan import Plan, PlannedTenant
from orchestrator.rollout.planning import Request
from orchestrator.statuses import TenantStatus

#: What the file says of its own form; another number is of another version of this package.
_FORMAT = 1
#: Tenants that a message names.
_NAMED = 5


class PlanMoved(UsageError):
    """What a saved plan was made from is no longer so; nothing was touched."""


@dataclass(frozen=True, slots=True)
class SavedTenant:
    """What the plan holds of one tenant; another value of any of these is another plan."""

    tenant: str
    server: str
    #: Its schema, database or file.
    place: str
    #: As read when the plan was made; ``None`` where they could not be.
    heads: tuple[str, ...] | None
    #: As typed, or its own; a relative one as the revision that it came to.
    target: str
    #: The revisions that it ends at.
    goal: tuple[str, ...]
    #: ``pending`` when it is to be migrated.
    verdict: str

    @classmethod
    def of(cls, planned: PlannedTenant) -> SavedTenant:
        """What is kept of a tenant's part in a plan."""
        one = planned.tenant
        return cls(one.id, one.server, one.place, planned.heads, planned.target, planned.goal, planned.verdict.value)

    def moved(self, now: SavedTenant | None) -> str | None:
        """What has changed since, for people; ``None`` where nothing has."""
        if now is None:
            return "is no longer in the fleet, or not in this wave"
        if now == self:
            return None
        if now.heads != self.heads:
            return f"was at {_revisions(self.heads)}, is at {_revisions(now.heads)}"
        if (now.server, now.place) != (self.server, self.place):
            return f"was {self.place} on {self.server}, is {now.place} on {now.server}"
        if now.goal != self.goal:
            return f"was to go to {_revisions(self.goal)}, would go to {_revisions(now.goal)}"
        if now.target != self.target:
            return f"had the target {self.target}, has {now.target}"
        return f"was {self.verdict}, is {now.verdict}"


@dataclass(frozen=True, slots=True)
class SavedPlan:
    """Everything that has to be so still when the plan is run."""

    made_at: datetime
    #: As typed; ``None`` when each tenant goes to its own target.
    target: str | None
    provision: bool
    #: Only this wave; ``None`` for all.
    wave: str | None
    #: Waves that were given in place of those of tenants.yaml, as typed.
    listed_waves: str | None
    #: Failures tolerated per wave, where the plan was given a number.
    budget: FailureBudget | None
    #: What was typed to choose tenants.
    selection: Mapping[str, Any]
    #: Whom that meant, in the fleet's order; with ``wave`` more than are in the plan.
    selected: tuple[str, ...]
    #: Host, port and default database of each server, by name: an address may hold what is read anew each time.
    addresses: Mapping[str, str]
    directory_digest: str
    directory_heads: tuple[str, ...]
    #: Name of each wave and its tenants, in the order in which they go.
    waves: tuple[tuple[str, tuple[SavedTenant, ...]], ...]

    @classmethod
    def of(
        cls,
        plan: Plan,
        request: Request,
        listed_waves: str | None,
        selection: Selection,
        selected: Sequence[str],
        addresses: Mapping[str, str],
        history: History,
    ) -> SavedPlan:
        """What is kept of ``plan``.

        Args:
            plan: of an upgrade.
            request: what it was made from.
            listed_waves: the waves that were given in place of those of tenants.yaml, as typed.
            selection: how its tenants were chosen.
            selected: ids of those that were.
            addresses: where each server is, by name.
            history: the shared directory.
        """
        waves = tuple((wave.name, tuple(map(SavedTenant.of, wave.tenants))) for wave in plan.waves)
        return cls(
            datetime.now(UTC),
            request.target,
            request.provision,
            request.wave,
            listed_waves,
            request.budget,
            selection.as_json(),
            tuple(selected),
            dict(addresses),
            history.digest,
            history.heads,
            waves,
        )

    @property
    def tenants(self) -> tuple[SavedTenant, ...]:
        """All of the plan's, in order."""
        return tuple(each for _, members in self.waves for each in members)

    @property
    def fixed(self) -> dict[str, str]:
        """The revision that each tenant to be migrated ends at, by id; those that end at several are left out."""
        pending = (each for each in self.tenants if each.verdict == TenantStatus.PENDING.value)
        return {each.tenant: each.goal[0] for each in pending if len(each.goal) == 1}

    def request(self, budget: FailureBudget | None) -> Request:
        """What the plan was made from, to be asked again.

        Args:
            budget: failures tolerated per wave, in place of what the plan was given.
        """
        waves = None if self.listed_waves is None else waves_from(self.listed_waves)
        return Request("upgrade", self.target, self.provision, budget or self.budget, self.wave, waves=waves)

    def require_directory(self, history: History) -> None:
        """Refuse another directory than the one that the plan was made for.

        Raises:
            PlanMoved: a revision was added, removed or edited.
        """
        if history.digest == self.directory_digest:
            return
        heads = (
            f"its heads were {_revisions(self.directory_heads)}, are {_revisions(history.heads)}"
            if history.heads != self.directory_heads
            else "its heads are the same: a revision file was edited, added or removed"
        )
        raise PlanMoved(
            f"the plan of {self._when} no longer holds: the directory has moved"
            f" (digest {self.directory_digest[:12]}, now {history.digest[:12]}); {heads}",
            hint=f"make it again and look at it: {self.again}",
        )

    def require(self, plan: Plan, addresses: Mapping[str, str]) -> None:
        """Refuse to run unless ``plan``, made just now, is this one.

        Args:
            plan: for the same tenants and the same request.
            addresses: where each server is now, by name.

        Raises:
            PlanMoved: says which tenants have moved, or that waves have.
        """
        waves = [(wave.name, {each.tenant.id for each in wave.tenants}) for wave in plan.waves]
        now = {each.tenant.id: SavedTenant.of(each) for each in plan.tenants}
        moved = [(each.tenant, what) for each in self.tenants if (what := each.moved(now.get(each.tenant)))]
        if moved:
            told = "; ".join(f"{tenant} {what}" for tenant, what in moved[:_NAMED])
            more = f"; and {len(moved) - _NAMED} more" if len(moved) > _NAMED else ""
            raise PlanMoved(
                f"the plan of {self._when} no longer holds for {len(moved)} of {len(self.tenants)} tenants:"
                f" {told}{more}",
                hint=f"see where they stand: orchestrator status; then make it again: {self.again}",
            )
        elsewhere = [name for name, address in self.addresses.items() if addresses.get(name) != address]
        if elsewhere:
            name = elsewhere[0]
            raise PlanMoved(
                f"the plan of {self._when} no longer holds: server {name} was {self.addresses[name]},"
                f" is {addresses.get(name, 'gone')}",
                hint=f"make it again and look at it: {self.again}",
            )
        if waves != [(name, {each.tenant for each in members}) for name, members in self.waves]:
            raise PlanMoved(
                f"the plan of {self._when} no longer holds: its waves were {self._counted(self.waves)},"
                f" tenants.yaml now makes {self._counted(waves)}",
                hint=f"make it again and look at it: {self.again}",
            )

    @property
    def again(self) -> str:
        """The command that makes this plan, as far as it is known."""
        return shlex.join(["orchestrator", "plan", *self._arguments(), "--out", "plan.json"])

    @property
    def _when(self) -> str:
        return f"{self.made_at:%Y-%m-%d %H:%M:%S} UTC"

    @staticmethod
    def _counted(waves: Iterable[tuple[str, Any]]) -> str:
        return ", ".join(f"{name} ({len(members)})" for name, members in waves) or "none"

    def _arguments(self) -> list[str]:
        found = [*([] if self.target is None else [self.target]), *flags_of(self.selection)]
        if self.wave is not None:
            found += ["--wave", self.wave]
        if self.listed_waves is not None:
            found += ["--waves", self.listed_waves]
        return [*found, "--provision"] if self.provision else found

    def as_json(self) -> dict[str, Any]:
        """The key ``saved`` of the file."""
        return {
            "format": _FORMAT,
            "made_at": self.made_at.isoformat(),
            "target": self.target,
            "provision": self.provision,
            "wave": self.wave,
            "listed_waves": self.listed_waves,
            "max_failures": None if self.budget is None else asdict(self.budget),
            "selection": dict(self.selection),
            "selected": list(self.selected),
            "addresses": dict(self.addresses),
            "directory_digest": self.directory_digest,
            "directory_heads": list(self.directory_heads),
            "waves": [{"name": name, "tenants": [asdict(each) for each in members]} for name, members in self.waves],
        }

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> SavedPlan:
        """The other way round.

        Raises:
            KeyError, TypeError, ValueError: it is not what :meth:`as_json` makes.
        """
        if saved["format"] != _FORMAT:
            raise ValueError(f"format {saved['format']}, not {_FORMAT}")

        def tenant(entry: Mapping[str, Any]) -> SavedTenant:
            heads = entry["heads"]
            lists = {"heads": None if heads is None else tuple(heads), "goal": tuple(entry["goal"])}
            return SavedTenant(**{**entry, **lists})

        budget = saved["max_failures"]
        return cls(
            datetime.fromisoformat(saved["made_at"]),
            saved["target"],
            saved["provision"],
            saved["wave"],
            saved["listed_waves"],
            None if budget is None else FailureBudget(**budget),
            saved["selection"],
            tuple(saved["selected"]),
            saved["addresses"],
            saved["directory_digest"],
            tuple(saved["directory_heads"]),
            tuple((wave["name"], tuple(map(tenant, wave["tenants"]))) for wave in saved["waves"]),
        )


def save(document: Mapping[str, Any], file: Path, option: str = "--out plan.json") -> None:
    """Write a document, a plan's unless ``option`` is another one, whole or not at all.

    Args:
        document: as JSON.
        file: where.
        option: how it was asked for, for example.

    Raises:
        UsageError: the file cannot be written.
    """
    beside = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        beside.write_text(json.dumps(document, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
        beside.replace(file)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise UsageError(
            f"cannot write {file}: {error.strerror}", hint=f"name a file in a directory that there is: {option}"
        ) from error


def load_plan(file: Path) -> SavedPlan:
    """Read what :func:`save` has written.

    Raises:
        UsageError: there is no such file, or it is no saved plan of this version.
    """
    hint = f"make one: orchestrator plan --out {shlex.quote(str(file))}"
    try:
        return SavedPlan.from_json(json.loads(file.read_text(encoding="utf-8"))["saved"])
    except OSError as error:
        raise UsageError(f"cannot read the plan {file}: {error.strerror}", hint=hint) from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UsageError(f"{file} is no plan that can be run: {type(error).__name__}: {error}", hint=hint) from error


def _revisions(names: Sequence[str] | None) -> str:
    return "an unknown revision" if names is None else ", ".join(names) or "base"
