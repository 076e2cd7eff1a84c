"""``orchestrator init``: from an empty directory, or from somebody's Alembic project, to migrated tenants."""

from __future__ import annotations

import contextlib
import io
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config

from orchestrator.actions.adopt import adopt_project
from orchestrator.actions.init import init_project
from orchestrator.errors import OrchestratorError
from tests.servers import execute, fetch
from tests.workspace import Workspace

MADE = ["alembic.ini", "alembic/env.py", "alembic/script.py.mako", "alembic/versions/README.md", "tenants.yaml"]
#: The body of a revision that makes a table.
USERS = (
    '    op.create_table("users", sa.Column("id", sa.Integer, primary_key=True))',
    '    op.drop_table("users")',
)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """An empty directory, which is the current one."""
    monkeypatch.chdir(tmp_path)
    return Workspace(tmp_path)


def test_from_nothing_to_migrated_tenants(project: Workspace, database: str) -> None:
    """init, then the commands it prints, with the new revision filled in: both tenants have the table."""
    address = {"DATABASE_URL": database}
    made = project.json("init")
    assert made["created"] == MADE
    assert files(project.path) == set(MADE)
    for step in made["next"]:
        result = project.run(*shlex.split(step)[1:], env=address)
        assert result.returncode == 0, result.stderr
        if "revision" in step:
            fill(Path(result.stdout.strip()), *USERS)
    assert "2 current" in result.stdout
    assert tables(database) == {"acme.alembic_version", "acme.users", "globex.alembic_version", "globex.users"}
    plain = project.python("-m", "alembic", "current", env=address)
    assert plain.returncode == 0, plain.stderr
    assert plain.stdout.count("(head)") == 2


def test_beside_the_named_fleet(project: Workspace, database: str) -> None:
    """--config says where, and under which name; the printed commands say it too."""
    (project.path / "eu").mkdir()
    made = project.json("init", "--config", "eu/fleet.yaml")
    assert made["created"] == [f"eu/{name}" for name in MADE[:-1]] + ["eu/fleet.yaml"]
    for step in made["next"]:
        result = project.run(*shlex.split(step)[1:], env={"DATABASE_URL": database})
        assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("there", [*MADE, "alembic/__init__.py"])
def test_never_overwrites(project: Workspace, there: str) -> None:
    """A file that is there is named, and nothing is written beside it."""
    project.write(there, "mine")
    refused(init_project, "tenants.yaml", told="there already")
    assert files(project.path) == {there}
    assert (project.path / there).read_text() == "mine"


def test_dangling_link_is_somebody_s(project: Workspace) -> None:
    """A link to a file that is not there yet is no free place."""
    (project.path / "tenants.yaml").symlink_to("elsewhere.yaml")
    refused(init_project, "tenants.yaml", told="tenants.yaml")
    assert not (project.path / "elsewhere.yaml").exists()


def test_settings_in_pyproject(project: Workspace) -> None:
    """An alembic.ini beside pyproject's [tool.alembic] would quietly win over it: refused, with the way to adopt."""
    project.write("pyproject.toml", "[tool.alembic]\nscript_location = '%(here)s/migrations'\n")
    refused(init_project, "tenants.yaml", told="init --adopt .")


def test_all_or_nothing(project: Workspace) -> None:
    """A disk that is full half-way leaves nothing behind."""
    limited = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (700, 700)); "
        "sys.argv[1:] = ['init']; from orchestrator.cli import main; main()"
    )
    result = project.python("-c", limited)
    assert result.returncode == 2, result.stderr
    assert "cannot be written" in result.stderr
    assert "Traceback" not in result.stderr
    assert list(project.path.iterdir()) == []


def test_no_such_directory(project: Workspace) -> None:
    """The directory of --config is not made by guess, and --adopt has one already: exit code 2 and a hint."""
    for args, told in (
        (("init", "--config", "typo/tenants.yaml"), "mkdir -p typo"),
        (("init", "--config", "typo/tenants.yaml", "--adopt", "."), "--adopt takes no --config"),
    ):
        result = project.run(*args)
        assert result.returncode == 2
        assert told in result.stderr
        assert "hint: " in result.stderr


@pytest.mark.parametrize("template", ["generic", "async", "pyproject"])
def test_adopt_alembics_own_templates(project: Workspace, database: str, template: str) -> None:
    """What `alembic init` makes is adopted without a word to look at, and migrates two tenants."""
    alembic_init(template)
    before = {name: (project.path / name).read_bytes() for name in files(project.path)}
    adopted = adopt_project(Path("migrations")).as_json()
    assert adopted["left_out"] == []
    assert adopted["kept"] == "migrations/env.py.before-orchestrator"
    assert adopted["created"] == ["tenants.yaml"]
    after = {name: (project.path / name).read_bytes() for name in before}
    assert {name for name in before if before[name] != after[name]} == {"migrations/env.py"}
    assert (project.path / adopted["kept"]).read_bytes() == before["migrations/env.py"]
    address = {"DATABASE_URL": database}
    fill(Path(project.json("revision", "-m", "create users", env=address)["file"]), *USERS)
    for step in adopted["next"][1:]:
        result = project.run(*shlex.split(step)[1:], env=address)
        assert result.returncode == 0, result.stderr
    assert {"acme.users", "globex.users"} <= tables(database)


