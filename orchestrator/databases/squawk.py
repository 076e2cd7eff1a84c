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

#: Seconds that it may take: a thousand revisions take it less than one.
_TIMEOUT = 120.0
#: Its own comments would silence it without a reason that anybody sees.
_SILENCED = re.compile("squawk-ignore", re.IGNORECASE)


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
        command += [f"--include={','.join(include)}"] if include else []
        try:
            result = subprocess.run(
                [*command, *names],
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
            raise SquawkUnavailable(f"{program}: {error.strerror}") from error
    return _read(result)


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
