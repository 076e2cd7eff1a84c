"""libpq's TLS parameters as asyncpg's ``ssl`` argument."""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from pathlib import Path

from orchestrator.errors import ConfigurationError

_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_TRUE = {"true": "require", "false": "disable"}


def tls_argument(given: Mapping[str, str]) -> str | ssl.SSLContext:
    """Make asyncpg's ``ssl`` argument.

    A mode alone is passed on by its name, since only asyncpg can fall back to plain text as ``prefer`` and ``allow``
    ask. With certificate files it is an SSLContext: asyncpg reads files from its own DSN and environment only.

    Args:
        given: ``sslmode`` (or asyncpg's ``ssl``) and ``sslrootcert``, ``sslcert``, ``sslkey``, ``sslpassword``,
            ``sslcrl``.

    Raises:
        ConfigurationError: an unknown mode, a file that cannot be used, or parts that do not fit each other.
    """
    mode = _mode(given)
    files = {name: value for name, value in given.items() if name not in ("ssl", "sslmode")}
    if mode == "disable":
        return mode
    if not files:
        if mode.startswith("verify"):
            _require_root_certificate(mode)
        return mode
    if mode in ("allow", "prefer"):
        raise ConfigurationError(
            f"sslmode={mode} may fall back to plain text, which the URL's `{next(iter(files))}` cannot prevent",
            hint="write sslmode=verify-full (or require) beside it",
        )
    return _context(mode, files)


def _mode(given: Mapping[str, str]) -> str:
    mode = given.get("sslmode", _TRUE.get(given.get("ssl", ""), given.get("ssl", "prefer")))
    if mode not in _MODES:
        raise ConfigurationError("the URL's `sslmode` is unknown", hint=f"one of: {', '.join(_MODES)}")
    return mode


def _require_root_certificate(mode: str) -> None:
    # Where asyncpg looks: as libpq, in PGSSLROOTCERT and then in the home directory.
    if not os.environ.get("PGSSLROOTCERT") and not Path("~/.postgresql/root.crt").expanduser().exists():
        raise ConfigurationError(
            f"sslmode={mode} needs a root certificate", hint="add sslrootcert=/path/to/ca.pem, or sslrootcert=system"
        )


def _context(mode: str, files: Mapping[str, str]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    root = files.get("sslrootcert")
    if root == "system" and mode != "verify-full":
        raise ConfigurationError("sslrootcert=system is only safe with verify-full", hint="write sslmode=verify-full")
    context.check_hostname = mode == "verify-full"
    # As in libpq, a root certificate that is given is used with `require` too.
    if mode == "require" and root is None:
        context.verify_mode = ssl.CERT_NONE
    elif root is None:
        _require_root_certificate(mode)
        root = os.environ.get("PGSSLROOTCERT") or str(Path("~/.postgresql/root.crt").expanduser())
    try:
        if root == "system":
            context.load_default_certs()
        elif root is not None:
            context.load_verify_locations(cafile=root)
        if "sslcrl" in files:
            context.load_verify_locations(cafile=files["sslcrl"])
            context.verify_flags |= ssl.VERIFY_CRL_CHECK_CHAIN
        if "sslcert" in files:
            # Without a password OpenSSL would ask for one on the terminal.
            context.load_cert_chain(files["sslcert"], files.get("sslkey"), files.get("sslpassword", ""))
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "it holds no certificate"
        names = ", ".join(name for name in ("sslrootcert", "sslcert", "sslkey", "sslcrl") if name in files)
        raise ConfigurationError(
            f"the files that the URL names ({names}) cannot be used: {reason}", hint="check the paths and their rights"
        ) from None
    return context
