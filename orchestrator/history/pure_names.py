"""Which imported names a revision may use and still depend on nothing but its own file: a whitelist.

The operations are those of ``alembic.op`` in Alembic 1.16 to 1.20, without the ones that hand out a connection or the
context (https://alembic.sqlalchemy.org/en/latest/ops.html). What is not listed is not pure; a test holds the lists
against the libraries installed.
"""

from __future__ import annotations

import builtins
import importlib
from collections.abc import Mapping
from functools import cache
from types import ModuleType


def words(text: str) -> frozenset[str]:
    """The words of ``text``, for lists that are easier to read as prose."""
    return frozenset(text.split())


def by_word(listed: Mapping[str, str]) -> dict[str, str]:
    """What each word stands for: several such lists, by what theirs do."""
    return {word: what for what, text in listed.items() for word in text.split()}


#: Alembic's own operations: what they send follows from their arguments.
OPERATIONS = words(
    """
    add_column alter_column batch_alter_table bulk_insert create_check_constraint create_exclude_constraint
    create_foreign_key create_index create_primary_key create_table create_table_comment create_unique_constraint
    drop_column drop_constraint drop_index drop_table drop_table_comment execute f inline_literal rename_table
    """
)
#: Operations that give more than they do, and what each means for the operator.
_WAYS_OUT = {
    "get_bind": "gives it a connection",
    "get_context": "gives it the migration context",
    "invoke": "runs an operation that is not read here",
    "run_async": "gives it a connection",
}

#: Functions of SQLAlchemy that build expressions.
_EXPRESSIONS = words(
    """
    aggregate_order_by alias all_ and_ any_ array array_agg asc between bindparam bitwise_not case cast collate column
    conv cte delete desc distinct distinct_on except_ except_all exists extract false func funcfilter hstore insert
    intersect intersect_all join label lateral literal literal_column modifier not_ null nulls_first nulls_last
    nullsfirst nullslast or_ outerjoin over phraseto_tsquery plainto_tsquery quoted_name select table tablesample text
    to_tsquery to_tsvector true try_cast ts_headline tuple_ type_coerce union union_all update values
    websearch_to_tsquery within_group
    """
)
_DIALECTS = words("mssql mysql oracle postgresql sqlite")
_SQLALCHEMY_MODULES = (
    words("sqlalchemy sqlalchemy.dialects sqlalchemy.exc sqlalchemy.schema sqlalchemy.sql sqlalchemy.types")
    | {f"sqlalchemy.sql.{name}" for name in words("ddl dml elements expression functions schema selectable sqltypes")}
    | {f"sqlalchemy.dialects.{dialect}" for dialect in _DIALECTS}
    | {f"sqlalchemy.dialects.postgresql.{name}" for name in words("array base ext hstore json ranges types")}
)
#: Classes that hold a connection or what came from one.
_CONNECTED = tuple(
    words("Connection Context Dialect Engine EnginePlugin Inspector Pool Result ResultProxy Row RowMapping Session")
    | {"Transaction"}
)
#: Names from SQLAlchemy that people look for when they read.
_READERS = words("Session sessionmaker scoped_session inspect inspection orm")

#: Packages of column types that autogenerate writes imports for, and modules of them: only classes are taken from them.
_TYPE_MODULES = words(
    """
    advanced_alchemy advanced_alchemy.types citext fastapi_users_db_sqlalchemy fastapi_users_db_sqlalchemy.generics
    geoalchemy2 geoalchemy2.types pgvector pgvector.sqlalchemy pgvector.sqlalchemy.bit pgvector.sqlalchemy.halfvec
    pgvector.sqlalchemy.sparsevec pgvector.sqlalchemy.vector sqlalchemy_json sqlalchemy_utc sqlalchemy_utc.sqltypes
    sqlalchemy_utils sqlalchemy_utils.types sqlmodel sqlmodel.sql sqlmodel.sql.sqltypes
    """
)
#: Modules below ``sqlalchemy_utils.types`` are named after their types: ``uuid``, ``email``, ``ts_vector``.
_TYPE_FOLDER = "sqlalchemy_utils.types"
#: Not for a revision: types that salt or encrypt what they store, and a registry of the project's own tables.
_NOT_PLAIN = ("Encrypted", "OneTime", "Password", "SQLModel", "StringEncrypted")