def test_adopt_a_history_in_use(project: Workspace, database: str) -> None:
    """A project that migrated one database: it is current as a tenant, and two new tenants get the same tables."""
    alembic_init()
    ini = project.path / "alembic.ini"
    url = database.replace("postgresql:", "postgresql+asyncpg:")
    ini.write_text(ini.read_text().replace("driver://user:pass@localhost/dbname", url))
    use_async_engine(project.path / "migrations" / "env.py")
    alembic(project, "revision", "-m", "create users")
    fill(next((project.path / "migrations" / "versions").glob("*.py")), *USERS)
    alembic(project, "upgrade", "head")
    execute(database, "INSERT INTO users VALUES (7)")

    assert project.json("init", "--adopt", ".")["left_out"] == []
    whole = f"\n  - {{id: all, isolation: database, database: {database.rpartition('/')[2]}}}\n"
    fleet = project.path / "tenants.yaml"
    fleet.write_text(fleet.read_text().replace("tenants:\n", f"tenants:{whole}", 1))
    address = {"DATABASE_URL": database}
    states = {each["tenant"]: each["state"] for each in project.json("status", env=address)["tenants"]}
    assert states == {"all": "current", "acme": "unprovisioned", "globex": "unprovisioned"}
    project.json("upgrade", "--provision", env=address)
    names = ("alembic_version", "users")
    assert tables(database) == {f"{schema}.{name}" for schema in ("public", "acme", "globex") for name in names}
    assert [row[0] for row in fetch(database, "SELECT id FROM public.users")] == [7]


OWN_ENV = '''"""Migrations of the shop."""
import os
import sys
from logging.config import fileConfig

from sqlalchemy import engine_from_config, pool
from alembic import context

sys.path.append(os.path.dirname(__file__))
import shop
import urls

config = context.config
fileConfig(config.config_file_name)
config.set_main_option("sqlalchemy.url", urls.get())
target_metadata = shop.metadata
VERSION_TABLE = "shop_version"


def include_object(object, name, type_, reflected, compare_to):
    return not name.startswith("legacy_")


def run_migrations_online():
    engine = engine_from_config(config.get_section(config.config_ini_section), poolclass=pool.NullPool)
    with engine.connect() as conn:
        def add_note(context, revision, directives):
            directives[0].message += " of the shop"

        conn.execute("SET ROLE shop")
        context.configure(
            connection=conn,
            target_metadata=target_metadata,
            include_object=include_object,
            include_schemas=True,
            process_revision_directives=add_note,
            version_table=VERSION_TABLE,
        )
        with context.begin_transaction():
            context.run_migrations()


run_migrations_online()
'''


def test_adopt_carries_options_over(project: Workspace, database: str) -> None:
    """Options, what they depend on and the version table's name still work; the rest is told by line."""
    alembic_init()
    project.write("migrations/env.py", OWN_ENV)
    project.write(
        "migrations/shop.py",
        "import sqlalchemy as sa\nmetadata = sa.MetaData()\n"
        "for name in ('items', 'legacy_items'):\n"
        "    sa.Table(name, metadata, sa.Column('id', sa.Integer, primary_key=True))\n",
    )
    project.write("migrations/urls.py", "raise ImportError('this project has no such thing any more')")
    result = project.run("init", "--adopt", "migrations")
    assert result.returncode == 0, result.stderr
    told = [int(line.split(":")[1]) for line in result.stderr.splitlines() if "before-orchestrator:" in line]
    assert [OWN_ENV.splitlines()[line - 1].strip() for line in told] == [
        "import urls",
        'config.set_main_option("sqlalchemy.url", urls.get())',
        'conn.execute("SET ROLE shop")',
        "include_schemas=True,",
    ]
    address = {"DATABASE_URL": database}
    fill(Path(project.json("revision", "-m", "start", env=address)["file"]), "    pass", "    pass")
    project.json("upgrade", "--provision", env=address)
    assert tables(database) == {"acme.shop_version", "globex.shop_version"}
    written = Path(project.json("revision", "-m", "tables", "--autogenerate", env=address)["file"]).read_text()
    assert "'items'" in written
    assert "legacy_items" not in written
    assert "tables of the shop" in written


