"""The keys of tenants.yaml as pydantic models; what they mean for each other is told in ``resolve``, ``entries``."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    PlainValidator,
    Tag,
    WithJsonSchema,
)

from orchestrator.fleet.ignoring import ObjectKind
from orchestrator.fleet.kinds import (
    Budget,
    DatabaseName,
    Day,
    Duration,
    Given,
    Name,
    Names,
    Percent,
    Reference,
    SchemaName,
    Target,
    Text,
    wrong,
)
from orchestrator.fleet.statements import parse
from orchestrator.fleet.tenant import Isolation
from orchestrator.fleet.waves import Approval, OnFailure, Order
from orchestrator.statuses import Severity

_Count = Annotated[int, Field(strict=True, ge=1)]


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", validate_default=False, frozen=True)


_LockTimeout = Annotated[Given[Duration], Field(description="How long a statement may wait for a lock: 2s")]
_StatementTimeout = Annotated[Given[Duration], Field(description="How long a statement may run: 1h")]
_IdleTimeout = Annotated[Given[Duration], Field(description="How long a transaction may be idle: 60s")]


class ServerEntry(_Entry):
    """A physical server: budgets live here. A plain string is its address."""

    url: Text = Field(
        description="Address: postgresql://user:${file:/run/secrets/pg}@host/database or sqlite:///directory"
    )
    direct_url: str | None = Field(None, description="Address past a pooler, for locks and DDL; empty for none")
    max_concurrency: _Count = Field(8, description="Tenants migrated at once on this server, at most")
    extensions_schema: Given[SchemaName] = Field(None, description="Schema kept on every tenant's search path")
    lock_timeout: _LockTimeout = None
    statement_timeout: _StatementTimeout = None
    idle_in_transaction_timeout: _IdleTimeout = None


class DefaultsEntry(_Entry):
    """What holds for a tenant that does not say otherwise."""

    server: Given[Name] = None
    isolation: Given[Isolation] = None
    target: Target = "heads"
    tags: Names = ()


class TenantEntry(_Entry):
    """One tenant. A plain string is its id."""

    id: Name = Field(description="Unique in the fleet")
    server: Given[Name] = Field(None, description="Name of one of servers")
    isolation: Given[Isolation] = Field(None, description="What the tenant has of its own")
    schema_: Given[SchemaName] = Field(
        None, alias="schema", description="Schema with its tables; the id where isolation is schema"
    )
    database: Given[DatabaseName] = Field(
        None, description="Database with its tables; the id where isolation is database"
    )
    file: Given[Text] = Field(
        None, description="SQLite file; <id>.db in the server's directory where isolation is file"
    )
    url: Given[Text] = Field(None, description="Address of a server of its own")
    tags: Names | None = Field(None, description="What --tag and waves select by")
    target: Given[Target] = Field(None, description="What it is migrated to: heads, a revision, tenant@head")
    pin: Given[Name] = Field(None, description="Revision it is held at")
    reason: Given[Text] = Field(None, description="Why it is held")
    until: Given[Day] = Field(None, description="The pin no longer holds from this day on")
    lock_timeout: _LockTimeout = None
    statement_timeout: _StatementTimeout = None
    idle_in_transaction_timeout: _IdleTimeout = None


def _parsed(text: str) -> str:
    parse(text)
    return text


_Statement = Annotated[Text, AfterValidator(_parsed)]


class SqlEntry(_Entry):
    """Tenants are rows of a query; its columns are named like a tenant's keys."""

    sql: Text
    server: Given[Name] = None
    register_: Given[_Statement] = Field(None, alias="register", description="Statement that writes a new tenant there")
    unregister: Given[_Statement] = Field(None, description="Statement that takes a tenant out")


class SchemasEntry(_Entry):
    """Tenants are the schemas that match a glob."""

    schemas: Name
    server: Given[Name] = None


class DatabasesEntry(_Entry):
    """Tenants are the databases that match a glob."""

    databases: Name
    server: Given[Name] = None


class PythonEntry(_Entry):
    """Tenants are what a callable returns, sync or async."""

    python: Reference


class EntryPointEntry(_Entry):
    """Tenants are what an installed package returns (entry point group orchestrator.sources)."""

    entry_point: Name
    options: dict[str, Any] = Field(default_factory=dict)


#: The key that says what kind of source an entry is.
SOURCE_KINDS: dict[str, type[_Entry]] = {
    "sql": SqlEntry,
    "schemas": SchemasEntry,
    "databases": DatabasesEntry,
    "python": PythonEntry,
    "entry_point": EntryPointEntry,
}


def _source_kind(entry: Any) -> str | None:
    kinds = [kind for kind in SOURCE_KINDS if isinstance(entry, dict) and kind in entry]
    # The tag becomes part of an error's path, where it must not look like the key.
    return f"<{kinds[0]}>" if len(kinds) == 1 else None


