"""What a new tenant of a kind is made from, on disk: found out once, in scratch tenants, and used by every sign-up."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import MetaData

from orchestrator.databases.postgresql.script import Snapshot, Step

#: Counted up whenever the files' form, or how blueprints are made, changes.
FORMAT = 2
#: Files kept: the newest.
_KEPT = 50

log = logging.getLogger("orchestrator.run")


@dataclass(frozen=True, slots=True)
class Blueprint:
    """How a new tenant comes to a target, and what it looks like there."""

    #: At the target, sorted.
    heads: tuple[str, ...]
    #: What the blueprint looks like.
    shape: str
    #: What env.py configured Alembic with, as :func:`described` tells it.
    options: Mapping[str, str]
    #: Everything from base to the target as one transaction; ``None`` where that may not be replayed.
    step: Step | None = None
    #: Everything that the blueprint holds; ``None`` where that may not be copied.
    snapshot: Snapshot | None = None
    #: Name or path of a template; ``None`` where there is none.
    template: str | None = None
    #: Why a way is closed, by way.
    closed: Mapping[str, str] = field(default_factory=dict)
    #: What the key is made of, as far as it stays the same while the history grows.
    family: str = ""

    def as_json(self) -> dict[str, Any]:
        """Itself as plain values; :meth:`from_json` turns them back."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Blueprint:
        """What :meth:`as_json` wrote.

        Raises:
            KeyError, TypeError, ValueError: it is of another form.
        """
        parts: dict[str, Any] = dict(document)
        parts["heads"] = tuple(parts["heads"])
        for name, kind in (("step", Step), ("snapshot", Snapshot)):
            if parts[name] is not None:
                lists = {key: tuple(value) for key, value in parts[name].items() if isinstance(value, list)}
                parts[name] = kind(**{**parts[name], **lists})
        return cls(**parts)


@dataclass(frozen=True, slots=True)
class Blueprints:
    """The blueprints of one project; a directory that cannot be written keeps nothing."""

    directory: Path

    def load(self, key: str) -> Blueprint | None:
        """The blueprint of ``key``; missing, cut off or of another form is the same as never made."""
        try:
            return Blueprint.from_json(json.loads(self._file(key).read_bytes()))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def save(self, key: str, blueprint: Blueprint) -> None:
        """Keep a blueprint."""
        file = self._file(key)
        new = file.with_suffix(f".{os.getpid()}")
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            new.write_text(json.dumps(blueprint.as_json(), indent=1), encoding="utf-8")
            # Rows may be in it.
            new.chmod(0o600)
            new.replace(file)
            self._forget_old()
        except OSError as error:
            log.info("blueprints are not kept: %s", error)

    def _file(self, key: str) -> Path:
        return self.directory / f"{key}.json"

    def _forget_old(self) -> None:
        files = sorted(self.directory.glob("*.json"), key=lambda file: file.stat().st_mtime, reverse=True)
        for file in files[_KEPT:]:
            file.unlink(missing_ok=True)


def key_of(*parts: object) -> str:
    """16 hex digits for what a blueprint was made from."""
    return hashlib.sha256(json.dumps([FORMAT, *parts], default=str).encode()).hexdigest()[:16]


def described(options: Mapping[str, Any]) -> dict[str, str]:
    """What env.py configures Alembic with, as text that is the same in every process."""
    return {name: _described(value) for name, value in sorted(options.items())}


def _described(value: object) -> str:
    match value:
        case None | bool() | int() | float() | str():
            return repr(value)
        case MetaData():
            return f"MetaData({value.schema!r}, {_described(dict(value.naming_convention))})"
        case list() | tuple():
            return f"[{', '.join(map(_described, value))}]"
        case Mapping():
            return f"{{{', '.join(f'{key}: {_described(each)}' for key, each in value.items())}}}"
    named: Callable[..., Any] | type = value if hasattr(value, "__qualname__") else type(value)  # type: ignore[assignment]
    return f"{named.__module__}.{named.__qualname__}"
