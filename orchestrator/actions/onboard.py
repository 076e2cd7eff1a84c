"""onboard: new tenants from nothing to their first row, or as far as an earlier call left to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from orchestrator.actions.adoption import Adoption
from orchestrator.actions.execute import Earlier, guarded, run_plan
from orchestrator.actions.execution import Execution, Watch
from orchestrator.actions.journals import opened_journal
from orchestrator.actions.project import Project, read_project
from orchestrator.actions.registrar import Registrar
from orchestrator.actions.servers import opened_servers
from orchestrator.databases.claims import Claim, Marker
from orchestrator.databases.own_names import OURS
from orchestrator.errors import UsageError
from orchestrator.fleet.fleet import Fleet
from orchestrator.fleet.masking import MASK, mask
from orchestrator.fleet.newcomers import Newcomer, Newcomers, read_newcomers
from orchestrator.journal.records import Actor, RunRecord, new_run_id
from orchestrator.rollout.onboarding import Asked, Welcome
from orchestrator.rollout.plan import Request
from orchestrator.rollout.result import RunResult
from orchestrator.rollout.seeding import read_seed
from orchestrator.statuses import RunStatus

#: What a newcomer is in Python: an id, or an entry as in tenants.yaml with ``seed`` beside its keys.
Entry = str | Mapping[str, Any]


async def onboard(
    fleet: Fleet,
    *newcomers: Entry,
    seed: str | None = None,
    adopt: bool = False,
    origin: str = "the call",
    expand: bool = True,
    execution: Execution = Execution(),  # noqa: B008  frozen
    watch: Watch | None = None,
) -> RunResult:
    """Make tenants, migrate them to their target, give them their rows, and write them down in the fleet.

    Every step is made so that the same call, given again, finishes what was cut off; nobody is in the fleet before he
    is ready. A tenant that is there already, ready and in the fleet, is ``already_current``.

    Args:
        fleet: as loaded from tenants.yaml.
        newcomers: ids, or mappings with a tenant's keys as in tenants.yaml, and ``seed``.
        seed: name of the seed for those whose entry names none; ``None`` for the fleet's usual one, ``""`` for none.
        adopt: take in what is there already: its shape is compared with what the directory makes, and it is stamped.
        origin: where the newcomers are from, for messages.
        expand: whether ``${...}`` in a newcomer's ``url`` means a secret, as in tenants.yaml; never for data.
        execution: how many at once, how many may fail, in what waves.
        watch: who looks on and may stop it.

    Returns:
        What ``orchestrator onboard --json`` prints, as an object.

    Raises:
        ConfigurationError: a newcomer is no tenant, or clashes with another; nothing was touched.
        OrchestratorError: other bad input; nothing was touched.
    """
    entries = [{"id": each} if isinstance(each, str) else dict(each) for each in newcomers]
    watch = watch or Watch()
    async with opened_servers(fleet) as servers, opened_journal(fleet) as journal:
        whole = await servers.fleet()
        given = read_newcomers(whole, entries, origin, expand=expand)
        project = await read_project(fleet, servers)
        project = project.joined_by(given.fleet)
        request = Request("onboard", None, True, execution.budget, execution.wave, waves=execution.listed_waves)
        asked = await asked_of(project, given, seed, adopt=adopt)
        chosen = [each.tenant for each in given.newcomers]
        plan, files = await guarded(project, journal, await project.plan(request, chosen), execution)
        record = RunRecord(
            id=new_run_id(),
            command="onboard",
            target=plan.target,
            requested_target="",
            status=RunStatus.RUNNING,
            started_at=datetime.now(UTC),
            finished_at=None,
            actor=Actor.current(fleet.root),
            directory_digest=project.history.digest,
            options={
                "provision": True,
                "waves": execution.waves,
                "newcomers": [_without_secrets(entry) for entry in entries],
                "seed": seed,
                "adopt": adopt,
                "expand": expand,
            },
        )
        return await run_plan(project, journal, record, plan, files, request, execution, watch, Earlier(), asked)


async def carried_on(project: Project, record: RunRecord) -> tuple[Project, Asked]:
    """What a run that onboards goes on with: the fleet as it will be, and what is asked for its new tenants.

    Args:
        project: opened.
        record: of the run.

    Raises:
        UsageError: an address had a secret in it, which the journal does not have.
    """
    options = record.options
    entries: Sequence[Mapping[str, Any]] = options["newcomers"]
    masked = next((entry["id"] for entry in entries if MASK in entry.get("url", "")), None)
    if masked is not None:
        raise UsageError(
            f"the address of {masked} had a password in it, which is in no journal",
            hint="give the same onboard command again: it goes on where this run ended",
        )
    given = read_newcomers(project.fleet, entries, f"run {record.id}", expand=options["expand"])
    project = project.joined_by(given.fleet)
    return project, await asked_of(project, given, options["seed"], adopt=options["adopt"])


async def asked_of(project: Project, given: Newcomers, seed: str | None, *, adopt: bool) -> Asked:
    """What a run is to do for newcomers.

    Raises:
        OrchestratorError: a seed cannot be read, or a place would have a name of ours.
    """
    onboarding = project.fleet.onboarding
    named = {
        each.tenant.id: onboarding.seed_named(seed if each.seed is None else each.seed) for each in given.newcomers
    }
    seeds = {
        name: await read_seed(onboarding.seeds[name]) for name in dict.fromkeys(named.values()) if name is not None
    }
    for each in given.newcomers:
        _refuse_our_names(each)
    identity = project.identity
    welcomes = {
        each.tenant.id: Welcome(
            Claim(
                Marker(identity, each.tenant.id, fresh=True),
                onboarding.owner,
                onboarding.extensions,
                None if adopt else named[each.tenant.id],
                onboarding.statements,
            ),
            each.listed,
        )
        for each in given.newcomers
    }
    registrar = Registrar(project)
    return Asked(welcomes, registrar.register, seeds, adopt=Adoption(project).adopt if adopt else None)


def _refuse_our_names(newcomer: Newcomer) -> None:
    tenant = newcomer.tenant
    for name in (tenant.schema, tenant.database):
        if name is not None and name.startswith(OURS):
            raise UsageError(f"{name} is a name that orchestrator keeps for itself", hint="give it another name")


def _without_secrets(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {key: mask(value) if key == "url" and isinstance(value, str) else value for key, value in entry.items()}