#: The standard library that cannot read the world: a module and the names to take from it; ``None`` for all it offers.
_STANDARD: dict[str, str | None] = {
    "__future__": None,
    "collections": None,
    "collections.abc": None,
    "dataclasses": "dataclass field replace asdict astuple fields is_dataclass FrozenInstanceError KW_ONLY InitVar",
    "datetime": "MAXYEAR MINYEAR UTC date datetime time timedelta timezone tzinfo",
    "decimal": "Decimal ROUND_CEILING ROUND_DOWN ROUND_FLOOR ROUND_HALF_DOWN ROUND_HALF_EVEN ROUND_HALF_UP ROUND_UP",
    "enum": None,
    "functools": "partial reduce total_ordering wraps",
    "itertools": None,
    "json": "JSONDecodeError dumps loads",
    "logging": "CRITICAL DEBUG ERROR INFO Logger WARNING critical debug error exception getLogger info warning",
    "math": None,
    "operator": "add and_ contains eq ge getitem gt itemgetter le lt mod mul ne neg not_ or_ sub truediv",
    "re": None,
    "string": None,
    "textwrap": None,
    "typing": None,
    "typing_extensions": None,
    "uuid": "NAMESPACE_DNS NAMESPACE_OID NAMESPACE_URL NAMESPACE_X500 UUID uuid3 uuid5",
    "warnings": "filterwarnings simplefilter warn",
}
_EVALUATES = frozenset({"get_type_hints", "evaluate_forward_ref", "ForwardRef"})
_RANDOM = frozenset({"uuid.uuid1", "uuid.uuid4", "uuid.uuid6", "uuid.uuid7", "uuid.uuid8"})
_CACHES = frozenset({"functools.cache", "functools.lru_cache", "functools.cached_property"})

_MODULES = _SQLALCHEMY_MODULES | _TYPE_MODULES | _STANDARD.keys() | {"alembic", "alembic.op"}

#: Builtins that follow from their arguments, as exceptions do; ``print`` sends nothing to the database.
_BUILTINS = words(
    """
    abs all any ascii bin bool bytearray bytes callable chr classmethod complex dict divmod enumerate filter float
    format frozenset hex int isinstance issubclass iter len list map max min next object oct ord pow print property
    range repr reversed round set slice sorted staticmethod str sum super tuple type zip NotImplemented __name__ __doc__
    """
)
#: Module globals that every file has.
_ALWAYS_THERE = frozenset({"__file__", "__spec__", "__loader__", "__builtins__", "__path__", "__cached__"})
#: Attributes that lead to the database, the clock or the process, from whatever object: operations in a batch, the
#: arguments that SQLAlchemy gives to callbacks, a class under another name.
_ATTRIBUTES = by_word(
    {
        "gives it a connection": "bind connect connection cursor dbapi_connection engine get_bind root_connection",
        "gives it the migration context": "get_context impl migration_context",
        "runs what is not read here": "invoke run_async run_sync",
        "differs between tenants": "default_schema_name server_version_info",
        "reads the database": "autoload autoload_with reflect",
        "hooks into SQLAlchemy": "ddl_if dispatch execute_if listen listens_for",
        "reads the clock": "fromtimestamp now today utcfromtimestamp utcnow",
        "reads the time zone": "astimezone timestamp",
        "is different each time": "getnode urandom uuid1 uuid4",
        "reads the configuration": "getEffectiveLevel isEnabledFor",
        "reads the environment": "environ getenv",
        "runs outside a transaction": "autocommit_block",
    }
)
#: Of those, what says something of where and when a revision runs: the attributes, and what they read.
_OF_THE_WORLD = {
    reason: what
    for what, reasons in {
        "the clock": ("reads the clock", "reads the time zone"),
        "the environment": ("reads the environment",),
        "chance": ("is different each time",),
    }.items()
    for reason in reasons
}
#: Attributes with two underscores that say nothing of the process.
_PLAIN_DUNDERS = words("__init__ __name__ __doc__ __class__ __members__ __tablename__ __table__")


