"""What a tenant's keys mean: its server, its isolation, and the schema, database or file that follows from them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pydantic_core import PydanticCustomError

from orchestrator.errors import ConfigurationError
from orchestrator.fleet import urls
from orchestrator.fleet.kinds import database_name, schema_name
from orchestrator.fleet.problems import Problem, suggestion
from orchestrator.fleet.schema import PolicyEntry, ServerEntry, TenantEntry
from orchestrator.fleet.secrets import Template
from orchestrator.fleet.sources import Defaults
from orchestrator.fleet.tenant import Isolation, Limits, Server, Tenant

_NO_LIMITS = Limits()


class Refused(Exception):
    """An entry cannot become a tenant; carries the problem, whose path starts at the entry."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem


@dataclass(slots=True)
class Resolver:
    """Makes tenants of entries, and servers of entries with a ``url`` of their own."""

    #: Servers that tenants may name.
    servers: Mapping[str, Server]
    defaults: Defaults
    #: Addresses in entries may hold ``${...}``: right for a file, never for rows, which would run commands for whoever
    #: can write the table.
    expand: bool = True
    #: Names of servers that are declared but are wrong themselves: no second complaint about them.
    broken: frozenset[str] = frozenset()
    #: Servers made for entries with a ``url``, by name.
    own: dict[str, Server] = field(default_factory=dict)
    _places: dict[str, _Place] = field(default_factory=dict)

    def tenant(self, entry: TenantEntry) -> Tenant | None:
        """Make a tenant; ``None`` when its server is one of the broken ones.

        Raises:
            Refused: the entry's keys do not fit each other or the fleet.
        """
        if entry.until is not None and entry.pin is None:
            raise Refused(Problem(("until",), "`until` ends a pin, and there is none", "add `pin: <revision>`"))
        server = self._server(entry)
        if server is None:
            return None
        place = self._place(server)
        isolation = self._isolation(entry, place)
        schema, database, file = entry.schema_, entry.database, None
        if isolation is Isolation.FILE:
            schema, database, file = None, None, self._file(entry, place)
        elif isolation is Isolation.SCHEMA:
            schema = schema or self._name_from_id(entry, "schema")
        elif entry.url is None:
            database = database or self._name_from_id(entry, "database")
        return Tenant(
            entry.id,
            server.name,
            isolation,
            schema,
            database,
            file,
            self.defaults.tags if entry.tags is None else entry.tags,
            entry.target or self.defaults.target,
            entry.pin,
            entry.reason,
            entry.until,
            limits_of(entry),
        )

    def _server(self, entry: TenantEntry) -> Server | None:
        if entry.url is not None:
            return self._own_server(entry, entry.url)
        name = entry.server or self.defaults.server
        if name is None and len(self.servers) == 1 and not self.broken:
            return next(iter(self.servers.values()))
        if name is None:
            if self.broken:
                return None
            hint = "add `server:` to it, or `defaults: {server: NAME}`"
            raise Refused(Problem((), f"tenant `{entry.id}` is on no server", hint))
        if name in self.servers:
            return self.servers[name]
        if name in self.broken or (entry.server is None and name == self.defaults.server):
            return None  # an unknown default server is told where it stands
        raise Refused(Problem(("server",), f"unknown server `{name}`", suggestion(name, [*self.servers, *self.broken])))

    def _own_server(self, entry: TenantEntry, url: str) -> Server:
        if entry.server is not None:
            message = "a tenant with a `url` is on a server of its own"
            raise Refused(Problem(("server",), message, "keep one of `server` and `url`"))
        if entry.id in self.servers or entry.id in self.broken:
            message = (
                f"the server of its own that tenant `{entry.id}` gets by its `url` is named like a declared server"
            )
            raise Refused(Problem(("url",), message, "rename one of them, or write `server:` in place of `url:`"))
        text = url if self.expand else url.replace("$", "$$")
        server = Server(name=entry.id, url=template_at(("url",), text, self.defaults.root), own=True)
        self.own.setdefault(server.name, server)
        return server

    def _place(self, server: Server) -> _Place:
        if server.name in self.own:
            return _read_place(server.url)
        place = self._places.get(server.name)
        if place is None:
            place = self._places[server.name] = _read_place(server.url)
        return place

    def _isolation(self, entry: TenantEntry, place: _Place) -> Isolation:
        is_sqlite = place.dialect == urls.SQLITE
        given = entry.isolation
        if given is None and entry.file is not None:
            given = Isolation.FILE
        if given is None and is_sqlite:
            return _refuse_foreign_keys(entry, Isolation.FILE)
        if given is None and entry.url is not None:
            return _refuse_foreign_keys(entry, Isolation.DATABASE)
        isolation = given or self.defaults.isolation or Isolation.SCHEMA
        if (isolation is Isolation.FILE) != is_sqlite and place.dialect is not None:
            what = "SQLite" if is_sqlite else "PostgreSQL"
            hint = "write `isolation: file`" if is_sqlite else "write `isolation: schema` or `isolation: database`"
            key = "isolation" if entry.isolation is not None else "file"
            raise Refused(Problem((key,), f"a tenant on a {what} server cannot have isolation {isolation}", hint))
        return _refuse_foreign_keys(entry, isolation)

    @staticmethod
    def _name_from_id(entry: TenantEntry, key: str) -> str:
        try:
            return schema_name(entry.id) if key == "schema" else database_name(entry.id)
        except PydanticCustomError as error:
            message = f"the {key}, by default the id: {error.message()}"
            raise Refused(Problem(("id",), message, f"give it a `{key}:` of its own")) from None

    def _file(self, entry: TenantEntry, place: _Place) -> str:
        if entry.url is not None and entry.file is not None:
            raise Refused(Problem(("file",), "the `url` names the file already", "keep one of `file` and `url`"))
        if place.path is None:
            path = ("url",) if entry.url else ("server",)
            raise Refused(Problem(path, "its SQLite address names no file or directory", "write sqlite:///path"))
        if entry.url is not None:
            file = place.path
        elif entry.file is not None:
            file = entry.file
        else:
            if entry.id.startswith(".") or "/" in entry.id or "\\" in entry.id:
                message = f"the id `{entry.id}` cannot be a file's name"
                raise Refused(Problem(("id",), message, "give it a `file:` of its own"))
            file = f"{place.path}/{entry.id}.db"
        # normpath and not resolve(): nothing is looked up, so ten thousand tenants cost no IO.
        return os.path.normpath(self.defaults.root.absolute() / file)


