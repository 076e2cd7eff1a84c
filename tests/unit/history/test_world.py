"""Whether what a revision sends goes by more than its file: rendered elsewhere, it would be something else."""

from __future__ import annotations

import ast
from textwrap import dedent, indent

import pytest

from orchestrator.history.world import undetermined

HEADER = """\
import datetime, os, random, sys, time, uuid
from datetime import date as day
from os import environ
from pathlib import Path
import sqlalchemy as sa
from alembic import context, op
"""
LINES = HEADER.count("\n")


def upgrade(body: str, before: str = "") -> ast.Module:
    """A file with this upgrade(); a function beside it asks the clock, and nobody calls it."""
    other = "def other():\n    if time.time() > 5:\n        op.f()\n\n"
    return ast.parse(f"{HEADER}{before}\n\ndef upgrade():\n{indent(dedent(body), '    ')}\n\n{other}")


@pytest.mark.parametrize(
    ("body", "what"),
    [
        ('if os.environ.get("PROD"):\n    op.add_column("a", c)', "os.environ.get (the environment)"),
        ('if "PROD" in environ:\n    op.add_column("a", c)', "environ (the environment)"),
        ('if "x" in context.get_x_argument():\n    op.f()', "context.get_x_argument (the command line)"),
        (
            'url = context.config.get_main_option("u")\nif url:\n    op.f()',
            "context.config.get_main_option (the configuration)",
        ),
        ('if op.get_context().config.get_section("a"):\n    op.f()', "op.get_context().config.get_section (the conf"),
        ("if datetime.date.today().year > 2030:\n    op.f()", "datetime.date.today (the clock)"),
        ("if day.today() > day(2030, 1, 1):\n    op.f()", "day.today (the clock)"),
        ('late = time.time() > 5\nagain = late\nop.f() if again else None', "time.time (the clock)"),
        ('os.environ.get("X") and op.drop_table("a")', "os.environ.get (the environment)"),
        ('op.drop_column("a", os.environ["COLUMN"])', "os.environ (the environment)"),
        ('op.execute(f"DROP TABLE {environ[\'T\']}")', "environ (the environment)"),
        ('for n in range(random.randint(1, 5)):\n    op.f()', "random.randint (chance)"),
        ('[op.f() for n in os.listdir(".")]', "os.listdir (the environment)"),
        ('if is_production():\n    op.f()', "os.getenv (the environment)"),
        ('if PRODUCTION:\n    op.f()', "os.getenv (the environment)"),
        ('names = []\nnames.append(os.getenv("X"))\nif names[0]:\n    op.f()', "os.getenv (the environment)"),
        ('names = []\nnames.extend(environ["X"])\nfor n in names:\n    op.f()', "environ (the environment)"),
        ('while time.monotonic() < 5:\n    op.f()', "time.monotonic (the clock)"),
        ('if op.get_bind().dialect.server_version_info > (12,):\n    op.f()', "op.get_bind().dialect.server_version"),
        ('if os.path.exists("/etc/prod"):\n    op.f()', "os.path.exists (the environment)"),
    ],
)  # fmt: skip
def test_decides(body: str, what: str) -> None:
    """Whatever follows from the environment, the clock, the command line or the configuration but a value."""
    before = 'PRODUCTION = os.getenv("P")\n\ndef is_production():\n    return os.getenv("P") == "1"\n'
    found = undetermined(upgrade(body, before), "upgrade")
    assert found is not None
    assert found[0].startswith(f"goes by {what}")


@pytest.mark.parametrize(
    "body",
    [
        'op.create_table("a", sa.Column("at", sa.DateTime, default=datetime.datetime.utcnow))',
        'op.create_table("a", sa.Column("at", sa.DateTime, default=lambda: datetime.datetime.now()))',
        'op.add_column("a", sa.Column("at", sa.DateTime, server_default=sa.func.now()))',
        'op.bulk_insert(t, [{"id": uuid.uuid4(), "at": datetime.datetime.now()}])',
        'now = datetime.datetime.now()\nop.execute(t.insert().values(at=now))',
        'now = datetime.datetime.now()\nrows = [{"at": now, "n": n} for n in NAMES]\nop.bulk_insert(t, rows)',
        'rows = [{"id": uuid.uuid4()}]\nfor row in rows:\n    op.execute(t.insert().values(**row))',
        'rows = []\nfor n in NAMES:\n    rows.append({"id": uuid.uuid4()})\nop.bulk_insert(t, rows)',
        'op.execute(sa.text("UPDATE a SET x = :n").bindparams(n=os.environ.get("N")))',
        'op.execute(t.delete().where(t.c.at < datetime.datetime.now()))',
        'op.execute(f"INSERT INTO a VALUES (\'{uuid.uuid4()}\')")',
        'begun = time.time()\nop.f()\nprint(time.time() - begun)',
        'time.sleep(1)',
        'op.execute(Path(os.path.join(os.path.dirname(__file__), "a.sql")).read_text())',
        'print("going on", file=sys.stderr)',
        'op.bulk_insert(t, [{"at": stamp()}])',
        'op.execute(t.update().where(t.c.today == 1).values(now=t.c.now))',
    ],
)  # fmt: skip
def test_only_values(body: str) -> None:
    """The statements are the same ones wherever it runs."""
    before = "def stamp():\n    return datetime.datetime.now()\n"
    assert undetermined(upgrade(body, before), "upgrade") is None


def test_line() -> None:
    """The first one in the file is told, where it stands."""
    found = undetermined(upgrade('op.f()\nif os.getenv("A"):\n    op.f()\nif time.time():\n    op.f()'), "upgrade")
    assert found is not None
    assert found[1] == LINES + 5


def test_downgrade_alone() -> None:
    """What only the other direction reaches does not count; what the module does counts for both."""
    tree = ast.parse(
        f'{HEADER}def upgrade():\n    op.f()\n\ndef downgrade():\n    if os.getenv("X"):\n        op.f()\n'
    )
    assert undetermined(tree, "upgrade") is None
    assert undetermined(tree, "downgrade") is not None
    module = ast.parse(f'{HEADER}if os.getenv("X"):\n    down_revision = "b"\n\ndef upgrade():\n    op.f()\n')
    assert undetermined(module, "upgrade") is not None
