"""load(): tenants.yaml as a Fleet, or one error that tells everything that is wrong with it."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any

from pydantic import ValidationError

from orchestrator.errors import ConfigurationError
from orchestrator.fleet.clashes import clashes, same_address
from orchestrator.fleet.describe import problems_of
from orchestrator.fleet.document import Document, compose, kind_of
from orchestrator.fleet.entries import hooks_of, ignored_by, onboarding_of, policy_of, server_of, source_of, wave_of
from orchestrator.fleet.fleet import Fleet, Wave
from orchestrator.fleet.hooks import Hook, Moment
from orchestrator.fleet.ignoring import IgnoreRule
from orchestrator.fleet.onboarding import Onboarding
from orchestrator.fleet.problems import Located, Path, Problem, Report, suggestion
from orchestrator.fleet.resolve import Refused, Resolver, template_at
from orchestrator.fleet.schema import DefaultsEntry, FleetEntry, normalized
from orchestrator.fleet.sources import Defaults, Source
from orchestrator.fleet.tenant import Server, Tenant

_EXAMPLE = "`orchestrator init` writes one to start from"
_LISTS = ("tenants", "sources", "waves")


def load(path: str | FilePath, *, may_be_empty: bool = False) -> Fleet:
    """Read tenants.yaml.

    Reads no secret and touches no server: ``${file:}`` and ``${cmd:}`` stay unread (but for those in the directory of
    a SQLite server), and sources are only declared.

    Args:
        path: the file; paths in it are relative to its directory.
        may_be_empty: a fleet without tenants and sources is none to migrate, but the first one can be put into it.

    Raises:
        ConfigurationError: with file, line and column of the first problem; the message tells all of them, a line each.
    """
    file = str(path)
    text = _read(FilePath(path), file)
    with collector_paused():
        return fleet_of(document_of(text, file), path, may_be_empty=may_be_empty)


def document_of(text: str, file: str) -> Document:
    """The document in the text of a tenants.yaml.

    Args:
        text: what the file holds.
        file: as the user named it.

    Raises:
        ConfigurationError: it is not YAML, or there is nothing in it.
    """
    document = compose(text, file)
    if document is None or document.data is None:
        raise ConfigurationError("the file is empty", file=file, line=1, hint=_EXAMPLE)
    return document


def fleet_of(document: Document, path: str | FilePath, *, may_be_empty: bool = False) -> Fleet:
    """The fleet that a document declares; see :func:`load`."""
    return _Loader(str(path), FilePath(path).absolute(), document, may_be_empty).fleet()


@contextmanager
def collector_paused() -> Iterator[None]:
    """Ten thousand tenants make some 200,000 objects, none of them garbage: looking for it takes half of the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _read(path: FilePath, file: str) -> str:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        hint = f"name it with --config; {_EXAMPLE}"
        raise ConfigurationError("there is no such file", file=file, hint=hint) from None
    except IsADirectoryError:
        hint = f"name the file in it: {path / 'tenants.yaml'}"
        raise ConfigurationError("this is a directory", file=file, hint=hint) from None
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or "it is no path"
        raise ConfigurationError(f"cannot be read: {reason}", file=file, hint="name it with --config") from None
    return text_of(data, file)


def text_of(data: bytes, file: str) -> str:
    """The text in the bytes of a tenants.yaml, without the byte order mark that some editors write.

    Raises:
        ConfigurationError: it is not UTF-8.
    """
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigurationError("not UTF-8 text", file=file, line=line, hint="save the file as UTF-8") from None