@dataclass(frozen=True, slots=True)
class _Place:
    """What of a server's address is known without its secrets."""

    #: ``None`` when not even that can be told.
    dialect: str | None
    #: SQLite's file or directory.
    path: str | None = None


def _read_place(url: Template) -> _Place:
    dialect = urls.dialect_of(url.from_environment())
    if dialect != urls.SQLITE:
        return _Place(dialect)
    try:
        return _Place(dialect, urls.split(url.resolve()).database)
    except ConfigurationError as error:
        raise Refused(Problem(("server",), error.message, error.hint)) from None


def limits_of(entry: ServerEntry | TenantEntry | PolicyEntry) -> Limits:
    """The timeouts that an entry declares."""
    own = entry.lock_timeout, entry.statement_timeout, entry.idle_in_transaction_timeout
    # Nearly all tenants have none of their own.
    return _NO_LIMITS if own == (None, None, None) else Limits(*own)


def template_at(path: tuple[str | int, ...], text: str, root: Path) -> Template:
    """A template whose syntax errors are told at ``path``.

    Raises:
        Refused: the text has a ``${`` that is no secret.
    """
    try:
        return Template(text, root)
    except ConfigurationError as error:
        raise Refused(Problem(path, error.message, error.hint)) from None


def _refuse_foreign_keys(entry: TenantEntry, isolation: Isolation) -> Isolation:
    if entry.schema_ is None and entry.database is None and entry.file is None:
        return isolation
    foreign = ("schema", "database") if isolation is Isolation.FILE else ("file",)
    given = {"schema": entry.schema_, "database": entry.database, "file": entry.file}
    for key in foreign:
        if given[key] is not None:
            raise Refused(Problem((key,), f"`{key}` has no meaning with isolation {isolation}", "take it out"))
    return isolation
