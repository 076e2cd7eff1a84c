"""The shared Alembic directory as values: heads, targets, paths, digest. Nothing here touches a database."""

from __future__ import annotations

import hashlib
import re
import warnings
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alembic.config import Config
from alembic.runtime.migration import MigrationStep
from alembic.script import Script, ScriptDirectory
from alembic.script.revision import RevisionError
from alembic.util import CommandError

from orchestrator.errors import HistoryError
from orchestrator.history.broken import explain
from orchestrator.history.data_loss import Loss
from orchestrator.history.graph import Graph
from orchestrator.history.hazards import Hazard, find_hazards, find_losses, has_global
from orchestrator.history.purity import Impurity, impurity
from orchestrator.history.reach import Reach, find_reach
from orchestrator.targets import require_named

if TYPE_CHECKING:
    from orchestrator.history.position import Position

#: What ``alembic upgrade`` and ``alembic downgrade`` call the way to a target.
UPGRADE, DOWNGRADE = "upgrade", "downgrade"

#: The line of Alembic's template for revision files that says when one was made.
_CREATED = re.compile(r"^Create Date: *(\d{4}-\d\d-\d\d)", re.MULTILINE)


class Irreversible(HistoryError):
    """A revision on the way back cannot be taken back."""


class History:
    """One Alembic directory, read once.

    Args:
        config: Alembic's own configuration, from alembic.ini or pyproject.toml.

    Raises:
        HistoryError: the directory or one of its revision files cannot be read.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        with _readable(config):
            self.script = ScriptDirectory.from_config(config)
            self._scripts: dict[str, Script] = {script.revision: script for script in self.script.walk_revisions()}
            self.heads: tuple[str, ...] = tuple(sorted(self.script.get_heads()))
        #: What :func:`orchestrator.history.position.position` has answered: thousands of tenants ask the same.
        self.positions: dict[tuple[str, tuple[str, ...], str], Position] = {}
        self._checksums: dict[str, str] = {}
        self._resolve = lru_cache(maxsize=None)(self._find_revisions)
        self._path = lru_cache(maxsize=None)(self._find_path)
        self._hazards = lru_cache(maxsize=None)(self._find_hazards)
        self._has_global = lru_cache(maxsize=None)(lambda revision: has_global(self.file(revision)))
        self._impurity = lru_cache(maxsize=None)(self._find_impurity)
        self._reach = lru_cache(maxsize=None)(self._find_reach)

    @classmethod
    def beside(cls, root: Path) -> History:
        """Read the directory that ``root``'s alembic.ini, or pyproject.toml's ``[tool.alembic]``, names."""
        config = alembic_config(root)
        if config is None:
            raise HistoryError(
                f"no alembic.ini and no [tool.alembic] in pyproject.toml in {root}",
                hint="run `orchestrator init` there, or name another tenants.yaml with --config",
            )
        return cls(config)

    @cached_property
    def graph(self) -> Graph:
        """Who comes before whom."""
        return Graph(
            {name: tuple(script._all_down_revisions) for name, script in self._scripts.items()},
            {name: tuple(script._versioned_down_revisions) for name, script in self._scripts.items()},
        )

    @cached_property
    def digest(self) -> str:
        """Checksum (SHA-256, hex) over every revision's identifier and file: two equal directories digest equal."""
        total = hashlib.sha256()
        for name in sorted(self._scripts):
            total.update(f"{name} {self.checksum(name)}\n".encode())
        return total.hexdigest()

    def checksum(self, revision: str) -> str:
        """SHA-256 (hex) of one revision's file, whichever way the checkout ends its lines; read once."""
        known = self._checksums.get(revision)
        if known is None:
            text = self.file(revision).read_bytes().replace(b"\r\n", b"\n")
            known = self._checksums[revision] = hashlib.sha256(text).hexdigest()
        return known

    def file(self, revision: str) -> Path:
        """The file of a revision, by its full identifier."""
        return Path(self._scripts[revision].path)

    def message(self, revision: str) -> str:
        """The first line of what a revision says of itself; empty where it says nothing."""
        return self._scripts[revision].doc or ""

    def created(self, revision: str) -> str | None:
        """The day that Alembic wrote into a revision's file when it was made, ``YYYY-MM-DD``; ``None`` without one."""
        found = _CREATED.search(self._scripts[revision].module.__doc__ or "")
        return found[1] if found else None

    @property
    def unlabelled_heads(self) -> tuple[str, ...]:
        """Where the directory has several heads: those without a branch label of their own."""
        labels = {head: set(self._scripts[head].branch_labels) - {"None"} for head in self.heads}
        others = {head: set().union(*(labels[other] for other in self.heads if other != head)) for head in self.heads}
        return tuple(head for head in self.heads if not labels[head] - others[head]) if len(self.heads) > 1 else ()

    def forward(self, revisions: Collection[str]) -> tuple[str, ...]:
        """``revisions`` in an order to run them in: each after all that it needs."""
        return self.graph.back(frozenset(revisions))[::-1]

    def resolve(self, target: str) -> tuple[str, ...]:
        """Turn a target as typed into full revision identifiers, sorted.

        Args:
            target: ``heads``, ``head``, ``base``, ``label@head``, a revision or an unambiguous start of one; or several
                revisions, joined by commas.

        Returns:
            The revisions; empty for ``base`` and for a directory without revisions.

        Raises:
            HistoryError: no such revision, an ambiguous one, or ``head`` where there are several.
            UsageError: it is blank.
        """
        return self._resolve(target)

    def all_of(self, targets: Collection[str]) -> frozenset[str]:
        """The revisions that any of ``targets`` stands for.

        Raises:
            HistoryError: no such revision.
        """
        return frozenset(revision for target in targets for revision in self.resolve(target))

    def path(self, direction: str, heads: Collection[str], target: str) -> tuple[str, ...]:
        """The revisions that Alembic would run, in order.

        Args:
            direction: ``upgrade`` or ``downgrade``.
            heads: where the tenant is; all of them known to the directory.
            target: as typed; ``+1`` and ``-1`` count from ``heads``.

        Raises:
            HistoryError: there is no such way, or a step of it has no function to run.
        """
        return self._path(direction, frozenset(heads), target)

    def steps_back(self, revisions: Sequence[str]) -> list[MigrationStep]:
        """Alembic's own steps that take ``revisions`` back, in this order.

        ``alembic downgrade`` takes one target, and the way back across a merge, or of one of two branches, has none
        that says it; what Alembic runs are these steps, however they were found.

        Raises:
            Irreversible: one of them has no function to run.
        """
        steps: list[MigrationStep] = []
        for revision in revisions:
            try:
                step = MigrationStep.downgrade_from_script(self.script.revision_map, self._scripts[revision])
            except AttributeError as error:
                raise Irreversible(
                    f"revision {revision} cannot be taken back: {error}", hint=f"write it: {self.file(revision).name}"
                ) from error
            steps.append(step)
        return steps

    def hazards(self, revisions: Collection[str]) -> tuple[Hazard, ...]:
        """What is hazardous in these revisions, in their order."""
        return tuple(hazard for revision in revisions for hazard in self._hazards(revision))

    def has_globals(self, revisions: Collection[str]) -> bool:
        """Whether one of these revisions has a ``global`` statement: two tenants in it at once would share that."""
        return any(self._has_global(revision) for revision in revisions)

    def transactions(self, revisions: Collection[str]) -> tuple[Reach, ...]:
        """What each transaction of an upgrade over ``revisions`` may touch.

        A revision is a transaction of its own where env.py says so; otherwise all of them are one.
        """
        parts = tuple(self._reach(revision) for revision in revisions)
        if "transaction_per_migration" in (Path(self.script.dir) / "env.py").read_text(encoding="utf-8"):
            return parts
        return (Reach.together(parts),) if parts else ()

    def losses(self, revision: str, direction: str) -> tuple[Loss, ...]:
        """What ``revision`` throws away in ``direction``, as its source says it; see :func:`find_losses`."""
        return find_losses(self.file(revision), direction)

    def impurity(self, revision: str, direction: str) -> Impurity | None:
        """What stands against sending to one tenant what this revision sent to another; ``None`` where nothing does.

        Args:
            revision: its full identifier.
            direction: ``upgrade`` or ``downgrade``.
        """
        return self._impurity(revision, direction)

    def impurities(self, revisions: Collection[str], direction: str) -> dict[str, str]:
        """Why revisions must not be replayed, as far as their files tell, by revision; without those that may be."""
        found = {revision: self._impurity(revision, direction) for revision in revisions}
        return {
            revision: f"{impurity.reason} (line {impurity.line})"
            for revision, impurity in found.items()
            if impurity is not None
        }

    def _find_revisions(self, target: str) -> tuple[str, ...]:
        if target == "head" and len(self.heads) > 1:
            raise HistoryError(
                f"the directory has {len(self.heads)} heads ({', '.join(self.heads)}), so `head` is not one revision",
                hint="say `heads` for all of them, or join them: alembic merge -m 'merge heads' heads",
            )
        try:
            scripts = self.script.get_revisions(alembic_target(target))
        except (CommandError, RevisionError) as error:
            raise HistoryError(
                f"no revision {target!r} in {self.script.dir}: {error}", hint="list them with: alembic history"
            ) from error
        return tuple(sorted(script.revision for script in scripts if script is not None))

    def _find_path(self, direction: str, heads: frozenset[str], target: str) -> tuple[str, ...]:
        current = tuple(sorted(heads))
        if direction == DOWNGRADE and target.startswith("-") and len(current) > 1:
            raise HistoryError(
                f"{target} does not say from which of the {len(current)} heads {', '.join(current)}",
                hint="name the revision to go back to, or the branch: label@-1",
            )
        find = self.script._upgrade_revs if direction == UPGRADE else self.script._downgrade_revs
        try:
            return tuple(step.revision.revision for step in find(alembic_target(target), current))  # type: ignore[arg-type]
        except (CommandError, RevisionError) as error:
            raise HistoryError(
                f"no way to {direction} from {', '.join(current) or 'base'} to {target}: {error}",
                hint="look at the revisions with: alembic history",
            ) from error
        except AttributeError as error:  # Alembic reads module.downgrade when it makes the step: nothing has run yet
            kind = Irreversible if direction == DOWNGRADE else HistoryError
            raise kind(
                f"a revision on the way to {target} has no {direction}() function: {error}",
                hint="write one, or choose a target that does not pass it",
            ) from error

    def _find_hazards(self, revision: str) -> tuple[Hazard, ...]:
        return find_hazards(revision, self.file(revision))

    def _find_reach(self, revision: str) -> Reach:
        return find_reach(revision, self.file(revision))

    def _find_impurity(self, revision: str, direction: str) -> Impurity | None:
        return impurity(self.file(revision), direction)


