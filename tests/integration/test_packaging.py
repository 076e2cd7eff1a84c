"""What is installed: the wheel's contents, and lower bounds that are really tested."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

from tests.workspace import REPOSITORY


def test_wheel_contains_only_the_package(tmp_path: Path) -> None:
    """Only orchestrator/ is installed: an alembic/ in the wheel would be laid over Alembic's own package."""
    build = ["pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(tmp_path), "."]
    result = subprocess.run([sys.executable, "-m", *build], check=False, cwd=REPOSITORY, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"orchestrator"}
    sources = (REPOSITORY / "orchestrator").rglob("*")
    files = {
        str(path.relative_to(REPOSITORY)) for path in sources if path.is_file() and "__pycache__" not in path.parts
    }
    assert files <= set(names)


def test_lowest_versions_are_the_tested_ones() -> None:
    """`make test-min` runs on the versions that pyproject.toml calls the lowest; else `make lock` was forgotten."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    bounds = dict(re.fullmatch(r"([\w.-]+)(?:\[.*\])?>=([\d.]+)", line).groups() for line in project["dependencies"])
    pins = dict(re.findall(r"^([\w.-]+)==(\S+)", (REPOSITORY / "requirements/min.txt").read_text(), re.MULTILINE))
    assert {re.sub(r"[._]", "-", name).lower(): version for name, version in bounds.items()}.items() <= pins.items()


def test_locks_name_no_index() -> None:
    """The pinned files hold hashes and nothing of the machine they were made on."""
    for name in ("dev.txt", "min.txt", "bench.txt"):
        text = (REPOSITORY / "requirements" / name).read_text()
        assert not re.search(r"://|^-|^--", text, re.MULTILINE)
        assert text.count("==") == len(re.findall(r"^[\w.-]+==\S+ \\\n    --hash=sha256:", text, re.MULTILINE))
