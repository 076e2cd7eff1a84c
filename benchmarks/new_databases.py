"""The rows of new tenants that are databases: copied when they come, or ready before."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from benchmarks import projects
from benchmarks.bench import Bench
from benchmarks.histories import MANY
from benchmarks.measuring import Command, RunError, plain_environment
from benchmarks.onboarding import ALEMBIC, DATABASE, PLACE, WARM, Ours, Peer, drop_all, measured, name_example, ratio_of
from benchmarks.verdicts import Figure, RowResult, Sample, Subject, ratio

_CLAIM, _RENAME = "claim and registry", "ALTER DATABASE ... RENAME and INSERT"
#: How many of each are measured.
_CLAIMS = 20
_PROGRAM = Path(__file__).with_name("peer_files") / "claim_process.py"


def new_database(bench: Bench) -> RowResult:
    """One database, from a template; Alembic's is made for it beforehand."""
    project = _of_databases(bench, "new-database")
    ours = Ours(bench.ours / "python", project, "database", "template", {})
    found, notes = measured(bench, ours, _alembic_for_databases(bench))
    figure = Figure(f"{ALEMBIC} : {WARM}", ratio_of(found), 10, at_most=False)
    return RowResult("new-database", f"a new database, {len(MANY.bodies)} revisions", 1, found, (figure,), notes)


def new_database_from_pool(bench: Bench) -> RowResult:
    """One database that was ready; and the claim alone, with its registry, beside a bare rename and INSERT."""
    project = _of_databases(bench, "new-database-pool", pool=bench.repetitions + 1)
    ours = Ours(bench.ours / "python", project, "database", "pool", {})
    found, notes = measured(bench, ours, _alembic_for_databases(bench))
    claims, renames = _claims(bench)
    claim = claims.seconds(1)
    figures = (
        Figure(f"{ALEMBIC} : {WARM}", ratio_of(found), 10, at_most=False),
        Figure(f"{_CLAIM} : {_RENAME}", ratio(claim, renames.seconds(1)), 1.5, at_most=True),
        Figure(_CLAIM, None if claim is None else claim * 1000, 100, at_most=True, unit="ms"),
    )
    notes = (
        *notes,
        "the claim is the lock, the search, the renaming, opening and marking of a ready database, and an INSERT;"
        " what else a sign-up does is in the warm process",
    )
    text = f"a new database from a pool, {len(MANY.bodies)} revisions"
    return RowResult("new-database-pool", text, 1, (*found, claims, renames), figures, notes)


def _claims(bench: Bench) -> tuple[Subject, Subject]:
    """Ours and bare ones, taking turns in one process; the first of each is not counted."""
    url = bench.server.create(PLACE)
    project = _of_databases(bench, "claims", pool=_CLAIMS + 1)
    command: Command = [bench.ours / "python", _PROGRAM, project, url, str(_CLAIMS + 1), DATABASE]
    try:
        run = subprocess.run(command, env=plain_environment(), check=True, stdout=subprocess.PIPE)
    except subprocess.CalledProcessError as error:
        raise RunError(f"the process that claims ended with {error.returncode}") from error
    finally:
        drop_all(bench)
    said = json.loads(run.stdout)
    samples = {key: tuple(Sample(seconds, 0.0, 0) for seconds in said[key][1:]) for key in ("claims", "renames")}
    return Subject(_CLAIM, 1, samples["claims"]), Subject(_RENAME, 1, samples["renames"])


def _of_databases(bench: Bench, name: str, pool: int = 0) -> Path:
    """A project whose tenants are databases."""
    project = projects.ours(bench.directory / name, MANY, bench.server.create(PLACE), {"schemas": "example"}, 8)
    name_example(project, **({"onboarding": {"pool": {"size": pool}}} if pool else {}))
    return project


def _alembic_for_databases(bench: Bench) -> Peer:
    """Alembic, and an empty database for each run of it."""
    cookbook = projects.cookbook(bench.directory / "new-database-plain", MANY, bench.server.database_url("X"))
    ini = (cookbook / "alembic.ini").read_text()

    def place(name: str) -> None:
        address = bench.server.create(name)
        (cookbook / "alembic.ini").write_text(
            ini.replace(ini.rpartition("sqlalchemy.url = ")[2], f"{_plain(address)}\n")
        )

    command: Command = [bench.peers / "alembic", "-x", "tenant=public", "upgrade", "head"]
    return Peer(lambda _: command, cookbook, place, lambda _: {})


def _plain(address: str) -> str:
    return address.replace("postgresql://", "postgresql+psycopg://", 1).replace("%", "%%")
