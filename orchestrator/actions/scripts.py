"""The SQL of a plan, as Alembic renders it offline: for tenants that stand for their cohorts, or for each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

from orchestrator.actions.project import Project, migrating
from orchestrator.databases.failures import describe
from orchestrator.errors import UsageError
from orchestrator.migration.attempt import Migrator
from orchestrator.migration.work import Work
from orchestrator.rollout.plan import Cohort, Plan, PlannedTenant


def render(project: Project, made: Plan, tenants: Sequence[PlannedTenant]) -> Iterator[str]:
    """The script of each of ``tenants``, in order.

    Args:
        project: opened.
        made: the plan that they are in.
        tenants: to be migrated.
    """
    migrator = Migrator(project.fleet, project.history, project.loop, project.databases)
    for each in tenants:
        work = Work.of(project.history, made.command, each.target)
        try:
            with migrating(migrator):
                script = migrator.render(each.tenant, work, each.heads or ())
        except Exception as error:
            # A revision that reads the database cannot be rendered without one: say so in its place.
            script = f"-- cannot be rendered without a database: {describe(error).message}\n"
        yield script


def script_files(cohorts: Sequence[Cohort], scripts: Sequence[str], each: Mapping[str, str] | None) -> dict[str, str]:
    """Names and texts of the files that a plan's SQL is written to.

    Args:
        cohorts: of the plan.
        scripts: of one tenant of each.
        each: every tenant's script, by id; ``None`` for a file for each cohort.
    """
    if each is not None:
        # A tenant's name may have a slash in it, or be `..`.
        return {f"{quote(tenant, safe='').replace('.', '%2E')}.sql": script for tenant, script in each.items()}
    files = {}
    for number, (cohort, script) in enumerate(zip(cohorts, scripts, strict=True), 1):
        start, goal = (", ".join(heads) or "base" for heads in (cohort.start, cohort.goal))
        example = " ".join(cohort.example.tenant.id.split())
        about = (
            f"-- {cohort.tenants} of {cohort.dialect} {cohort.version}, {start} to {goal}; this one is {example}\n\n"
        )
        files[f"cohort-{number:03}.sql"] = about + script
    return files


def write_scripts(directory: Path, files: Mapping[str, str]) -> None:
    """Write ``files`` into a directory that has nothing else in it: what an earlier plan left could be run by mistake.

    Raises:
        UsageError: there is something in it, or it cannot be written.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if any(directory.iterdir()):
            raise UsageError(f"{directory} is not empty", hint="name a directory that is, or is to be made: --sql-dir")
        for name, text in files.items():
            (directory / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(
            f"cannot write the scripts to {directory}: {error.strerror}", hint="name another directory: --sql-dir DIR"
        ) from error