def import_fault(path: str) -> str | None:
    """Why a file that imports ``path`` (``datetime``, ``sqlalchemy.orm.Session``) may depend on more than itself.

    Returns:
        A short phrase, or ``None`` where it may not.
    """
    module, _ = _split(path)
    return None if path == module else _name_fault(path)


def use_fault(path: str) -> str | None:
    """The same of an expression that begins with an import: ``datetime.datetime.now``, ``sa.func.now``, ``op``.

    A module must not be used for itself: under another name, nothing of what is then taken from it would be seen.
    """
    module, _ = _split(path)
    return f"uses {path} as a value" if path == module else _name_fault(path)


def attributes(path: str) -> tuple[str, ...]:
    """What an expression goes on to take from the imported name: ``("datetime", "now")`` has ``now``."""
    _, rest = _split(path)
    # Every attribute of `func` is the name of an SQL function.
    return () if rest[:1] == ("func",) else rest[1:]


def builtin_fault(name: str) -> str | None:
    """Why a file that uses ``name``, which it does not bind, may depend on more than itself."""
    value = getattr(builtins, name, None)
    if name in _BUILTINS or (isinstance(value, type) and issubclass(value, BaseException)):
        return None
    if name in {"hash", "id"}:
        return f"{name}() differs from process to process"
    if name in _ALWAYS_THERE:
        return f"reads {name}"
    return f"calls {name}()" if hasattr(builtins, name) else f"uses {name}, which the file does not define"


def attribute_fault(name: str) -> str | None:
    """The same of an attribute of an object that is not known."""
    if name in _ATTRIBUTES:
        return f"{name} {_ATTRIBUTES[name]}"
    hidden = name.startswith("__") and name.endswith("__") and name not in _PLAIN_DUNDERS
    return f"uses {name}" if hidden else None


def world_fault(name: str) -> str | None:
    """What of the world an attribute reads, from whatever object: ``the clock``; ``None`` where it is none of it."""
    return _OF_THE_WORLD.get(_ATTRIBUTES.get(name, ""))


def _split(path: str) -> tuple[str, tuple[str, ...]]:
    """The longest module that may be imported, and what follows it."""
    parts = tuple(path.split("."))
    for length in range(len(parts), 0, -1):
        module = ".".join(parts[:length])
        if module in _MODULES or (length == 3 and module.rpartition(".")[0] == _TYPE_FOLDER and parts[2].islower()):
            return module, parts[length:]
    return "", parts


def _name_fault(path: str) -> str | None:
    module, rest = _split(path)
    if not module:
        return f"imports {path}"
    name, used = rest[0], f"{module}.{rest[0]}"
    if module == "alembic.op":
        if name in OPERATIONS:
            return None
        return f"op.{name} {_WAYS_OUT.get(name, 'is not one of the operations that read nothing')}"
    if module == "alembic":
        return f"imports {used}"
    if name.startswith("_") and module != "__future__":
        return f"uses {used}"
    if module in _SQLALCHEMY_MODULES:
        return _sqlalchemy_fault(used, name)
    if module in _STANDARD:
        return _standard_fault(module, name)
    return _type_fault(used, name)


def _type_fault(used: str, name: str) -> str | None:
    if name.endswith(_CONNECTED):
        return f"{used} reads the database"
    return None if name[0].isupper() and not name.startswith(_NOT_PLAIN) else f"uses {used}"


def _sqlalchemy_fault(used: str, name: str) -> str | None:
    if name in _READERS or name.endswith(_CONNECTED):
        return f"{used} reads the database"
    return None if name[0].isupper() or name in _EXPRESSIONS else f"uses {used}"


def _standard_fault(module: str, name: str) -> str | None:
    used = f"{module}.{name}"
    if used in _RANDOM:
        return f"{used} is different each time"
    if used in _CACHES:
        return f"{used} keeps state between tenants"
    return None if name in _offered(module) else f"uses {used}"


@cache
def _offered(module: str) -> frozenset[str]:
    listed = _STANDARD[module]
    if listed is not None:
        return words(listed)
    try:
        loaded = importlib.import_module(module)
    except ImportError:  # typing_extensions: without it the revision would not run
        return frozenset()
    public = (name for name in dir(loaded) if not isinstance(getattr(loaded, name), ModuleType))
    return frozenset(getattr(loaded, "__all__", public)) - _EVALUATES
