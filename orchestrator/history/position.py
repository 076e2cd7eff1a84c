"""Where a tenant's heads stand, seen from the target. Pure."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from orchestrator.errors import HistoryError
from orchestrator.history.directory import History, Irreversible
from orchestrator.history.graph import Graph
from orchestrator.history.hazards import NO_WAY_BACK
from orchestrator.history.way_back import Stand, WayBack, stand_to
from orchestrator.statuses import TenantStatus
from orchestrator.targets import is_relative


def stand(graph: Graph, heads: Collection[str], target: Collection[str]) -> TenantStatus:
    """Say how a tenant at ``heads`` stands to ``target``.

    A head on another branch does not disturb as long as one head is on a path to the target, or as long as the branches
    descend from nothing in common (separate bases): two labelled branches in one directory are ordinary, also where one
    depends on the other.

    Args:
        graph: the shared directory.
        heads: the revisions in the tenant's version table.
        target: full identifiers of the revisions asked for.

    Returns:
        One of ``unknown_revision``, ``current``, ``ahead``, ``behind``, ``diverged``.
    """
    if graph.unknown(heads):
        return TenantStatus.UNKNOWN_REVISION
    wanted, applied = graph.closure(target), graph.closure(heads)
    if wanted <= applied:
        beyond = any(goal in graph.before(head) for goal in target for head in heads if goal not in heads)
        return TenantStatus.AHEAD if beyond else TenantStatus.CURRENT
    on_the_way = any(head in wanted for head in heads)
    related = bool(graph.branch(target) & graph.branch(heads))
    return TenantStatus.DIVERGED if related and not on_the_way else TenantStatus.BEHIND


#: Commands that run what another one runs.
_DIRECTIONS = {"rollback": "downgrade", "onboard": "upgrade"}


def direction_of(command: str) -> str:
    """Which of a revision's functions a command runs: ``upgrade`` or ``downgrade``; ``stamp`` runs none."""
    return _DIRECTIONS.get(command, command)


@dataclass(frozen=True, slots=True)
class Position:
    """What a command would have to do to a tenant at certain heads."""

    #: As ``status`` would say it, seen from the command's target.
    status: TenantStatus
    #: The revisions to run, in order.
    path: tuple[str, ...] = ()
    #: Why the command must not touch the tenant; ``None`` when it may.
    problem: HistoryError | None = None
    #: The problem's short name in JSON: ``unknown_revision``, ``diverged``, ``irreversible``, ``moved_on``.
    kind: str | None = None


def position(history: History, command: str, heads: Collection[str], target: str) -> Position:
    """Where a tenant at ``heads`` stands for ``command`` (upgrade, onboard, downgrade, rollback, stamp) to ``target``.

    Args:
        history: the shared directory.
        command: which.
        heads: the revisions in the tenant's version table.
        target: as typed; for a rollback, a :class:`WayBack` as text.

    Raises:
        HistoryError: ``target`` itself is not in the directory.
    """
    if command == "onboard":
        command = "upgrade"
    question = (command, tuple(heads), target)
    known = history.positions.get(question)
    if known is None:
        known = history.positions[question] = _position(history, command, heads, target)
    return known


