"""Tenants put into tenants.yaml and taken out, with everything else in it as it was to the last byte."""

from __future__ import annotations

from codecs import BOM_UTF8
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from orchestrator.errors import ConfigurationError
from orchestrator.fleet.clashes import clashes
from orchestrator.fleet.describe import problems_of
from orchestrator.fleet.document import Document
from orchestrator.fleet.fleet import Fleet
from orchestrator.fleet.load import collector_paused, document_of, fleet_of, text_of
from orchestrator.fleet.masking import mask
from orchestrator.fleet.problems import Located, Report
from orchestrator.fleet.replacing import change
from orchestrator.fleet.resolve import Refused, Resolver
from orchestrator.fleet.schema import TenantEntry
from orchestrator.fleet.shortest import entry_of
from orchestrator.fleet.tenant import Server, Tenant
from orchestrator.fleet.tenant_list import TenantList
from orchestrator.fleet.written import written

__all__ = ["entry_of", "register", "register_all", "unregister"]

_ENTRIES = TypeAdapter(list[TenantEntry])


def register(path: Path, entry: Mapping[str, object]) -> bool:
    """Put a tenant at the end of ``tenants:``; nothing to do where it is there already and means the same.

    The result is read and compared before it takes the file's place, whole. Others who register wait meanwhile. Blocks:
    call it in a thread from async code.

    Args:
        path: tenants.yaml.
        entry: the tenant's keys, as in the file.

    Returns:
        Whether the file has changed.

    Raises:
        ConfigurationError: the file is not valid as it is now, or cannot be written; the entry is wrong; its id or its
            place is another tenant's. The file is as it was.
    """
    return register_all(path, [entry]) > 0


def register_all(path: Path, entries: Sequence[Mapping[str, object]]) -> int:
    """Put tenants into the file in one write: all of them, or none; see :func:`register`.

    Returns:
        How many were not there before.
    """
    count = 0

    def edit(text: str) -> str:
        nonlocal count
        now = _File.read(text, path)
        given = _resolved(now, entries)
        new = _unknown(now, given)
        count = len(new)
        if not new:
            return text
        servers = {**now.fleet.servers, **{server.name: server for _, _, server in new if server is not None}}
        tenants = (*now.fleet.tenants, *(tenant for _, tenant, _ in new))
        expected = replace(now.fleet, tenants=tenants, servers=servers)
        _refuse_clashes(now, expected)
        edited = TenantList(text).with_entries([written(entry) for entry, _, _ in new])
        _require(now, edited, expected, f"add {shown(new[0][0])}")
        return edited

    _change(path, edit)
    return count


def unregister(path: Path, tenant_id: str) -> bool:
    """Take a tenant out of ``tenants:``, with its comment on the same line; nothing to do where it is not there.

    Takes out of the file what :func:`register` has put in, to the byte. Blocks: call it in a thread from async code.

    Args:
        path: tenants.yaml.
        tenant_id: whom.

    Returns:
        Whether the file has changed: ``False`` where the tenant is not in it.

    Raises:
        ConfigurationError: the file is not valid as it is now, or cannot be written; it is as it was.
    """

    def edit(text: str) -> str:
        now = _File.read(text, path)
        ids = [tenant.id for tenant in now.fleet.tenants]
        if tenant_id not in ids:
            return text
        number = ids.index(tenant_id)
        edited = TenantList(text).without(number)
        gone = now.fleet.tenants[number]
        tenants = tuple(tenant for tenant in now.fleet.tenants if tenant is not gone)
        own = now.fleet.servers[gone.server].own
        servers = {name: server for name, server in now.fleet.servers.items() if not (own and name == gone.server)}
        _require(now, edited, replace(now.fleet, tenants=tenants, servers=servers), f"take {written(tenant_id)} out")
        return edited

    return _change(path, edit)


@dataclass(frozen=True, slots=True)
class _File:
    """What tenants.yaml says now."""

    path: Path
    document: Document
    fleet: Fleet

    @classmethod
    def read(cls, text: str, path: Path) -> _File:
        document = document_of(text, str(path))
        return cls(path, document, fleet_of(document, path, may_be_empty=True))

    def line_of(self, number: int) -> int:
        return self.document.place(("tenants", number))[0]