@dataclass(slots=True)
class _Loader:
    """Carries one file through the steps; what a step finds wrong is collected, and what is right goes on."""

    file: str
    path: FilePath
    document: Document
    may_be_empty: bool
    report: Report = field(init=False)
    #: Positions in the file of the tenants, sources and waves that came through validation.
    positions: dict[str, list[int]] = field(init=False, default_factory=dict)
    #: Servers that are declared but wrong: whoever names them is not at fault.
    broken: frozenset[str] = field(init=False, default=frozenset())

    def __post_init__(self) -> None:
        self.report = Report(self.file)

    def fleet(self) -> Fleet:
        self._note(self.document.problems)
        if not isinstance(self.document.data, dict):
            message = f"the file must be a mapping with `tenants:` or `sources:`, not {kind_of(self.document.data)}"
            self._note([Problem((), message, _EXAMPLE)])
            self._finish()
        entry = self._validated(normalized(self.document.data))
        servers = self._servers(entry)
        defaults = self._defaults(entry.defaults, servers)
        tenants, own = self._tenants(entry, servers, defaults)
        sources = self._sources(entry, servers, defaults)
        waves = self._waves(entry, {**servers, **own})
        hooks = self._hooks(entry)
        onboarding = self._onboarding(entry)
        ignore = self._ignored(entry)
        self._check_journal(entry)
        if not tenants and not sources and not self.may_be_empty:
            hint = (
                "list them under `tenants:`, name a source under `sources:`, or begin with: orchestrator onboard TENANT"
            )
            empty = Problem(("tenants",), "the fleet is empty: no tenants and no sources", hint, at_key=True)
            self._note([] if self.report.found else [empty])
        self._finish()
        return Fleet(
            path=self.path,
            servers={**servers, **own},
            tenants=tuple(tenants),
            sources=tuple(sources),
            defaults=defaults,
            policy=policy_of(entry.policy),
            waves=tuple(waves),
            hooks=hooks,
            onboarding=onboarding,
            lint_rules=entry.lint.rules,
            name=entry.name,
            ignore=ignore,
            journal=entry.journal,
        )

    def _validated(self, data: dict[str, Any]) -> FleetEntry:
        """The models; entries that are wrong are told and left out, so that the rest can still be looked at."""
        for key in _LISTS:
            self.positions[key] = list(range(len(data[key]))) if isinstance(data.get(key), list) else []
        try:
            return FleetEntry.model_validate(data)
        except ValidationError as error:
            self._note(problems_of(error, self.document.written))
            wrong = {details["loc"][:2] for details in error.errors(include_url=False, include_input=False)}
        if ("servers",) in wrong or (
            "servers" not in data and any(at[0] not in FleetEntry.model_fields for at in wrong)
        ):
            self._finish()  # without servers (maybe `server:` was written) every tenant would be a complaint of its own
        servers = data.get("servers")
        if isinstance(servers, dict):
            self.broken = frozenset(name for name in servers if any(("servers", name) == at[:2] for at in wrong))
            data["servers"] = {name: item for name, item in servers.items() if name not in self.broken}
        for key in _LISTS:
            self.positions[key] = [number for number in self.positions[key] if (key, number) not in wrong]
            if self.positions[key]:
                data[key] = [data[key][number] for number in self.positions[key]]
        whole = {at[0] for at in wrong if at[0] not in ("servers", *_LISTS) or len(at) == 1}
        whole |= {key for key in _LISTS if not self.positions[key]}
        return FleetEntry.model_validate({key: value for key, value in data.items() if key not in whole})

    def _servers(self, entry: FleetEntry) -> dict[str, Server]:
        servers: dict[str, Server] = {}
        for name, declared in entry.servers.items():
            try:
                servers[name] = server_of(name, declared, self.path.parent)
            except Refused as refused:
                self._refuse(("servers", name), refused)
        self.broken |= entry.servers.keys() - servers.keys()
        for name, first in same_address(servers):
            line = self.document.place(("servers", first), at_key=True)[0]
            message = (
                f"server `{name}` has the address of server `{first}` in line {line}: its budget would count twice"
            )
            self._note([Problem(("servers", name, "url"), message, "declare each physical server once")])
        return servers

    def _defaults(self, entry: DefaultsEntry, servers: dict[str, Server]) -> Defaults:
        name = entry.server
        if name is not None and name not in servers and name not in self.broken:
            self._note(
                [
                    Problem(
                        ("defaults", "server"), f"unknown server `{name}`", suggestion(name, [*servers, *self.broken])
                    )
                ]
            )
        return Defaults(name, entry.isolation, entry.target, entry.tags, root=self.path.parent)

    def _tenants(
        self, entry: FleetEntry, servers: dict[str, Server], defaults: Defaults
    ) -> tuple[list[Tenant], dict[str, Server]]:
        resolver = Resolver(servers, defaults, broken=self.broken)
        tenants: list[Tenant] = []
        positions: list[int] = []
        for position, declared in zip(self.positions["tenants"], entry.tenants, strict=True):
            try:
                tenant = resolver.tenant(declared)
            except Refused as refused:
                self._refuse(("tenants", position), refused)
                continue
            if tenant is not None:
                tenants.append(tenant)
                positions.append(position)
        for number, first, problem in clashes(tenants, {**servers, **resolver.own}):
            line = self.document.place(("tenants", positions[first]))[0]
            message = f"{problem.message} (line {line}: `{tenants[first].id}`)"
            self._note([Problem(("tenants", positions[number], *problem.path), message, problem.hint)])
        return tenants, resolver.own

    def _sources(self, entry: FleetEntry, servers: dict[str, Server], defaults: Defaults) -> list[Source]:
        sources: list[Source] = []
        for position, declared in zip(self.positions["sources"], entry.sources, strict=True):
            try:
                sources.append(source_of(declared, servers, defaults, self.broken))
            except Refused as refused:
                self._refuse(("sources", position), refused)
        return sources

    def _hooks(self, entry: FleetEntry) -> dict[Moment, tuple[Hook, ...]]:
        try:
            return hooks_of(entry.hooks, self.path.parent)
        except Refused as refused:
            self._refuse(("hooks",), refused)
            return {}

    def _onboarding(self, entry: FleetEntry) -> Onboarding:
        try:
            return onboarding_of(entry.onboarding, self.path.parent)
        except Refused as refused:
            self._refuse(("onboarding",), refused)
            return Onboarding()

    def _ignored(self, entry: FleetEntry) -> tuple[IgnoreRule, ...]:
        try:
            return ignored_by(entry.drift)
        except Refused as refused:
            self._refuse(("drift",), refused)
            return ()

    def _waves(self, entry: FleetEntry, servers: dict[str, Server]) -> list[Wave]:
        waves: dict[str, Wave] = {}
        for position, declared in zip(self.positions["waves"], entry.waves, strict=True):
            path: Path = ("waves", position)
            if declared.name in waves:
                message = f"there is a wave `{declared.name}` already"
                self._note([Problem((*path, "name"), message, "give it another name")])
            try:
                waves[declared.name] = wave_of(declared, servers, self.broken, self.path.parent)
            except Refused as refused:
                self._refuse(path, refused)
        return list(waves.values())

    def _check_journal(self, entry: FleetEntry) -> None:
        try:
            template_at(("journal",), entry.journal or "", self.path.parent)
        except Refused as refused:
            self._refuse((), refused)

    def _refuse(self, path: Path, refused: Refused) -> None:
        problem = refused.problem
        self._note([Problem((*path, *problem.path), problem.message, problem.hint, problem.at_key)])

    def _note(self, problems: Iterable[Problem]) -> None:
        for problem in problems:
            line, column = self.document.place(problem.path, at_key=problem.at_key)
            self.report.found.append(Located(line, column, problem.message, problem.hint))

    def _finish(self) -> None:
        self.report.raise_if_any(f"edit {self.file}, then: orchestrator --config {self.file} tenants validate")
