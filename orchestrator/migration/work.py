"""What is to be done to a tenant: one of Alembic's commands, or the way back of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from orchestrator.history.directory import History, alembic_target
from orchestrator.history.position import direction_of, position
from orchestrator.history.way_back import WayBack
from orchestrator.targets import is_relative


@dataclass(frozen=True, slots=True)
class Work:
    """What is to be done to a tenant: one of Alembic's commands."""

    #: ``upgrade``, ``onboard``, ``downgrade``, ``rollback`` or ``stamp``.
    command: str
    #: As typed; for a rollback, a :class:`WayBack` as text.
    target: str
    #: What Alembic's own command would give its EnvironmentContext; ``fn`` yields the steps.
    options: Mapping[str, Any]
    #: Stop after so many revisions; ``None`` to go on to the target.
    limit: int | None = None
    #: Which try this is, from 1.
    number: int = 1

    @classmethod
    def of(cls, history: History, command: str, target: str) -> Work:
        """The work that ``alembic COMMAND TARGET`` does, or what a rollback does, which Alembic has no command for."""
        script = history.script
        if command == "rollback":
            goal = WayBack.parse(target).goal
            destination = goal if len(goal) > 1 else goal[0] if goal else "base"

            def back(heads: tuple[str, ...], _: Any) -> Iterable[Any]:
                here = position(history, command, heads, target)
                if here.problem is not None:
                    raise here.problem
                return history.steps_back(here.path)

            return cls(command, target, {"fn": back, "destination_rev": destination})
        steps: dict[str, Callable[..., Iterable[Any]]] = {
            "upgrade": lambda heads, _: script._upgrade_revs(alembic_target(target), heads),
            "downgrade": lambda heads, _: script._downgrade_revs(target, heads),
            "stamp": lambda heads, _: _stamped(history, heads, target),
        }
        return cls(command, target, {"fn": steps[direction_of(command)], "destination_rev": target})

    @property
    def direction(self) -> str:
        """Which of a revision's functions it runs: ``upgrade`` or ``downgrade``; or ``stamp``."""
        return direction_of(self.command)

    @property
    def end(self) -> str:
        """Where it leads, for people."""
        return named(WayBack.parse(self.target).goal) if self.command == "rollback" else self.target

    def is_left_over(self, history: History, heads: tuple[str, ...], done: int) -> bool:
        """Whether something is still to be run to the target; relative ones were made absolute by the plan.

        Args:
            history: the shared directory.
            heads: where the tenant is.
            done: revisions that were run.
        """
        if self.limit is not None:
            return done < self.limit
        if self.command == "stamp" or is_relative(self.target):
            return False
        here = position(history, self.command, heads, self.target)
        return bool(here.path) or here.problem is not None

    def limited(self, limit: int) -> Work:
        """The first ``limit`` revisions of it."""
        steps = self.options["fn"]
        first = {"fn": lambda heads, context: islice(steps(heads, context), limit)}
        return replace(self, options={**self.options, **first}, limit=limit)


def _stamped(history: History, heads: tuple[str, ...], target: str) -> Iterable[Any]:
    """Alembic's steps. Where one head is before another, it would leave the one, as long as the other is the target."""
    stamp = history.script._stamp_revs
    known = [head for head in heads if head in history.graph.parents]
    if history.graph.overlapping(known):
        return [*stamp("base", heads), *stamp(target, ())]
    return stamp(target, heads)


def named(revisions: Iterable[str]) -> str:
    """Revisions in a line, for people."""
    return ", ".join(revisions) or "base"
