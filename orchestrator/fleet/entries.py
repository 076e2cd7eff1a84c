"""Entries of tenants.yaml other than tenants, made into the values they stand for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from orchestrator.fleet import urls
from orchestrator.fleet.fleet import FailureBudget, Policy, Wave
from orchestrator.fleet.hooks import Hook, Moment
from orchestrator.fleet.ignoring import IgnoreRule
from orchestrator.fleet.onboarding import Onboarding, Seed
from orchestrator.fleet.problems import Problem, suggestion
from orchestrator.fleet.resolve import Refused, limits_of, template_at
from orchestrator.fleet.schema import (
    CheckEntry,
    DatabasesEntry,
    DriftEntry,
    EntryPointEntry,
    HookEntry,
    HooksEntry,
    OnboardingEntry,
    PolicyEntry,
    PythonEntry,
    SchemasEntry,
    SeedEntry,
    ServerEntry,
    SourceEntry,
    SqlEntry,
    WaveEntry,
)
from orchestrator.fleet.selection import Selection
from orchestrator.fleet.sources import (
    DatabaseSource,
    Defaults,
    EntryPointSource,
    PythonSource,
    SchemaSource,
    Source,
    SqlSource,
)
from orchestrator.fleet.tenant import Server
from orchestrator.fleet.waves import Check


def server_of(name: str, entry: ServerEntry, root: Path) -> Server:
    """The server declared under ``name``.

    Raises:
        Refused: an address has a ``${`` that is no secret, or names a dialect without an adapter.
    """
    url = template_at(("url",), entry.url, root)
    dialect = urls.dialect_of(url.from_environment())
    if dialect not in (None, "postgresql", urls.SQLITE):
        message = f"there is no adapter for `{dialect}` databases"
        raise Refused(Problem(("url",), message, "write postgresql://... or sqlite:///..."))
    direct = template_at(("direct_url",), entry.direct_url or "", root)
    return Server(
        name=name,
        url=url,
        # ${MAIN_DIRECT_URL:-} is how to say: past the pooler where there is one.
        direct_url=direct if direct.from_environment().strip() else None,
        max_concurrency=entry.max_concurrency,
        extensions_schema=entry.extensions_schema,
        limits=limits_of(entry),
    )


def source_of(
    entry: SourceEntry, servers: Mapping[str, Server], defaults: Defaults, broken: frozenset[str] = frozenset()
) -> Source:
    """The source that an entry declares.

    Args:
        entry: one of ``sources:``.
        servers: servers it may name.
        defaults: the fleet's.
        broken: names of servers that are wrong themselves, and told already.

    Raises:
        Refused: it names no server, or one that is not declared.
    """
    if isinstance(entry, PythonEntry):
        return PythonSource(entry.python, root=defaults.root)
    if isinstance(entry, EntryPointEntry):
        return EntryPointSource(entry.entry_point, entry.options)
    name = entry.server or defaults.server or (next(iter(servers)) if len(servers) == 1 else None)
    if name is None:
        raise Refused(Problem((), "the source names no server", "add `server:` to it, or `defaults: {server: NAME}`"))
    if entry.server is not None and name not in servers and name not in broken:
        raise Refused(Problem(("server",), f"unknown server `{name}`", suggestion(name, [*servers, *broken])))
    match entry:
        case SqlEntry():
            return SqlSource(entry.sql, name, entry.register_, entry.unregister)
        case SchemasEntry():
            return SchemaSource(entry.schemas, name)
        case DatabasesEntry():
            return DatabaseSource(entry.databases, name)


def policy_of(entry: PolicyEntry) -> Policy:
    """The policy that an entry declares."""
    budget = FailureBudget(*entry.max_failures)
    return Policy(max_failures=budget, limits=limits_of(entry), retries=entry.retries, same_cause=entry.same_cause)


def wave_of(entry: WaveEntry, servers: Mapping[str, Server], broken: frozenset[str], root: Path) -> Wave:
    """The wave that an entry declares.

    Args:
        entry: one of ``waves:``.
        servers: servers it may select.
        broken: names of servers that are wrong themselves, and told already.
        root: the directory of tenants.yaml.

    Raises:
        Refused: its bounds contradict each other, or it selects a server that is not declared.
    """
    if entry.percent is not None and entry.count is not None:
        raise Refused(Problem(("count",), "a wave has a `percent` or a `count`, not both", "keep one of them"))
    select = entry.select
    for number, name in enumerate(select.servers):
        if name not in servers and name not in broken:
            path = ("select", "servers", number)
            raise Refused(Problem(path, f"unknown server `{name}`", suggestion(name, [*servers, *broken])))
    return Wave(
        name=entry.name,
        select=Selection(patterns=select.tenants, tags=select.tags, servers=select.servers, exclude=select.exclude),
        percent=entry.percent,
        count=entry.count,
        max_failures=None if entry.max_failures is None else FailureBudget(*entry.max_failures),
        jobs=entry.jobs,
        order=entry.order,
        verify=tuple(_check_of(check, number, root) for number, check in enumerate(entry.verify)),
        bake=entry.bake,
        approve=entry.approve,
        on_failure=entry.on_failure,
    )


def hooks_of(entry: HooksEntry, root: Path) -> dict[Moment, tuple[Hook, ...]]:
    """The hooks that an entry declares, without moments that have none.

    Raises:
        Refused: one of them is not exactly one of the three.
    """
    found = {}
    for moment in Moment:
        declared: list[HookEntry] = getattr(entry, moment.value)
        if declared:
            found[moment] = tuple(_hook_of(hook, (moment.value, number), root) for number, hook in enumerate(declared))
    return found


def onboarding_of(entry: OnboardingEntry, root: Path) -> Onboarding:
    """What new tenants get.

    Raises:
        Refused: a seed is not exactly one of the two, or the usual one is not declared.
    """
    seeds = {name: _seed_of(seed, ("seeds", name), root) for name, seed in entry.seeds.items()}
    if entry.seed is not None and entry.seed not in seeds:
        raise Refused(Problem(("seed",), f"there is no seed `{entry.seed}`", suggestion(entry.seed, seeds)))
    return Onboarding(entry.owner, entry.extensions, tuple(entry.statements), seeds, entry.seed, entry.pool.size)


def _seed_of(entry: SeedEntry, path: tuple[str | int, ...], root: Path) -> Seed:
    if (entry.sql is None) == (entry.python is None):
        raise Refused(Problem(path, "a seed is one of `sql` and `python`", "keep one of them"))
    if entry.sql is not None:
        return Seed(sql=root.absolute() / entry.sql)
    assert entry.python is not None
    return Seed(python=PythonSource(entry.python, root))


def ignored_by(entry: DriftEntry) -> tuple[IgnoreRule, ...]:
    """The rules that an entry declares.

    Raises:
        Refused: one of them would match everything.
    """
    for number, rule in enumerate(entry.ignore):
        if rule.kind is None and rule.table is None and rule.name is None:
            message = "a rule without `kind`, `table` and `name` would ignore everything"
            raise Refused(Problem(("ignore", number), message, "say what may differ: {kind: index, name: tmp_*}"))
    return tuple(IgnoreRule(rule.kind, rule.table, rule.name) for rule in entry.ignore)


def _hook_of(entry: HookEntry, path: tuple[str | int, ...], root: Path) -> Hook:
    if sum(given is not None for given in (entry.command, entry.python, entry.webhook)) != 1:
        raise Refused(Problem(path, "a hook is one of `command`, `python` and `webhook`", "keep one of them"))
    return Hook(
        command=entry.command,
        python=None if entry.python is None else PythonSource(entry.python, root),
        webhook=None if entry.webhook is None else template_at((*path, "webhook"), entry.webhook, root),
    )


def _check_of(entry: CheckEntry, number: int, root: Path) -> Check:
    if sum(given is not None for given in (entry.sql, entry.command, entry.python)) != 1:
        message = "a check is one of `sql`, `command` and `python`"
        raise Refused(Problem(("verify", number), message, "keep one of them"))
    python = None if entry.python is None else PythonSource(entry.python, root)
    return Check(sql=entry.sql, command=entry.command, python=python)
