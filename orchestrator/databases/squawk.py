"""squawk (https://squawkhq.com), which knows what PostgreSQL statements do to a busy database, run over SQL of ours."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sysconfig
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.errors import OrchestratorError
from orchestrator.history.pure_names import words

#: Seconds that it may take: a thousand revisions take it less than one.
_TIMEOUT = 120.0
#: Its own comments would silence it without a reason that anybody sees.
_SILENCED = re.compile("squawk-ignore", re.IGNORECASE)


#: Rules of squawk 2.70, to guess which one was meant; which there are, squawk is asked.
KNOWN = words(
    """
    require-concurrent-index-creation require-concurrent-index-deletion constraint-missing-not-valid
    adding-field-with-default adding-foreign-key-constraint changing-column-type adding-not-nullable-field
    adding-serial-primary-key-field renaming-column renaming-table disallowed-unique-constraint ban-drop-database
    prefer-bigint-over-int prefer-bigint-over-smallint prefer-identity prefer-repack prefer-robust-stmts
    prefer-text-field prefer-timestamp-tz ban-char-field ban-drop-column ban-drop-table ban-drop-not-null
    transaction-nesting adding-required-field ban-concurrent-index-creation-in-transaction
    ban-create-domain-with-constraint ban-alter-domain-with-add-constraint ban-truncate-cascade
    require-timeout-settings ban-uncommitted-transaction require-enum-value-ordering require-table-schema
    identifier-too-long require-concurrent-partition-detach require-concurrent-reindex require-lock-timeout
    require-statement-timeout ban-drop-view ban-drop-function ban-drop-type ban-drop-schema ban-drop-sequence
    ban-drop-domain ban-drop-constraint ban-drop-generated-expression renaming-object ban-set-schema
    ban-alter-identity ban-drop-extension ban-alter-generated-expression ban-drop-index ban-set-default
    ban-disable-trigger ban-replica-identity ban-drop-policy ban-revoke ban-replace-view-function
    ban-alter-policy-condition ban-alter-policy-roles ban-create-policy ban-alter-function-options
    ban-alter-view-options ban-alter-role-options ban-alter-database-options ban-alter-row-level-security
    ban-new-write-restriction ban-add-enum-value ban-add-composite-attribute ban-add-column ban-detach-inheritance
    ban-alter-sequence-values ban-alter-system-options ban-alter-extension
    """
)
#: What it finds under names that cannot be chosen.
_NOT_CHOSEN = frozenset({"syntax-error", "unused-ignore"})
_INVALID = re.compile(r"invalid rule name (\S+)")


class SquawkUnavailable(OrchestratorError):
    """squawk is not there, or does not work."""


@dataclass(frozen=True, slots=True)
class Complaint:
    """One thing that squawk found."""

    #: Number, from 0, of the script.
    script: int
    #: 1-based line in it.
    line: int
    #: squawk's name of the rule.
    rule: str
    message: str
    #: What squawk says to do; ``None`` where it says nothing.
    help: str | None


def find_squawk() -> str:
    """The program's path: the one beside this Python, else the one on PATH.

    Raises:
        SquawkUnavailable: there is none.
    """
    # A virtual environment's programs are not on PATH where it is not activated.
    beside = shutil.which("squawk", path=sysconfig.get_path("scripts"))
    found = beside or shutil.which("squawk")
    if found is None:
        raise SquawkUnavailable("it is not installed", hint="pip install 'alembic-orchestrator[lint]'")
    return found


def complaints(scripts: Sequence[str], *, version: str | None = None, include: Sequence[str] = ()) -> list[Complaint]:
    """What squawk says of each of ``scripts``; one process for all of them.

    Args:
        scripts: of SQL, each as it is run, with its transactions.
        version: of the PostgreSQL server, as squawk's ``--pg-version`` takes it; ``None`` for squawk's own idea.
        include: rules that squawk only looks at when asked to.

    Raises:
        SquawkUnavailable: it is not there, fails, or takes too long.
    """
    program = find_squawk()
    with tempfile.TemporaryDirectory(prefix="orchestrator-lint-") as directory:
        names = []
        for number, script in enumerate(scripts):
            names.append(f"{number}.sql")
            text = _SILENCED.sub("squawk ignore", script)
            (Path(directory) / names[-1]).write_text(text, encoding="utf-8")
        # One list of rules, that of tenants.yaml: squawk would look for a file of its own in the directories above.
        (Path(directory) / "squawk.toml").touch()
        command = [program, "--config", "squawk.toml", "--reporter", "json"]
        command += [f"--pg-version={version}"] if version is not None else []
        chosen = [rule for rule in include if rule not in _NOT_CHOSEN]
        command += [f"--include={','.join(chosen)}"] if chosen else []
        return _read(_run([*command, *names], directory))


def unknown_rule(names: Sequence[str]) -> str | None:
    """The first of ``names`` that is no rule of squawk's; ``None`` where all are, or squawk cannot be asked.

    Args:
        names: as squawk writes them.
    """
    asked = [name for name in names if name not in _NOT_CHOSEN]
    # A comma would make two names of one.
    if (odd := next((name for name in asked if "," in name), None)) is not None:
        return odd
    if not asked:
        return None
    try:
        # Without a file it looks at nothing.
        result = _run([find_squawk(), f"--exclude={','.join(asked)}"], None)
    except SquawkUnavailable:
        return None
    said = _INVALID.search(result.stderr)
    return said[1] if said else None


def _run(command: Sequence[str], directory: str | None) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command,
            cwd=directory,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise SquawkUnavailable(f"no end after {_TIMEOUT:.0f} s") from error
    except OSError as error:
        raise SquawkUnavailable(f"{command[0]}: {error.strerror}") from error


def _read(result: subprocess.CompletedProcess[str]) -> list[Complaint]:
    try:
        # 1 says that there are findings.
        if result.returncode not in (0, 1):
            raise ValueError
        return [
            Complaint(int(Path(one["file"]).stem), one["line"] + 1, one["rule_name"], one["message"], one.get("help"))
            for one in json.loads(result.stdout)
        ]
    except (ValueError, KeyError, TypeError) as error:
        said = " ".join((result.stderr or result.stdout).split())[:200]
        raise SquawkUnavailable(f"exit code {result.returncode}: {said}") from error
