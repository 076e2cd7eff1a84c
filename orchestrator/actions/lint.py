"""lint: hazards in pending revisions, in a range of them, or in all. Runs nothing on any tenant."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from orchestrator.actions.integrity import Edited, edited_by_journal, integrity
from orchestrator.actions.journals import opened_journal
from orchestrator.actions.linting.chosen import check_rules
from orchestrator.actions.linting.report import Finding, Ignored, LintedRevision, LintReport
from orchestrator.actions.linting.revisions import bad_ignores, lint_revisions, place
from orchestrator.actions.linting.scope import Scope, all_revisions, between, pending, shares_database
from orchestrator.actions.linting.squawk import ask_squawk
from orchestrator.actions.project import Project, opened_project
from orchestrator.actions.servers import Tenants, selection_of
from orchestrator.errors import JournalError, UsageError
from orchestrator.fleet.fleet import Fleet
from orchestrator.history.directory import History
from orchestrator.history.hazards import Hazard, HazardKind
from orchestrator.history.ignores import Ignore, ignores
from orchestrator.history.rules import RULES, severity_of
from orchestrator.migration.attempt import Migrator
from orchestrator.statuses import Severity

log = logging.getLogger("orchestrator.lint")


@dataclass(frozen=True, slots=True)
class _Found:
    """What was looked at, before it is weighed."""

    scope: Scope
    revisions: Sequence[LintedRevision]
    edited: Sequence[Edited]


async def lint(
    fleet: Fleet, target: str | None = None, *, tenants: Tenants = (), every_revision: bool = False
) -> LintReport:
    """Look for hazards in revisions, without running any.

    Args:
        fleet: as loaded from tenants.yaml.
        target: up to where: as for ``upgrade``; or a range ``A:B``, what ``B`` has and ``A`` has not.
        tenants: whose pending revisions: ids or globs, or a :class:`Selection`; all without a selection.
        every_revision: all revisions up to ``target``, whether pending or not.

    With a range and with ``every_revision`` no server is asked anything.

    Raises:
        OrchestratorError: bad input, or a tenant cannot be read, so that nobody knows what is pending.
    """
    check_rules(fleet)
    if every_revision or ":" in (target or ""):
        if not selection_of(tenants).is_empty:
            raise UsageError(
                "with --all-revisions or a range no tenant is asked, and a selection has no meaning",
                hint="leave the selection out; or leave out --all-revisions, for what is pending",
            )
        found = await _without_servers(fleet, target, every_revision)
    else:
        async with opened_project(fleet) as project:
            if project.fleet.tenants:
                found = await _pending(project, target, tenants)
                fleet = project.fleet
            else:
                found = await _for_the_first(fleet, project, target, tenants)
    return await _weighed(fleet, found)


async def lint_written(fleet: Fleet, scope: Scope) -> LintReport:
    """Look at what was written just now: nobody can have applied it, nor edited it since.

    Args:
        fleet: whose rules hold.
        scope: the new revisions.
    """
    return await _weighed(fleet, _Found(scope, _looked_at(fleet, scope), ()))


async def _without_servers(fleet: Fleet, target: str | None, every_revision: bool) -> _Found:
    history = History.beside(fleet.root)
    scope = all_revisions(fleet, history, target) if every_revision else between(fleet, history, target or "")
    edited: Sequence[Edited] = ()
    try:
        async with opened_journal(fleet, read_only=True) as journal:
            edited = await edited_by_journal(history, fleet.root, journal)
    except JournalError as error:
        _not_compared(error)
    return _Found(scope, _looked_at(fleet, scope), edited)


async def _pending(project: Project, target: str | None, tenants: Tenants) -> _Found:
    scope = await pending(project, target, tenants)
    edited: Sequence[Edited] = ()
    try:
        async with opened_journal(project.fleet, read_only=True) as journal:
            edited = (await integrity(project, journal)).edited
    except JournalError as error:
        _not_compared(error)
    return _Found(scope, _looked_at(project.fleet, scope), edited)


async def _for_the_first(fleet: Fleet, project: Project, target: str | None, tenants: Tenants) -> _Found:
    """What is pending where there is no tenant: everything, for whoever comes first."""
    project.choose(tenants)
    found = await _without_servers(fleet, target, True)
    log.warning("the fleet has no tenant: every revision is looked at, as it is pending for the first one to come")
    return found


def _not_compared(error: JournalError) -> None:
    log.warning("%s; whether revisions were edited after they were applied is not looked at", error.message)


def _looked_at(fleet: Fleet, scope: Scope) -> list[LintedRevision]:
    migrator = Migrator(fleet, scope.history, scope.loop, scope.databases)
    return lint_revisions(migrator, scope.example, scope.revisions)


async def _weighed(fleet: Fleet, found: _Found) -> LintReport:
    """Say how much everything weighs, leave out what does not, and put aside what the files excuse."""
    scope, chosen = found.scope, fleet.lint_rules
    comments = {each.revision: ignores(_source(scope.history, each.revision)) for each in found.revisions}
    raised: list[Finding] = []
    for each in found.revisions:
        hazards = [*each.hazards, *bad_ignores(each.revision, comments[each.revision])]
        raised += (_finding(each, hazard) for hazard in hazards)
    if not shares_database(fleet):
        # Every tenant has a public of its own.
        raised = [finding for finding in raised if finding.rule != HazardKind.PUBLIC_NAME]
    squawk, complaints = await asyncio.to_thread(ask_squawk, scope, found.revisions, chosen)
    raised += complaints
    raised = [replace(finding, severity=severity_of(finding.rule, chosen)) for finding in raised]
    whole = [
        replace(finding, severity=severity_of(finding.rule, chosen))
        for finding in (*_several_heads(scope.history), *_edited(scope.history, fleet, found.edited))
    ]
    order = {revision: number for number, revision in enumerate(scope.revisions)}
    raised.sort(key=lambda finding: (order[finding.revision or ""], finding.line))
    kept, excused = _parted([finding for finding in raised if finding.severity is not Severity.OFF], comments)
    whole = [finding for finding in whole if finding.severity is not Severity.OFF]
    return LintReport(
        taken=scope.taken,
        revisions=scope.revisions,
        findings=(*whole, *(finding for finding in kept if finding.rule != HazardKind.NOT_LINTED)),
        not_linted=tuple(finding for finding in kept if finding.rule == HazardKind.NOT_LINTED),
        ignored=excused,
        squawk=squawk,
    )


def _parted(
    findings: Iterable[Finding], comments: dict[str, tuple[Ignore, ...]]
) -> tuple[list[Finding], tuple[Ignored, ...]]:
    kept, excused = [], []
    for finding in findings:
        found = (ignore for ignore in comments[finding.revision or ""] if ignore.covers(finding.rule))
        if (ignore := next(found, None)) is not None:
            excused.append(Ignored(finding, ignore.reason))
        else:
            kept.append(finding)
    return kept, tuple(excused)


def _finding(each: LintedRevision, hazard: Hazard) -> Finding:
    rule = RULES[hazard.kind]
    message = _MESSAGES.get(hazard.kind, "{}").format(hazard.detail)
    return Finding(hazard.kind.value, rule.severity, each.revision, each.file, hazard.line, message, rule.hint)


#: What is said of a hazard, where its detail alone does not say what it is.
_MESSAGES = {
    HazardKind.GLOBAL_STATE: "keeps state between tenants: {}",
    HazardKind.NO_DOWNGRADE: "there is no {}()",
    HazardKind.EMPTY_DOWNGRADE: "{}() does nothing, and upgrade() does something",
    HazardKind.IRREVERSIBLE: "{}() raises: there is no way back",
    HazardKind.UPGRADE_LOSES_DATA: "upgrade() throws data away: {}",
    HazardKind.DOWNGRADE_LOSES_DATA: "downgrade() throws data away: {}",
    HazardKind.PUBLIC_NAME: "names public, which all tenants share: {}",
    HazardKind.CONCURRENT_IF_NOT_EXISTS: "takes an INVALID index for a built one: {}",
}


def _several_heads(history: History) -> Iterator[Finding]:
    if history.unlabelled_heads:
        rule = RULES[HazardKind.SEVERAL_HEADS]
        text = f"the directory has {len(history.heads)} heads: {', '.join(history.heads)}"
        yield Finding(HazardKind.SEVERAL_HEADS.value, rule.severity, None, None, 1, text, rule.hint)


def _edited(history: History, fleet: Fleet, edited: Iterable[Edited]) -> Iterator[Finding]:
    for each in edited:
        severity, file = RULES[HazardKind.EDITED].severity, place(history, fleet, each.revision)
        yield Finding(HazardKind.EDITED.value, severity, each.revision, file, 1, each.message, each.hint)


def _source(history: History, revision: str) -> str:
    return history.file(revision).read_text(encoding="utf-8")
