"""Old env.py to new one, as text: what stays, what goes, and what is told."""

from __future__ import annotations

import ast
from textwrap import dedent

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.actions.adopting.carry_over import CarriedOver, carry_over
from orchestrator.actions.adopting.syntax import names_of

FRAME = """
def run(connection):
    {locals}
    context.configure(connection=connection{options})
    with context.begin_transaction():
        context.run_migrations()


with engine.connect() as connection:
    run(connection)
"""


def rewritten(top: str = "", options: str = "", inside: str = "pass") -> CarriedOver:
    """A small env.py with ``top`` above, ``inside`` before and ``options`` in its call of configure, carried over."""
    frame = FRAME.format(options=options and f", {options}", locals=inside)
    new = carry_over(f"from alembic import context\n{dedent(top)}\n{frame}", "env.py")
    assert new is not None
    compile(new.source, "env.py", "exec")
    return new


@pytest.mark.parametrize(
    "statement",
    [
        "import shop.tables  # registers them",
        "from shop import tables",
        "from shop.tables import *",
        "load_dotenv()",
        "sys.path.insert(0, here)",
        "models = import_all_models()",
        "@renders(AddView)\ndef render(context, operation):\n    return 'view'",
        "class ShopImpl(DefaultImpl):\n    __dialect__ = 'shop'",
        "try:\n    import geo.tables\nexcept ImportError:\n    pass",
        "for table in extra.tables.values():\n    table.to_metadata(metadata)",
    ],
)
def test_what_does_something_stays(statement: str) -> None:
    """Imports and calls that nobody names register models: without one, --autogenerate would drop its tables."""
    new = rewritten(statement)
    assert statement in new.source
    assert new.left_out == ()


@pytest.mark.parametrize(
    ("statement", "told"),
    [
        ("import asyncio", False),
        ("from logging.config import fileConfig", False),
        ("config = context.config", False),
        ("if context.config.config_file_name:\n    fileConfig(context.config.config_file_name)", False),
        ("def get_url():\n    return 'postgresql://'", True),
        ("TWO_PHASE = False", True),
        ("context.config.set_main_option('sqlalchemy.url', url)", True),
        ("if not context.config.get_main_option('sqlalchemy.url'):\n    print(1)", True),
    ],
)
def test_what_only_ran_migrations_goes(statement: str, told: bool) -> None:
    """It is told by its line, but for what Alembic's own templates have."""
    new = rewritten(statement)
    assert statement.splitlines()[0] not in new.source
    assert [each.line for each in new.left_out] == ([2] if told else [])


def test_dependencies_stay_in_order() -> None:
    """What an option needs, and what that needs, with its comments; nothing else of the same import."""
    new = rewritten(
        """
        from shop import settings, get_url
        # Tables of others.
        SKIPPED = settings.skipped
        def include_name(name, *_):
            return name not in SKIPPED
        """,
        "include_name=include_name",
    )
    kept = ["from shop import settings", "# Tables of others.\nSKIPPED", "def include_name", "def migrate"]
    assert sorted(kept, key=new.source.index) == kept
    assert "        include_name=include_name,\n" in new.source
    assert "get_url" in new.source  # nobody used it, so it may be there for what importing does
    assert new.left_out == ()


@pytest.mark.parametrize(
    ("inside", "option", "kept"),
    [
        ("from shop import Base", "target_metadata=Base.metadata", True),
        ("batch = True", "render_as_batch=batch", True),
        ("def skip(*_): return skip", "include_object=skip", True),
        ("batch = True; batch = not batch", "render_as_batch=batch", False),
        ("for batch in (1, 2): pass", "render_as_batch=batch", False),
        ("url = context.config.get_main_option('sqlalchemy.url')", "render_as_batch=url.startswith('sqlite')", False),
        ("engine = create_engine(address)", "render_as_batch=engine.name == 'sqlite'", False),
    ],
)
def test_what_the_old_function_worked_out(inside: str, option: str, kept: bool) -> None:
    """A plain statement that an option depends on moves along; anything else leaves the option out, and says so."""
    new = rewritten(options=option, inside=inside)
    assert (option in new.source) is kept
    assert (option in [each.text for each in new.left_out]) is not kept


