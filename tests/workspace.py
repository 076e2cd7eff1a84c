"""A project directory of a test's own, and the real command line started in it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests import warm_start

REPOSITORY = Path(__file__).resolve().parent.parent
#: What a project of this repository consists of, beside tenants.yaml which tests write themselves.
_PROJECT = ("alembic", "alembic.ini", "examples/saas")


@dataclass(frozen=True, slots=True)
class Workspace:
    """A copy of the repository's shared history and models, without a tenants.yaml."""

    #: Where it lies; commands run here.
    path: Path
    #: The Python that commands run with.
    interpreter: str = sys.executable

    @classmethod
    def create(cls, path: Path) -> Workspace:
        """Copy the project into ``path``, which exists."""
        for name in _PROJECT:
            source, copy = REPOSITORY / name, path / name
            if source.is_dir():
                shutil.copytree(source, copy, ignore=shutil.ignore_patterns("__pycache__"))
            elif source.is_file():
                shutil.copy(source, copy)
        return cls(path)

    def write(self, name: str, text: str) -> Path:
        """Write a file, making its directories."""
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    def run(
        self, *args: str, env: Mapping[str, str] | None = None, timeout: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """Run ``orchestrator ARGS`` to its end, whatever its exit code.

        Args:
            args: the command line after ``orchestrator``.
            env: variables beside the inherited ones.
            timeout: seconds after which the command is killed and the test fails.
        """
        return self.python("-m", "orchestrator", *args, env=env, timeout=timeout)

    def python(
        self, *args: str, env: Mapping[str, str] | None = None, timeout: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """Run ``python ARGS`` here: ``python("-m", "alembic", "upgrade", "head")`` is plain Alembic."""
        if warm_start.serves(self.interpreter, args, env or {}):
            warm = warm_start.warm_start()
            return warm.run(args[1], args[2:], self.path, self.environment(env), timeout)
        return subprocess.run(
            [self.interpreter, *args],
            check=False,
            cwd=self.path,
            env=self.environment(env),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    def json(self, *args: str, exit_code: int = 0, env: Mapping[str, str] | None = None, timeout: float = 60) -> Any:
        """Run ``orchestrator ARGS --json``, expect ``exit_code`` and return the document on stdout."""
        result = self.run(*args, "--json", env=env, timeout=timeout)
        told = f"exit code {result.returncode}\n{result.stdout}\n{result.stderr}"
        assert result.returncode == exit_code, told
        try:
            return json.loads(result.stdout)
        except ValueError:
            raise AssertionError(f"stdout is not one JSON document: {told}") from None

    @staticmethod
    def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
        """The variables commands run with: this repository's package, no colours."""
        return {**os.environ, "NO_COLOR": "1", "PYTHONPATH": str(REPOSITORY), **(extra or {})}