SourceEntry = Annotated[
    Annotated[SqlEntry, Tag("<sql>")]
    | Annotated[SchemasEntry, Tag("<schemas>")]
    | Annotated[DatabasesEntry, Tag("<databases>")]
    | Annotated[PythonEntry, Tag("<python>")]
    | Annotated[EntryPointEntry, Tag("<entry_point>")],
    Discriminator(_source_kind),
]


class PolicyEntry(_Entry):
    """What holds for the whole fleet."""

    max_failures: Annotated[Budget, Field(description="Failures tolerated per wave: 0, 5 or 10%")] = (0, None)
    lock_timeout: Duration = 2.0
    statement_timeout: Duration = 3600.0
    idle_in_transaction_timeout: Duration = 60.0
    retries: Annotated[int, Field(strict=True, ge=0)] = 5
    same_cause: Annotated[Given[_Count], Field(description="Stop when so many fail for one cause")] = None


class SelectEntry(_Entry):
    """Whom a wave may take."""

    tags: Names = ()
    tenants: Names = ()
    servers: Names = ()
    exclude: Names = ()


class CheckEntry(_Entry):
    """What has to be true once a wave is through. Plain text is SQL."""

    sql: Given[Text] = Field(None, description="Query for every tenant of the wave; its value must be true")
    command: Given[Text] = Field(None, description="Shell command, once for the wave; must exit with 0")
    python: Given[Reference] = Field(None, description="module:function, once for the wave; must return true")