def test_connection_in_an_option() -> None:
    """It is kept, with a word about --sql, where there is no connection."""
    new = rewritten(options="render_as_batch=connection.dialect.name == 'sqlite'")
    assert "render_as_batch=connection.dialect.name" in new.source
    assert "--sql" in new.left_out[0].reason


def test_what_replaced_options_said() -> None:
    """Where and how it was connected is no loss; another schema for the version table is worth a look."""
    new = rewritten(options="literal_binds=True, transaction_per_migration=False, version_table_schema='main'")
    assert new.source.count("transaction_per_migration=True") == 1
    assert "literal_binds" not in new.source
    assert [each.text for each in new.left_out] == ["version_table_schema='main'"]


def test_loop_over_schemas() -> None:
    """Somebody's own loop over tenants is what tenants.yaml replaces."""
    source = """
        import alembic.context
        for schema in schemas():
            alembic.context.configure(connection=connect(schema), compare_type=True)
            with alembic.context.begin_transaction():
                alembic.context.run_migrations()
    """
    new = carry_over(dedent(source), "env.py")
    assert new is not None
    assert "    alembic.context.configure(\n        connection=connection," in new.source
    assert [(each.line, "tenants.yaml" in each.reason) for each in new.left_out] == [(3, True)]


def test_future_import_and_docstring_come_first() -> None:
    """The places that Python demands, below the licence."""
    new = carry_over(
        '# Ours.\n"""Shop."""\nfrom __future__ import annotations\n'
        + FRAME.format(options="", locals="pass").replace("def run", "from alembic import context\ndef run"),
        "env.py",
    )
    assert new is not None
    assert new.source.startswith('# Ours.\n\n"""Shop."""\nfrom __future__ import annotations\n')
    compile(new.source, "env.py", "exec")


STATEMENTS = [
    "import os",
    "import sys, re",
    "import shop.tables",
    "from shop import settings as own, get_url",
    "config = context.config",
    "url = get_url(own)",
    "skipped = [name for name in own.skipped if re.match(url, name)]",
    "def include_object(thing, name, *_): return name not in skipped",
    "if sys.platform: skipped.append(os.name)",
    "target_metadata = shop.tables.metadata",
    "target_metadata.naming_convention = {'ix': own.ix}",
    "class Extra(own.Base): pass",
    "if config.config_file_name: fileConfig(config.config_file_name)",
    "config.set_main_option('sqlalchemy.url', url)",
]
OPTIONS = [
    "target_metadata=target_metadata",
    "include_object=include_object",
    "compare_type=bool(skipped)",
    "x=lambda a: a",
]


@given(st.lists(st.booleans(), min_size=len(STATEMENTS), max_size=len(STATEMENTS)), st.sets(st.sampled_from(OPTIONS)))
def test_nothing_that_stays_lacks_what_it_needs(chosen: list[bool], options: set[str]) -> None:
    """Whatever stands in an env.py: the new one is valid, carries every option, and needs no name that was left out."""
    statements = [text for text, taken in zip(STATEMENTS, chosen, strict=True) if taken]
    new = rewritten("\n".join(statements), ", ".join(sorted(options)))
    assert all(f"        {option},\n" in new.source for option in options)
    made = set().union(*(names_of(each).bound for text in statements for each in ast.parse(text).body))
    tree = ast.parse(new.source)
    read = set().union(*(names_of(each).read for each in tree.body))
    bound = set().union(*(names_of(each).bound for each in tree.body))
    assert read & made <= bound
    again = carry_over(new.source, "env.py")
    assert again is None
