"""A rehearsal of a tenant with 200,000 rows says how long its run will take, and how long everybody's will."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import orchestrator
from tests.projects import Project, make_project, schemas
from tests.servers import PostgresServer, execute, fetch

ROWS = 200_000
ORDERS = """
def upgrade():
    op.create_table(
        "orders", sa.Column("id", sa.Integer, primary_key=True), sa.Column("customer", sa.Text, nullable=False),
        sa.Column("cents", sa.Integer, nullable=False), sa.Column("note", sa.Text),
    )

def downgrade():
    op.drop_table("orders")
"""
#: Writes the table anew, builds an index, and changes every row.
REWRITE = """
def upgrade():
    op.alter_column("orders", "cents", type_=sa.Numeric(12, 2), postgresql_using="cents / 100.0")

def downgrade():
    op.alter_column("orders", "cents", type_=sa.Integer, postgresql_using="cents * 100")
"""
INDEX = """
def upgrade():
    op.create_index("ix_customer", "orders", ["customer", "cents"])

def downgrade():
    op.drop_index("ix_customer")
"""
FILL = """
def upgrade():
    op.add_column("orders", sa.Column("search", sa.Text))
    op.execute("UPDATE orders SET search = lower(customer) || ' ' || md5(coalesce(note, customer))")

def downgrade():
    op.drop_column("orders", "search")
"""
REVISIONS = {"r1": ORDERS, "r2": REWRITE, "r3": INDEX, "r4": FILL}


async def fleet(path: Path, url: str, rows: dict[str, int]) -> Project:
    """Tenants with so many rows each, at the first revision, as vacuum has left them."""
    project = make_project(path, REVISIONS, schemas(url, *rows))
    await project.upgrade("r1")
    for tenant, count in rows.items():
        query = f"SELECT g, 'customer ' || g, g, repeat('note ', 10) FROM generate_series(1, {count}) g"
        execute(url, f"INSERT INTO {tenant}.orders {query}")
        execute(url, f"VACUUM ANALYZE {tenant}.orders")
    execute(url, "CHECKPOINT")
    return project


async def compared(project: Project, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """Rehearse, run, and see how the two compare."""
    rehearsal = await orchestrator.rehearse(project.fleet)
    assert rehearsal.exit_code == 0, rehearsal.as_json()
    run = await orchestrator.upgrade(project.fleet)
    assert run.satisfied
    shown = (await orchestrator.show_run(project.fleet, run.run.id)).as_json()["rehearsed"]
    told = f"expected {shown['s']:.2f} s ({shown['low_s']:.2f} to {shown['high_s']:.2f})"
    with capsys.disabled():
        print(f"\n{told}, took {shown['measured_s']:.2f} s")
    return dict(shown)


async def test_one_large_tenant(
    tmp_path: Path, database: str, pg: PostgresServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """200,000 rows rewritten, indexed and changed: the run takes between half and twice of what was said."""
    project = await fleet(tmp_path, database, {"acme": ROWS})
    shown = await compared(project, capsys)
    assert 0.5 <= shown["measured_s"] / shown["s"] <= 2, shown
    (count,) = fetch(database, "SELECT count(*) FROM acme.orders WHERE search IS NOT NULL")
    assert count[0] == ROWS


async def test_a_fleet_around_it(
    tmp_path: Path, database: str, pg: PostgresServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """From clones of two of forty tenants, the largest with 200,000 rows, the whole run is foretold as well."""
    rows = {f"tenant_{number:02}": 200 + 37 * number for number in range(38)}
    project = await fleet(tmp_path, database, {**rows, "large": ROWS, "middle": ROWS // 4})
    shown = await compared(project, capsys)
    assert shown["tenants"] == 40
    assert 0.5 <= shown["measured_s"] / shown["s"] <= 2, shown
