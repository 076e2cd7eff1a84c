"""Secrets: ``${...}`` in an address, read anew whenever the address is used, and masked wherever text is shown."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from orchestrator.errors import ConfigurationError
from orchestrator.fleet.masking import MASK, mask, remember

__all__ = ["Template", "mask"]

#: Seconds a ``${cmd:...}`` may take: a cloud's command line tool needs a few, one that asks for a password never ends.
COMMAND_TIMEOUT = 30.0

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
#: Where secrets stand in an address: before the last @ of the part in front of the path, and after password=.
_USERINFO = re.compile(r"(://)([^/?#]*)(?=@)")
_PASSWORD = re.compile(r"(?i)([?&](?:ssl)?password=)([^&]*)")
_NEEDS_ENCODING = re.compile(r"[^A-Za-z0-9\-._~!$'()*,;=:%]|%(?![0-9A-Fa-f]{2})")
_SYNTAX_HINT = "write ${NAME}, ${NAME:-default}, ${file:path} or ${cmd:command line}, and $$ for a dollar sign"


@dataclass(frozen=True, slots=True)
class _Literal:
    text: str


@dataclass(frozen=True, slots=True)
class _Variable:
    name: str
    #: A template itself; ``None`` when there is no ``:-``.
    default: str | None


@dataclass(frozen=True, slots=True)
class _File:
    path: str


@dataclass(frozen=True, slots=True)
class _Command:
    line: str


_Piece = _Literal | _Variable | _File | _Command


@dataclass(frozen=True, slots=True, repr=False)
class Template:
    """Text with secrets still unread: ``postgresql://app:${file:/run/secrets/pg}@db1/app``.

    ``${NAME}`` is an environment variable, ``${NAME:-default}`` one with a value for when it is unset or empty,
    ``${file:path}`` a file's text without the line break at its end, ``${cmd:command line}`` what a shell command
    prints. ``$$`` is a dollar sign. A value that stands in the user or password part of a URL is percent-encoded when
    it has a character that cannot stand there, so that files hold passwords as they are; one already encoded stays as
    it is.

    Args:
        text: the text as it stands in tenants.yaml.
        root: directory that ``${file:}`` paths are relative to and ``${cmd:}`` runs in.

    Raises:
        ConfigurationError: a ``${`` that is none of these.
    """

    text: str
    root: Path

    def __post_init__(self) -> None:
        for piece in _pieces(self.text):
            if isinstance(piece, _Variable) and piece.default is not None:
                Template(piece.default, self.root)

    def resolve(self) -> str:
        """Read every secret now and return the text with them put in.

        Blocks while a file is read or a command runs (up to 30 seconds): call it in a thread from async code.

        Raises:
            ConfigurationError: a variable is unset, a file cannot be read, a command fails or prints nothing.
        """
        return self._put_in(partial=False)

    def from_environment(self) -> str:
        """The text with only set variables and defaults put in; files and commands stay as they are written.

        For deciding what an address is (its dialect, whether it is empty, whether two are the same) before any secret
        is needed. What it returns may hold secrets: never show it.
        """
        return self._put_in(partial=True)

    @property
    def is_partly_unread(self) -> bool:
        """Whether :meth:`from_environment` leaves something for :meth:`resolve` to put in."""
        return any(
            isinstance(piece, _File | _Command)
            or (isinstance(piece, _Variable) and piece.default is None and piece.name not in os.environ)
            for piece in _pieces(self.text)
        )

    def __str__(self) -> str:
        shown = "".join(_show(piece) for piece in _pieces(self.text))
        scheme, separator, rest = shown.partition("://")
        where, mark, query = rest.partition("?")
        # Up to the last @: a password that should have been encoded and is not must not show either.
        userinfo, at, place = where.rpartition("@")
        user, colon, _ = userinfo.partition(":")
        shown = f"{scheme}{separator}{user}{colon and f':{MASK}'}{at}{place}{mark}{query}"
        return mask(_PASSWORD.sub(rf"\1{MASK}", shown))

    def __repr__(self) -> str:
        return f"Template({str(self)!r})"

    def _put_in(self, *, partial: bool) -> str:
        pieces = list(_pieces(self.text))
        # A literal's own text decides where the URL's parts are; what is put in must not move them.
        skeleton = "".join(piece.text if isinstance(piece, _Literal) else "\0" for piece in pieces)
        secret_spans = [found.span(2) for pattern in (_USERINFO, _PASSWORD) for found in pattern.finditer(skeleton)]
        out: list[str] = []
        at = 0
        for piece in pieces:
            if isinstance(piece, _Literal):
                out.append(piece.text)
                at += len(piece.text)
                continue
            value = self._read(piece, partial=partial)
            span = next((span for span in secret_spans if span[0] <= at < span[1]), None)
            at += 1
            if value is None:
                out.append(_source(piece))
                continue
            if not isinstance(piece, _Variable) or span is not None:
                remember(value)
            out.append(value if span is None else _encoded(value, colon_ends_it=":" not in skeleton[span[0] : at - 1]))
        text = "".join(out)
        for pattern in (_USERINFO, _PASSWORD):
            for found in pattern.finditer(text):
                remember(found[2].partition(":")[2] if pattern is _USERINFO else found[2])
        return text

    def _read(self, piece: _Variable | _File | _Command, *, partial: bool) -> str | None:
        if isinstance(piece, _Variable):
            value = os.environ.get(piece.name)
            if piece.default is not None:
                return value or Template(piece.default, self.root)._put_in(partial=partial)
            if value is None and not partial:
                raise ConfigurationError(
                    f"the environment variable {piece.name} is not set",
                    hint=f"export {piece.name}=..., or write ${{{piece.name}:-default}}",
                )
            return value
        if partial:
            return None
        return _read_file(self.root / piece.path) if isinstance(piece, _File) else _run(piece.line, self.root)


def _pieces(text: str) -> Iterator[_Piece]:
    at = 0
    while (dollar := text.find("$", at)) >= 0:
        if dollar > at:
            yield _Literal(text[at:dollar])
        following = text[dollar + 1 : dollar + 2]
        if following == "{":
            end = _closing(text, dollar + 2)
            yield _piece(text[dollar + 2 : end])
            at = end + 1
        else:
            yield _Literal("$")
            at = dollar + (2 if following == "$" else 1)
    if at < len(text):
        yield _Literal(text[at:])


def _closing(text: str, start: int) -> int:
    """Where the brace that was opened before ``start`` closes; braces inside (a command's JSON) are counted."""
    depth = 1
    for at in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[at], 0)
        if depth == 0:
            return at
    raise ConfigurationError("a `${` is not closed", hint=_SYNTAX_HINT)


def _piece(inside: str) -> _Piece:
    kind, colon, rest = inside.partition(":")
    if colon and kind == "file" and not rest.startswith("-") and rest:
        return _File(rest)
    if colon and kind == "cmd" and not rest.startswith("-") and rest.strip():
        return _Command(rest.strip())
    if _NAME.fullmatch(kind) and (not colon or rest.startswith("-")):
        return _Variable(kind, rest[1:] if colon else None)
    message = f"`${{{kind}{':...' if colon else ''}}}` is no kind of secret that this program knows"
    raise ConfigurationError(message, hint=_SYNTAX_HINT)


def _source(piece: _Variable | _File | _Command) -> str:
    if isinstance(piece, _Variable):
        return f"${{{piece.name}}}"
    return f"${{file:{piece.path}}}" if isinstance(piece, _File) else f"${{cmd:{piece.line}}}"


def _show(piece: _Piece) -> str:
    if isinstance(piece, _Literal):
        return piece.text
    if isinstance(piece, _Command):  # its arguments may be secrets themselves
        return f"${{cmd:{piece.line.split()[0]}...}}"
    return _source(piece)


def _encoded(value: str, *, colon_ends_it: bool) -> str:
    """``value`` as it may stand in a URL; ``user:password`` in one variable keeps its colon."""
    if not _NEEDS_ENCODING.search(value):
        return value
    return quote(value, safe=":" if colon_ends_it else "")


def _read_file(path: Path) -> str:
    try:
        value = path.read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        hint = f"put the secret into {path}, readable for this user"
        raise ConfigurationError(f"the secret file {path} cannot be read: {reason}", hint=hint) from None
    if not value:
        raise ConfigurationError(f"the secret file {path} is empty", hint=f"put the secret into {path}")
    return value


def _run(line: str, root: Path) -> str:
    command = f"the secret command `{line.split()[0]}`"
    by_hand = "run it by hand to see why: what it prints is not shown here, it may hold secrets"
    try:
        # A shell, since command lines have pipes; tenants.yaml is as trusted as the migrations beside it.
        done = subprocess.run(
            line,
            shell=True,
            cwd=root,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=COMMAND_TIMEOUT,
            check=False,
        )
        value = done.stdout.decode().rstrip("\r\n")
    except subprocess.TimeoutExpired:
        raise ConfigurationError(f"{command} took over {COMMAND_TIMEOUT:.0f} s", hint=by_hand) from None
    except (OSError, ValueError):
        raise ConfigurationError(f"{command} cannot be run or prints no text", hint=by_hand) from None
    if done.returncode != 0:
        raise ConfigurationError(f"{command} failed with exit code {done.returncode}", hint=by_hand)
    if not value:
        raise ConfigurationError(f"{command} printed nothing", hint=by_hand)
    return value
