"""An address for programs that connect by libpq: variables for what anybody may see, a passfile for the password.

Nothing of it stands on a command line, where every user of the machine could read it. On Linux the password is not in
the environment of the programs either.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from orchestrator.errors import ConfigurationError
from orchestrator.fleet import urls

#: libpq's parameters, and the variables that stand for them ("Environment Variables" in PostgreSQL's manual, libpq).
_VARIABLES: Mapping[str, str] = {
    "host": "PGHOST",
    "hostaddr": "PGHOSTADDR",
    "port": "PGPORT",
    "dbname": "PGDATABASE",
    "user": "PGUSER",
    "passfile": "PGPASSFILE",
    "options": "PGOPTIONS",
    "sslmode": "PGSSLMODE",
    "sslrootcert": "PGSSLROOTCERT",
    "sslcert": "PGSSLCERT",
    "sslkey": "PGSSLKEY",
    "sslcrl": "PGSSLCRL",
    "sslnegotiation": "PGSSLNEGOTIATION",
    "krbsrvname": "PGKRBSRVNAME",
    "gssencmode": "PGGSSENCMODE",
    "channel_binding": "PGCHANNELBINDING",
    "connect_timeout": "PGCONNECT_TIMEOUT",
    "target_session_attrs": "PGTARGETSESSIONATTRS",
}
#: asyncpg's word for a parameter of libpq's, and its words for libpq's modes.
_SSL = {"true": "require", "false": "disable"}
#: Where asyncpg looks where the address names no host. The programs' own idea of it depends on who has built them.
_USUAL_PLACES = "/run/postgresql,/var/run/postgresql,/var/pgsql_socket,/private/tmp,/tmp,localhost"
#: Variables that libpq heeds and asyncpg does not: the programs are to come to the same server as the migrations.
_NOT_OURS = frozenset({"PGOPTIONS", "PGSERVICE", "PGSERVICEFILE", "PGHOSTADDR", "PGAPPNAME", "PGCLIENTENCODING"})


@dataclass(frozen=True, slots=True)
class Login:
    """How a program of PostgreSQL's comes into a database."""

    #: Variables to set over the inherited ones.
    variables: Mapping[str, str]
    #: ``None`` where the program finds one as the driver does, or needs none.
    password: str | None = field(default=None, repr=False)

    @contextmanager
    def environment(self) -> Iterator[tuple[dict[str, str], tuple[int, ...]]]:
        """The environment to run a program with, and the file descriptors that it has to inherit."""
        inherited = {name: value for name, value in os.environ.items() if name not in _NOT_OURS}
        environment = {**inherited, **self.variables}
        if self.password is None:
            yield environment, ()
            return
        if not hasattr(os, "memfd_create"):
            yield {**environment, "PGPASSWORD": self.password}, ()
            return
        environment.pop("PGPASSWORD", None)
        # A file without a name: a process that is killed leaves nothing behind.
        descriptor = os.memfd_create("passfile")
        try:
            os.fchmod(descriptor, 0o600)
            os.write(descriptor, f"*:*:*:*:{_escaped(self.password)}\n".encode())
            yield {**environment, "PGPASSFILE": f"/proc/self/fd/{descriptor}"}, (descriptor,)
        finally:
            os.close(descriptor)


def parameters(url: str) -> dict[str, str]:
    """What the address ``url`` comes to, by libpq's names; the password included where it has one.

    Args:
        url: with its secrets put in, as :func:`~orchestrator.databases.address.parse` takes it.
    """
    parts = urls.split(url)
    query = dict(parts.query)
    if mode := query.pop("ssl", None):
        query.setdefault("sslmode", _SSL.get(mode, mode))
    if wait := query.pop("timeout", None):
        query.setdefault("connect_timeout", str(max(1, round(float(wait)))))
    hosts = ",".join(host for host, _ in parts.hosts)
    ports = ",".join("" if port is None else str(port) for _, port in parts.hosts)
    given = {
        "host": hosts or None,
        "port": ports.strip(",") and ports,
        "user": parts.user,
        "dbname": parts.database,
        "password": parts.password,
        **query,
    }
    return {name: value for name, value in given.items() if value}


def arguments(url: str) -> dict[str, str]:
    """The same without what is asyncpg's alone, for a driver that is made on libpq."""
    given = parameters(url)
    known = {name: value for name, value in given.items() if name in _VARIABLES or name in ("password", "sslpassword")}
    if not {"host", "hostaddr"} & known.keys() and "PGHOST" not in os.environ:
        known["host"] = _USUAL_PLACES
    return known


def login(url: str, database: str | None, application: str, encoding: str | None = "UTF8") -> Login:
    """What the address ``url`` comes to for libpq's programs.

    Args:
        url: with its secrets put in, as :func:`~orchestrator.databases.address.parse` takes it.
        database: in place of the address's own; ``None`` for that.
        application: how the connection names itself to the server.
        encoding: of what the program writes and reads; ``None`` for the database's own.

    Raises:
        ConfigurationError: a parameter cannot be handed on.
    """
    given = parameters(url)
    if "sslpassword" in given:
        raise ConfigurationError(
            "the URL's `sslpassword` cannot be handed to pg_dump", hint="use a key without a password for backups"
        )
    if database is not None:
        given["dbname"] = database
    variables = {variable: value for name, variable in _VARIABLES.items() if (value := given.get(name))}
    if not {"PGHOST", "PGHOSTADDR"} & variables.keys() and "PGHOST" not in os.environ:
        variables["PGHOST"] = _USUAL_PLACES
    if encoding is not None:
        variables["PGCLIENTENCODING"] = encoding
    variables["PGAPPNAME"] = application.encode()[:63].decode(errors="ignore")
    return Login(variables, given.get("password"))


def _escaped(password: str) -> str:
    return password.replace("\\", "\\\\").replace(":", "\\:")
