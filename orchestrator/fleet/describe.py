"""Pydantic's errors in the words of whoever wrote the file."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from orchestrator.fleet.document import kind_of
from orchestrator.fleet.hooks import Moment
from orchestrator.fleet.ignoring import ObjectKind
from orchestrator.fleet.problems import Path, Problem, suggestion
from orchestrator.fleet.schema import (
    SOURCE_KINDS,
    CheckEntry,
    DefaultsEntry,
    DriftEntry,
    FleetEntry,
    HookEntry,
    HooksEntry,
    IgnoreEntry,
    PolicyEntry,
    SelectEntry,
    ServerEntry,
    TenantEntry,
    WaveEntry,
)
from orchestrator.fleet.tenant import Isolation
from orchestrator.fleet.waves import Approval, OnFailure, Order

#: What a path to a mapping looks like, to the keys that may stand there; ``*`` is any name or position.
_MODELS: dict[Path, type[BaseModel]] = {
    (): FleetEntry,
    ("servers", "*"): ServerEntry,
    ("defaults",): DefaultsEntry,
    ("tenants", "*"): TenantEntry,
    ("policy",): PolicyEntry,
    ("hooks",): HooksEntry,
    **{("hooks", moment.value, "*"): HookEntry for moment in Moment},
    ("drift",): DriftEntry,
    ("drift", "ignore", "*"): IgnoreEntry,
    ("waves", "*"): WaveEntry,
    ("waves", "*", "select"): SelectEntry,
    ("waves", "*", "verify", "*"): CheckEntry,
    **{("sources", "*", f"<{kind}>"): model for kind, model in SOURCE_KINDS.items()},
}
_COLLECTIONS = frozenset({"servers", "tenants", "sources", "waves"})
#: Keys that take one word of a few.
_WORDS: dict[str, type[StrEnum]] = {
    "isolation": Isolation,
    "order": Order,
    "approve": Approval,
    "on_failure": OnFailure,
    "kind": ObjectKind,
}


def problems_of(
    error: ValidationError, written: Callable[[Path], str | None] | None = None, *, prefix: Path = ()
) -> list[Problem]:
    """What pydantic found, a problem each.

    Args:
        error: of validating :class:`FleetEntry` or, with ``prefix``, a part of it.
        written: what stands in the file at a path, where YAML did not read it as text; ``None`` when there is no file.
        prefix: path of the part that was validated.
    """
    return [_problem(details, (*prefix, *details["loc"]), written) for details in error.errors(include_url=False)]


def _problem(details: ErrorDetails, full: Path, written: Callable[[Path], str | None] | None) -> Problem:
    path = tuple(step for step in full if not (isinstance(step, str) and step.startswith("<") and step.endswith(">")))
    key, kind, value = path[-1] if path else "", details["type"], details["input"]
    if kind == "extra_forbidden":
        return _unknown_key(path, full[:-1])
    if kind == "missing":
        return Problem(path[:-1], f"`{key}` is missing", f"add `{key}:`")
    if kind == "union_tag_not_found":
        return Problem(path, f"a source needs exactly one of {', '.join(SOURCE_KINDS)}")
    if kind == "wrong":
        context = details.get("ctx", {})
        return Problem(path, f"{_subject(path)}{context['message']}", context["hint"])
    if kind in ("not_text", "string_type"):
        return _not_text(path, value, written)
    if kind == "enum":
        known = [member.value for member in _WORDS[str(key)]]
        return Problem(path, f"`{value}` is no {key}", suggestion(str(value), known) or f"one of: {', '.join(known)}")
    wanted = {
        "model_type": "must be a mapping of keys",
        "model_attributes_type": "must be a mapping of keys",
        "dict_type": "must be a mapping of names",
        "list_type": "must be a list",
        "tuple_type": "must be a list",
        "int_type": "must be a whole number",
        "greater_than_equal": f"must be {details.get('ctx', {}).get('ge')} or more",
    }.get(kind, details["msg"])
    is_plain = isinstance(value, str | int | float)
    return Problem(path, f"{_subject(path)}{wanted}, not {f'`{value}`' if is_plain else kind_of(value)}")


def _unknown_key(path: Path, around: Path) -> Problem:
    key = str(path[-1])
    generic = tuple("*" if isinstance(step, int) else step for step in around)
    if generic[1:] and generic[0] in _COLLECTIONS:
        generic = (generic[0], "*", *generic[2:])
    model = _MODELS.get(generic)
    known = [field.alias or name for name, field in model.model_fields.items()] if model else []
    return Problem(path, f"unknown key `{key}`", suggestion(key, known) or f"one of: {', '.join(known)}", at_key=True)


def _not_text(path: Path, value: Any, written: Callable[[Path], str | None] | None) -> Problem:
    subject = _subject(path)
    if isinstance(value, list | dict | tuple):
        return Problem(path, f"{subject}must be text, not {kind_of(value)}")
    if written is None:
        column = next((step for step in reversed(path) if isinstance(step, str)), "id")
        hint = f"turn it into text at the source: CAST({column} AS text)"
        return Problem(path, f"{subject}must be text, not {type(value).__name__}", hint)
    raw = written(path)
    if not raw:
        return Problem(path, f"{subject}has no value", "write one, or take the key out")
    return Problem(path, f"{subject}`{raw}` is read by YAML as {kind_of(value)}", f'quote it: "{raw}"')


def _subject(path: Path) -> str:
    """The key at fault, for a message to start with; an entry of a list is named by the list's key."""
    keys = [step for step in path if isinstance(step, str)]
    return f"{keys[-1]}: " if keys else ""