def _as_list(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


def _as_checks(value: Any) -> Any:
    checks = value if isinstance(value, list) else [value]
    return [{"sql": check} if isinstance(check, str) else check for check in checks]


_Checks = Annotated[list[CheckEntry], BeforeValidator(_as_checks)]


class WaveEntry(_Entry):
    """One group of tenants in a run's order; what it leaves is for the later ones."""

    name: Name
    select: SelectEntry = Field(default_factory=SelectEntry)
    percent: Given[Percent] = None
    count: Given[_Count] = None
    max_failures: Given[Budget] = None
    jobs: Given[_Count] = Field(None, description="Tenants at once in this wave")
    order: Order = Field(Order.LONGEST, description="Who starts first")
    verify: _Checks = Field(default_factory=list, description="What must be true once the wave is through")
    bake: Duration = Field(0.0, description="Time between this wave and the next: 10m")
    approve: Given[Approval] = Field(None, description="manual: somebody lets the next wave begin")
    on_failure: OnFailure = Field(OnFailure.STOP, description="What follows when the wave fails")


class HookEntry(_Entry):
    """Something to call. Plain text is a command."""

    command: Given[Text] = Field(None, description="Shell command; gets the document as JSON on stdin")
    python: Given[Reference] = Field(None, description="module:function; gets the document as a dictionary")
    webhook: Given[Text] = Field(None, description="Address that the document is posted to; may hold ${...}")


def _as_hooks(value: Any) -> Any:
    hooks = value if isinstance(value, list) else [value]
    return [{"command": hook} if isinstance(hook, str) else hook for hook in hooks]


_Hooks = Annotated[list[HookEntry], BeforeValidator(_as_hooks)]


class HooksEntry(_Entry):
    """What is called before and after; what is called before may say no."""

    before_run: _Hooks = Field(default_factory=list)
    after_run: _Hooks = Field(default_factory=list)
    before_wave: _Hooks = Field(default_factory=list)
    after_wave: _Hooks = Field(default_factory=list)
    before_tenant: _Hooks = Field(default_factory=list)
    after_tenant: _Hooks = Field(default_factory=list)


class SeedEntry(_Entry):
    """Rows that a new tenant begins with. Plain text is a file of SQL."""

    sql: Given[Text] = Field(None, description="File of SQL, run in the tenant's scope in one transaction")
    python: Given[Reference] = Field(None, description="module:function; gets a connection and the tenant")


def _as_seed(value: Any) -> Any:
    return {"sql": value} if isinstance(value, str) else value


_Seed = Annotated[SeedEntry, BeforeValidator(_as_seed)]


class PoolEntry(_Entry):
    """Databases that are made before anybody comes."""

    size: Annotated[
        int, Field(strict=True, ge=0, le=100, description="Copies of the template kept ready on a server, at most 100")
    ] = 0


class OnboardingEntry(_Entry):
    """What every new tenant gets beside the shared tables."""

    owner: Annotated[Given[DatabaseName], Field(description="Role that owns the schema or database")] = None
    extensions: Annotated[Names, Field(description="Extensions, made in the server's extensions_schema")] = ()
    statements: Annotated[list[Text], BeforeValidator(_as_list)] = Field(
        default_factory=list, description="SQL for the empty place: GRANT USAGE ON SCHEMA {schema} TO app"
    )
    seeds: dict[Name, _Seed] = Field(default_factory=dict, description="What tenants may begin with, by name")
    seed: Annotated[Given[Name], Field(description="The seed of tenants that ask for none in particular")] = None
    pool: Annotated[PoolEntry, Field(description="For tenants that are databases: {size: 10}")] = PoolEntry()


class IgnoreEntry(_Entry):
    """Objects that may differ from tenant to tenant; all that is given must match."""

    kind: Given[ObjectKind] = Field(None, description="What the object is")
    table: Given[Name] = Field(None, description="Glob for the table that it is, or belongs to")
    name: Given[Name] = Field(None, description="Glob for its own name")


class DriftEntry(_Entry):
    """What `drift` leaves out."""

    ignore: list[IgnoreEntry] = Field(default_factory=list, description="Objects that may differ")


def _severity(value: Any) -> Severity:
    if value is False:  # YAML reads a plain `off` so
        return Severity.OFF
    try:
        return Severity(value)
    except ValueError:
        raise wrong(f"`{value}` does not say how much the rule weighs", "write off, warning or error") from None


_Severity = Annotated[
    Severity,
    PlainValidator(_severity),
    WithJsonSchema({"anyOf": [{"enum": [severity.value for severity in Severity]}, {"const": False}]}),
]


class LintEntry(_Entry):
    """What `orchestrator lint` looks for."""

    rules: dict[Name, _Severity] = Field(
        default_factory=dict, description="Rule to off, warning or error; squawk/NAME is a rule of squawk's"
    )


class FleetEntry(_Entry):
    """All of tenants.yaml."""

    name: Given[Name] = Field(None, description="What tells this fleet from others on the same servers")
    servers: dict[Name, ServerEntry] = Field(default_factory=dict)
    defaults: DefaultsEntry = Field(default_factory=DefaultsEntry)
    tenants: list[TenantEntry] = Field(default_factory=list)
    sources: list[SourceEntry] = Field(default_factory=list)
    policy: PolicyEntry = Field(default_factory=PolicyEntry)
    waves: list[WaveEntry] = Field(default_factory=list)
    hooks: HooksEntry = Field(default_factory=HooksEntry)
    onboarding: OnboardingEntry = Field(default_factory=OnboardingEntry)
    drift: DriftEntry = Field(default_factory=DriftEntry)
    lint: LintEntry = Field(default_factory=LintEntry)
    journal: Given[Text] = Field(None, description="Database URL of the journal")


def json_schema() -> dict[str, Any]:
    """The JSON Schema of tenants.yaml, for editors; published as ``tenants.schema.json`` beside this module."""
    schema: dict[str, Any] = _tidy(FleetEntry.model_json_schema())
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "tenants.yaml"
    for key in schema["properties"]:
        schema["properties"][key].pop("default", None)
    schema["$defs"]["PolicyEntry"]["properties"]["max_failures"]["default"] = 0  # the model holds it as (0, None)
    check = [{"type": "string"}, {"$ref": "#/$defs/CheckEntry"}]
    schema["$defs"]["WaveEntry"]["properties"]["verify"] = {
        "anyOf": [*check, {"type": "array", "items": {"anyOf": check}}],
        "description": "What must be true once the wave is through",
    }
    hook = [{"type": "string"}, {"$ref": "#/$defs/HookEntry"}]
    for moment in schema["$defs"]["HooksEntry"]["properties"].values():
        moment.update({"anyOf": [*hook, {"type": "array", "items": {"anyOf": hook}}]})
        del moment["items"], moment["type"]
    onboarding = schema["$defs"]["OnboardingEntry"]["properties"]
    onboarding["seeds"]["additionalProperties"] = {"anyOf": [{"type": "string"}, {"$ref": "#/$defs/SeedEntry"}]}
    statements = onboarding["statements"]
    statements["anyOf"] = [{"type": "string"}, {"type": statements.pop("type"), "items": statements.pop("items")}]
    # What load() takes as a short form (see normalized).
    schema["properties"]["servers"]["additionalProperties"] = {
        "anyOf": [{"type": "string"}, {"$ref": "#/$defs/ServerEntry"}]
    }
    schema["properties"]["tenants"]["items"] = {"anyOf": [{"type": "string"}, {"$ref": "#/$defs/TenantEntry"}]}
    return schema


def normalized(data: dict[str, Any]) -> dict[str, Any]:
    """``data`` with short forms written out: a server as its address, a tenant as its id, a section left empty."""
    data = {key: value for key, value in data.items() if value is not None}
    servers, tenants = data.get("servers"), data.get("tenants")
    if isinstance(servers, dict):
        data["servers"] = {name: {"url": entry} if isinstance(entry, str) else entry for name, entry in servers.items()}
    if isinstance(tenants, list):
        data["tenants"] = [{"id": entry} if isinstance(entry, str) else entry for entry in tenants]
    return data


def _tidy(schema: Any) -> Any:
    """The schema without what pydantic adds for itself: titles, and a null for every key that may be left out."""
    if isinstance(schema, list):
        return [_tidy(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    schema = {key: _tidy(part) for key, part in schema.items() if not (key == "default" and part is None)}
    if isinstance(schema.get("title"), str):
        del schema["title"]
    choices = schema.get("anyOf")
    if choices and {"type": "null"} in choices and len(choices) == 2:
        del schema["anyOf"]
        schema |= next(choice for choice in choices if choice != {"type": "null"})
    return schema