def alembic_target(target: str) -> Any:
    """``target`` as Alembic's script directory takes it: several revisions as a tuple.

    Raises:
        UsageError: it is blank: Alembic would take that for the heads, or fail an assertion.
    """
    require_named(target)
    return tuple(target.split(",")) if "," in target else target


def alembic_config(root: Path) -> Config | None:
    """Alembic's settings in ``root``: alembic.ini, pyproject.toml's ``[tool.alembic]``, or both; ``None`` without."""
    ini, pyproject = root / "alembic.ini", root / "pyproject.toml"
    toml = pyproject.is_file() and "[tool.alembic]" in pyproject.read_text("utf-8")
    if not ini.is_file() and not toml:
        return None
    return Config(str(ini) if ini.is_file() else None, toml_file=str(pyproject) if toml else None)


@contextmanager
def _readable(config: Config) -> Iterator[None]:
    """Turn whatever a broken directory raises into one error that names file and line."""
    try:
        with warnings.catch_warnings():
            # Alembic only warns of a duplicate or missing revision and goes on with half a map.
            warnings.filterwarnings("error", message="Revision .* is present more than once")
            warnings.filterwarnings("error", message="Revision .* referenced from .* is not present")
            yield
    except HistoryError:
        raise
    except Exception as error:
        raise explain(error, config) from error
