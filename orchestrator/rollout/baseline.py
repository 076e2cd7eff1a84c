"""Differences that somebody has looked at and found normal, kept in a file."""

from __future__ import annotations

import json
import shlex
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from orchestrator.errors import UsageError
from orchestrator.fleet.ignoring import IgnoreRule
from orchestrator.rollout.drift import DriftReport, spelled_json
from orchestrator.rollout.saved_plan import save

#: Of the file; another one is not read.
_FORMAT = 1


def save_baseline(report: DriftReport, file: Path) -> None:
    """Keep every difference of ``report``, also those that an earlier baseline has accepted.

    Raises:
        UsageError: the file cannot be written.
    """
    different = [shape for shape in report.shapes if shape.difference]
    accepted = {
        spelled_json(changes): {
            "tenants": len(shape.tenants),
            "example": shape.tenants[0],
            "difference": shape.told,
            "changes": changes,
        }
        for shape in reversed(different)
        for changes in ([change.as_json() for change in shape.difference],)
    }
    document = {"drift_baseline": _FORMAT, "reference": report.reference, "accepted": [*reversed(accepted.values())]}
    save(document, file, "--save drift.json")


def load_baseline(file: Path, reference: str, rules: Collection[IgnoreRule]) -> frozenset[str]:
    """Read what :func:`save_baseline` has written.

    Args:
        file: where.
        reference: what tenants are held against now.
        rules: what may differ now; what it covers is taken out of what was kept.

    Returns:
        Accepted differences, as :func:`~orchestrator.rollout.drift.spelled` has them.

    Raises:
        UsageError: there is no such file, it is no baseline, or it was made against another reference.
    """
    hint = f"make one: orchestrator drift --save {shlex.quote(str(file))}"
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
        if document["drift_baseline"] != _FORMAT:
            raise UsageError(f"{file} is a baseline of another version", hint=hint)
        made_against = document["reference"]
        kept = [_without_ignored(each["changes"], rules) for each in document["accepted"]]
        accepted = frozenset(spelled_json(changes) for changes in kept if changes)
    except FileNotFoundError as error:
        raise UsageError(f"there is no file {file}", hint=hint) from error
    except OSError as error:
        raise UsageError(f"cannot read {file}: {error.strerror}", hint=hint) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{file} is not a baseline that drift has saved", hint=hint) from error
    if made_against != reference:
        raise UsageError(
            f"the baseline {file} was made against {_named(made_against)}, not against {_named(reference)}", hint=hint
        )
    return accepted


def _named(reference: str) -> str:
    return "the revisions" if reference == "revisions" else f"tenant {reference}"


def _without_ignored(changes: list[Mapping[str, Any]], rules: Collection[IgnoreRule]) -> list[Mapping[str, Any]]:
    return [
        each for each in changes if not any(rule.matches(each["kind"], each["table"], each["name"]) for rule in rules)
    ]
