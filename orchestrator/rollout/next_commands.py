"""What to type to go on with a run, or to do once more what it was to do."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.journal.records import EXECUTOR, AttemptRecord, RunRecord
from orchestrator.statuses import RunStatus
from orchestrator.targets import is_relative

#: A hint that was written where nobody knows the run.
_RESUME = re.compile(r"orchestrator resume(?! \d)")

#: Commands that do each tenant whole or not at all: they are typed again, not resumed.
NOT_RESUMED = ("backup", "restore", "undo", "offboard", "purge", "rehearse")
#: Commands that make what is missing, where they are told to.
_MAKING = ("upgrade", "onboard")
#: Types of errors after which something else is to be typed.
_UNPROVISIONED, _LISTED = "unprovisioned", "StillListed"
#: Tenants that a command to type names; more are in a file.
_NAMED = 20


def again_of(run: RunRecord, tenants: Sequence[str] | None = None) -> str:
    """What to type to do what a run was to do as a new one.

    Args:
        run: one that can be resumed; its options say whom it meant.
        tenants: only these, by id.
    """
    if run.command == "rollback":
        words = ["rollback", run.requested_target]
    elif run.command == "onboard":
        names = [str(entry["id"]) for entry in run.options.get("newcomers", ())]
        return shlex.join(["orchestrator", "onboard", *(names if len(names) == 1 else ["--from", "FILE"])])
    else:
        # A relative target would be counted once more, from where the run has taken some.
        to = run.target if run.requested_target and is_relative(run.requested_target) else (run.requested_target,)
        words = [run.command, to[0] if len(to) == 1 else "REV"]
    selection = run.options.get("select")
    if tenants is not None:
        words += [word for tenant in tenants for word in ("-t", tenant)]
    elif selection:
        words += flags_of(selection)
    elif selection is None and run.command != "upgrade":
        # Where a wave was named, it is not known who was meant, and not all are to be.
        words += ["-t", "TENANT"]
    elif run.command in ("downgrade", "stamp"):
        words += ["--all"]
    words += ["--to-before"] if run.options.get("to_before") else []
    for name in ("waves", "backup", EXECUTOR):
        words += [f"--{name}", str(given)] if (given := run.options.get(name)) else []
    return shlex.join(["orchestrator", *(word for word in words if word)])


def flags_of(selection: Mapping[str, Any]) -> list[str]:
    """The options that make a selection, from its JSON; lists of ids are ``FILE``."""
    options = {"patterns": "-t", "tags": "--tag", "servers": "--server", "exclude": "--exclude"}
    found = [word for name, option in options.items() for value in selection.get(name, ()) for word in (option, value)]
    if "listed" in selection:
        found += ["--tenants-from", "FILE"]
    if shard := selection.get("shard"):
        found += ["--shard", f"{shard[0]}/{shard[1]}"]
    if sample := selection.get("sample"):
        found += ["--sample", str(sample)]
    return found


def retry_of(run: RunRecord, left: Sequence[str] = (), *, provision: bool = False, partial: bool = False) -> str:
    """What to type to go on with what is left of a run.

    Args:
        run: as it has ended.
        left: ids of those that are left: who has been restored is not to lose what came in since.
        provision: what is missing is to be made.
        partial: what was cut off outside a transaction is to be run again.
    """
    if run.command not in NOT_RESUMED:
        if run.status is RunStatus.CANCELLED:
            return again_of(run)
        flags = (" --provision" if provision else "") + (" --retry-partial" if partial else "")
        # Who attempts them is said anew each time; without a word it would be this process.
        flags += "" if run.executor is None else f" --executor {run.executor}"
        return f"orchestrator resume {run.id}{flags}"
    if run.command == "undo":
        names = run.options["newcomers"]
        return f"orchestrator onboard {shlex.quote(names[0]) if len(names) == 1 else '--from FILE'} --undo"
    if run.command in ("offboard", "purge"):
        given = (*run.options["flags"], *run.options["tenants"])
        return " ".join(["orchestrator offboard", *(shlex.quote(each) for each in given)])
    if run.command == "rehearse":
        words = [run.requested_target, *(word for name in run.options["tenants"] for word in ("-t", name))]
        return shlex.join(["orchestrator", "rehearse", *(word for word in words if word)])
    words = [run.command, *(["--to"] if run.command == "backup" else []), str(run.options.get("source", ""))]
    whom = [word for name in left for word in ("-t", name)] if len(left) <= _NAMED else ["--tenants-from", "FILE"]
    return shlex.join(["orchestrator", *words, *(whom or ["-t", "TENANT"]), *run.options.get("flags", ())])


def hint_of(run: RunRecord, error: Mapping[str, Any]) -> str | None:
    """An error's hint; where it names no run to resume, this one, carried out by whom it was."""
    hint = error.get("hint")
    return None if hint is None else _RESUME.sub(retry_of(run), str(hint))


def retry_for(run: RunRecord, left: Sequence[AttemptRecord], *, partial: bool) -> str:
    """The same for those that are left, and what has kept each of them.

    Args:
        run: as it has ended.
        left: how each of them ended.
        partial: as for :func:`retry_of`.
    """
    names, types = [attempt.tenant for attempt in left], {(attempt.error or {}).get("type") for attempt in left}
    if run.command == "undo" and types == {_LISTED}:
        return shlex.join(["orchestrator", "offboard", *names])
    # Nothing else makes what is missing, whatever it is told.
    return retry_of(run, names, provision=_UNPROVISIONED in types and run.command in _MAKING, partial=partial)
