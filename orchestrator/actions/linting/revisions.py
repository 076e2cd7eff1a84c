"""Look at revisions with the rules of our own: their source, and the SQL that they render to."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterable, Iterator, Sequence

from orchestrator.actions.linting.report import LintedRevision
from orchestrator.actions.project import migrating
from orchestrator.databases.failures import describe
from orchestrator.errors import OrchestratorError
from orchestrator.fleet.fleet import Fleet
from orchestrator.fleet.tenant import Tenant
from orchestrator.history.directory import History
from orchestrator.history.enum_types import left_over_in_source
from orchestrator.history.hazards import NO_WAY_BACK, Hazard, HazardKind
from orchestrator.history.ignores import Ignore
from orchestrator.history.lint_source import source_hazards
from orchestrator.history.lint_sql import enum_hazards, is_nothing, sql_hazards
from orchestrator.history.source import functions_of, statement_lines
from orchestrator.migration.attempt import Migrator
from orchestrator.migration.rendering import Rendered, render_revision

#: There is nothing to render on the way back.
_NOTHING_BACK = NO_WAY_BACK | {HazardKind.EMPTY_DOWNGRADE}


def lint_revisions(migrator: Migrator, tenant: Tenant, revisions: Sequence[str]) -> list[LintedRevision]:
    """Look at each of ``revisions``.

    Args:
        migrator: over the shared directory; nothing is connected to.
        tenant: as whose the SQL is rendered.
        revisions: full identifiers.

    Raises:
        OrchestratorError: env.py cannot be used for ``tenant``.
    """
    with migrating(migrator):
        return [_linted(migrator, tenant, revision) for revision in revisions]


def place(history: History, fleet: Fleet, revision: str) -> str:
    """A revision's file, from the directory with tenants.yaml; the versions may be beside it, or above."""
    return os.path.relpath(history.file(revision).resolve(), fleet.root.resolve())


def bad_ignores(revision: str, found: Iterable[Ignore]) -> Iterator[Hazard]:
    """The ignoring comments that excuse from nothing."""
    for ignore in found:
        if ignore.fault is not None:
            yield Hazard(revision, HazardKind.BAD_IGNORE, ignore.fault, ignore.line)


def _linted(migrator: Migrator, tenant: Tenant, revision: str) -> LintedRevision:
    history = migrator.history
    tree = ast.parse(history.file(revision).read_bytes())
    begins = statement_lines(tree)
    hazards = [*history.hazards([revision]), *source_hazards(revision, tree)]
    forward, back = _rendered(migrator, tenant, revision, hazards)
    told = {(hazard.kind, begins.get(hazard.line)) for hazard in hazards}
    known = history.losses(revision, "upgrade")
    for hazard in sql_hazards(revision, forward.statements, back.statements, known):
        # A loss that the source tells, too, is not among them; of the others, the source's word is the better one.
        if hazard.kind is HazardKind.UPGRADE_LOSES_DATA or (hazard.kind, begins.get(hazard.line)) not in told:
            hazards.append(hazard)
    if not _NOTHING_BACK & {hazard.kind for hazard in hazards}:
        hazards += _emptiness(revision, tree, forward, back)
    if not _NOTHING_BACK & {hazard.kind for hazard in hazards}:
        hazards += _enums(revision, tree, forward, back)
    for part in (forward, back):
        if part.unseen is not None:
            hazards.append(Hazard(revision, HazardKind.NOT_LINTED, part.unseen, part.line))
    return LintedRevision(
        revision, place(history, migrator.fleet, revision), tuple(dict.fromkeys(hazards)), forward.statements
    )


def _rendered(
    migrator: Migrator, tenant: Tenant, revision: str, hazards: Sequence[Hazard]
) -> tuple[Rendered, Rendered]:
    directions = ["upgrade"]
    if not _NOTHING_BACK & {hazard.kind for hazard in hazards}:
        directions.append("downgrade")
    parts = []
    for direction in directions:
        try:
            parts.append(render_revision(migrator, tenant, revision, direction))
        except OrchestratorError:
            # env.py's or tenants.yaml's fault, which every revision would have.
            raise
        except Exception as error:
            reason = f"{direction}() cannot be rendered: {type(error).__name__}: {describe(error).message}"
            parts.append(Rendered((), reason))
    forward, back, *_ = [*parts, Rendered()]
    if forward.unseen is not None and back.unseen is not None and forward.line == back.line:
        back = Rendered(back.statements)
    return forward, back


def _emptiness(revision: str, tree: ast.Module, forward: Rendered, back: Rendered) -> Iterator[Hazard]:
    """A way back that sends nothing, whatever it looks like, where the way forward sends something."""
    if back.unseen is None and is_nothing(back.statements) and not is_nothing(forward.statements):
        function = functions_of(tree).get("downgrade")
        yield Hazard(revision, HazardKind.EMPTY_DOWNGRADE, "downgrade", 1 if function is None else function.lineno)


def _enums(revision: str, tree: ast.Module, forward: Rendered, back: Rendered) -> Iterator[Hazard]:
    if forward.unseen is None and back.unseen is None:
        yield from enum_hazards(revision, forward.statements, back.statements)
    else:
        for name, line in left_over_in_source(tree).items():
            yield Hazard(revision, HazardKind.ENUM_LEAK, f"type {name} stays after downgrade()", line)