#: An entry, the tenant that it means, and the server that the tenant has for itself.
_Given = tuple[Mapping[str, object], Tenant, Server | None]


def _change(path: Path, edit: Callable[[str], str]) -> bool:
    def edit_bytes(data: bytes) -> bytes:
        mark = BOM_UTF8 if data.startswith(BOM_UTF8) else b""
        with collector_paused():
            edited = edit(text_of(data, str(path)))
        return mark + edited.encode()

    return change(path, edit_bytes)


def _resolved(now: _File, entries: Sequence[Mapping[str, object]]) -> list[_Given]:
    """What the entries mean in this fleet."""
    report = Report(None)
    try:
        models = _ENTRIES.validate_python([dict(entry) for entry in entries])
    except ValidationError as error:
        for problem in problems_of(error, prefix=("tenants",)):
            number = problem.path[1] if len(problem.path) > 1 else 0
            _note(report, int(number), entries[int(number)].get("id"), problem.message, problem.hint)
        report.raise_if_any("correct the entry")
    declared = {name: server for name, server in now.fleet.servers.items() if not server.own}
    resolver = Resolver(declared, now.fleet.defaults)
    given: list[_Given] = []
    for number, (entry, model) in enumerate(zip(entries, models, strict=True)):
        try:
            tenant = resolver.tenant(model)
        except Refused as refused:
            _note(report, number, model.id, refused.problem.message, refused.problem.hint)
            continue
        if tenant is None:
            _note(report, number, model.id, f"unknown server `{model.server or now.fleet.defaults.server}`", None)
            continue
        given.append((entry, tenant, resolver.own.get(tenant.server)))
    report.raise_if_any("correct the entry")
    return given


def _note(report: Report, number: int, tenant_id: Any, message: str, hint: str | None) -> None:
    name = f"tenant `{tenant_id}`" if isinstance(tenant_id, str) else f"entry {number + 1}"
    report.found.append(Located(number, 0, f"{name}: {message}", hint))


def _unknown(now: _File, given: list[_Given]) -> list[_Given]:
    """Those that are not in the file.

    Raises:
        ConfigurationError: one is, and is another tenant there.
    """
    known = {tenant.id: (number, tenant) for number, tenant in enumerate(now.fleet.tenants)}
    new: list[_Given] = []
    for entry, tenant, server in given:
        if tenant.id not in known:
            new.append((entry, tenant, server))
            continue
        number, there = known[tenant.id]
        if there != tenant or (server is not None and server != now.fleet.servers[there.server]):
            raise ConfigurationError(
                f"tenant `{tenant.id}` is here already, and not as {shown(entry)}",
                file=str(now.path),
                line=now.line_of(number),
                hint="give the new one another id, or edit this line",
            )
    return new


def _refuse_clashes(now: _File, expected: Fleet) -> None:
    tenants = expected.tenants
    for number, first, problem in clashes(tenants, expected.servers):
        there = first < len(now.fleet.tenants)
        raise ConfigurationError(
            f"tenant `{tenants[number].id}` cannot be registered: {problem.message} (`{tenants[first].id}`)",
            file=str(now.path),
            line=now.line_of(first) if there else None,
            hint=problem.hint,
        )


def shown(entry: Mapping[str, object]) -> str:
    """An entry for people: an address may hold a password."""
    return mask(written({key: "..." if key == "url" else value for key, value in entry.items()}))


def _require(now: _File, edited: str, expected: Fleet, by_hand: str) -> None:
    """Make sure that ``edited`` declares the expected fleet, and nothing else."""
    why = "the file is written in a way that this program cannot edit without changing more than that"
    try:
        found = _File.read(edited, now.path).fleet
    except ConfigurationError as error:
        found, why = now.fleet, f"{why} ({error.message})"
    if found != expected:
        hint = f"edit it by hand: {by_hand}"
        raise ConfigurationError(f"not changed: {why}", file=str(now.path), hint=hint)