def _position(history: History, command: str, heads: Collection[str], target: str) -> Position:
    unknown = history.graph.unknown(heads)
    if command == "stamp":
        same = frozenset(heads) == frozenset(history.resolve(target))
        return Position(TenantStatus.CURRENT if same else TenantStatus.BEHIND)
    if unknown:
        problem = HistoryError(
            f"the tenant is at {', '.join(unknown)}, which this directory does not have",
            hint="deploy the directory that has it, most likely a newer one; only where there is none any more, and its"
            " tables are known to be another revision's: orchestrator stamp REV -t TENANT",
        )
        return Position(TenantStatus.UNKNOWN_REVISION, problem=problem, kind="unknown_revision")
    if overlapping := history.graph.overlapping(heads) if len(heads) > 1 else ():
        return _overlapping(heads, overlapping)
    if command == "rollback":
        return _position_back(history, heads, WayBack.parse(target))
    relative = is_relative(target)
    goals = () if relative else history.resolve(target)
    if command == "upgrade" and not relative:
        status = stand(history.graph, heads, goals)
        if status is TenantStatus.DIVERGED:
            problem = HistoryError(
                f"no path leads from {', '.join(heads)} to {target}: they are on different branches",
                hint="join the branches: alembic merge heads; or name the tenant's own branch as its target",
            )
            return Position(status, problem=problem, kind="diverged")
        if status is not TenantStatus.BEHIND:
            return Position(status)
    try:
        path = history.path(command, heads, target)
    except Irreversible as error:
        return Position(TenantStatus.AHEAD, problem=error, kind="irreversible")
    except HistoryError as error:
        return Position(TenantStatus.DIVERGED, problem=error, kind="diverged")
    if command == "upgrade":
        return Position(TenantStatus.BEHIND if path else TenantStatus.CURRENT, path)
    return _taken_back(history, path, "choose a target that does not pass it, or write its downgrade()")


def _overlapping(heads: Collection[str], earlier: Collection[str]) -> Position:
    later = [head for head in heads if head not in earlier]
    problem = HistoryError(
        f"the version table has {_names(earlier)} beside {_names(later)}, which comes after: no migration leaves it so",
        hint="find out what the tenant's tables are (orchestrator drift), and say so: orchestrator stamp REV -t TENANT",
    )
    return Position(TenantStatus.DIVERGED, problem=problem, kind="diverged")


def _position_back(history: History, heads: Collection[str], way: WayBack) -> Position:
    gone = history.graph.unknown((*way.start, *way.goal))
    if gone:
        problem = HistoryError(
            f"the run began or ended at {', '.join(gone)}, which this directory does not have",
            hint="deploy the directory that has it",
        )
        return Position(TenantStatus.UNKNOWN_REVISION, problem=problem, kind="unknown_revision")
    stand, path = stand_to(history.graph, heads, way)
    if stand is Stand.MOVED_ON:
        problem = HistoryError(
            f"the tenant is at {_names(heads)}; the run left it at {_names(way.start)}",
            hint="look at what came after the run with: orchestrator runs list -t TENANT; --to-before takes that along",
        )
        return Position(TenantStatus.AHEAD, problem=problem, kind="moved_on")
    if stand is Stand.BEYOND:
        problem = HistoryError(
            f"the tenant is at {_names(heads)}, and no longer has all that it had before the run ({_names(way.goal)})",
            hint=f"it was taken further back meanwhile; forward again: orchestrator upgrade {way.goal[0]} -t TENANT",
        )
        return Position(TenantStatus.DIVERGED, problem=problem, kind="moved_on")
    try:
        history.steps_back(path)
    except Irreversible as error:
        return Position(TenantStatus.AHEAD, path, error, "irreversible")
    return _taken_back(history, path, "write its downgrade(), or leave out the tenants that have it: --exclude")


def _taken_back(history: History, path: tuple[str, ...], hint: str) -> Position:
    """What stands against taking back the revisions on ``path``, as far as their files tell."""
    no_way_back = [hazard for hazard in history.hazards(path) if hazard.kind in NO_WAY_BACK]
    if no_way_back:
        hazard = no_way_back[0]
        problem = Irreversible(
            f"revision {hazard.revision} cannot be taken back"
            f" ({hazard.kind.value}, {history.file(hazard.revision).name}:{hazard.line})",
            hint=hint,
        )
        return Position(TenantStatus.AHEAD, path, problem, "irreversible")
    return Position(TenantStatus.AHEAD if path else TenantStatus.CURRENT, path)


def _names(revisions: Collection[str]) -> str:
    return ", ".join(revisions) or "base"