def test_adopt_refuses_several_databases(project: Workspace) -> None:
    """Alembic's multidb template keeps a history for each database: that is said, and nothing is changed."""
    alembic_init("multidb")
    untouched(project, told="several databases")


def test_adopt_twice(project: Workspace) -> None:
    """An env.py with the loop is left as it is, and that is no failure."""
    alembic_init()
    adopt_project(Path())
    before = contents(project.path)
    again = adopt_project(Path("migrations"))
    assert (again.created, again.kept, again.next) == ((), None, ())
    assert contents(project.path) == before


def test_adopt_keeps_the_first_original(project: Workspace) -> None:
    """An original that was kept before is not written over."""
    alembic_init()
    project.write("migrations/env.py.before-orchestrator", "precious")
    untouched(project, told="from an earlier adoption")


def test_adopt_keeps_the_fleet(project: Workspace) -> None:
    """A tenants.yaml that is there stays, and is not among the files made."""
    alembic_init()
    project.write("tenants.yaml", "mine")
    assert adopt_project(Path()).created == ()
    assert (project.path / "tenants.yaml").read_text() == "mine"


@pytest.mark.parametrize(
    ("env", "told"),
    [
        ("import os\ndef broken(:\n", "env.py:2: not valid Python"),
        ("from alembic import context\n", "no call of context.configure(connection=...)"),
        (
            "from alembic import context\ndef run(c):\n    name = input()\n    name += '_version'\n"
            "    context.configure(connection=c, version_table=name)\nrun(None)\n",
            "env.py:5: the version table's name, name, cannot be taken over",
        ),
        ("# -*- coding: nonsense -*-\n", "unknown encoding"),
    ],
)
def test_adopt_refuses_what_it_cannot_read(project: Workspace, env: str, told: str) -> None:
    """Each says file and line, and nothing is changed."""
    alembic_init()
    project.write("migrations/env.py", env)
    untouched(project, told=told)


def test_adopt_what_is_no_project(project: Workspace) -> None:
    """No directory, no project in it, no settings above it, settings that name nothing: four different messages."""
    refused(adopt_project, "missing", told="missing is not a directory")
    refused(adopt_project, ".", told="no Alembic project in .")
    project.write("migrations/env.py", "")
    refused(adopt_project, "migrations", told="names it as script_location")
    project.write("alembic.ini", "[alembic]\nscript_location = %(here)s/elsewhere\n")
    refused(adopt_project, ".", told="no env.py in elsewhere")
    project.write("alembic.ini", "script_location\n")
    refused(adopt_project, ".", told="alembic.ini: the settings cannot be read")


def alembic_init(template: str = "generic") -> None:
    """What ``alembic init -t TEMPLATE migrations`` does, in the current directory."""
    with contextlib.redirect_stdout(io.StringIO()):
        command.init(Config("alembic.ini", toml_file="pyproject.toml"), "migrations", template)


def alembic(project: Workspace, *args: str) -> None:
    """Run plain Alembic, which must succeed."""
    result = project.python("-m", "alembic", *args)
    assert result.returncode == 0, result.stderr


def use_async_engine(env: Path) -> None:
    """Give the project an env.py for the driver that is installed here."""
    import alembic as package

    shutil.copy(Path(package.__file__).parent / "templates" / "async" / "env.py", env)


def fill(revision: Path, upgrade: str, downgrade: str) -> None:
    """Write the two functions of a fresh revision."""
    head = revision.read_text().partition("def upgrade")[0]
    revision.write_text(f"{head}def upgrade():\n{upgrade}\n\n\ndef downgrade():\n{downgrade}\n")


def tables(database: str) -> set[str]:
    """Every table that was made, with its schema."""
    query = (
        "SELECT schemaname || '.' || tablename FROM pg_tables"
        " WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
    )
    return {row[0] for row in fetch(database, query)}


def files(path: Path) -> set[str]:
    """Every file below ``path``, but for what Python keeps."""
    found = (file for file in path.rglob("*") if file.is_file() and "__pycache__" not in file.parts)
    return {str(file.relative_to(path)) for file in found}


def contents(path: Path) -> dict[str, bytes]:
    """Every file with its bytes."""
    return {name: (path / name).read_bytes() for name in files(path)}


def refused(action: Callable[[Path], object], path: str, *, told: str) -> None:
    """The action ends in an error with a hint; ``told`` is in one of them."""
    with pytest.raises(OrchestratorError) as error:
        action(Path(path))
    assert error.value.hint
    assert told in f"{error.value.message} {error.value.hint}"


def untouched(project: Workspace, *, told: str) -> None:
    """Adopting is refused and leaves every file as it was."""
    before = contents(project.path)
    refused(adopt_project, ".", told=told)
    assert contents(project.path) == before
