"""What revisions take from outside the directory, as far as their text tells: packages, and what no digest can cover.

For copies of what the revisions once made. A replay needs none of this: it only has revisions that take nothing.
"""

from __future__ import annotations

import hashlib
import importlib.util
import re
import sys
from collections.abc import Collection, Iterable
from pathlib import Path

_IMPORT = re.compile(r"^[ \t]*(?:from[ \t]+([\w.]+)[ \t]+import\b|import[ \t]+([\w., \t]+))", re.MULTILINE)
#: Where their versions are part of the key anyway, or they are ours.
_KNOWN = frozenset({"alembic", "sqlalchemy", "orchestrator"}) | sys.stdlib_module_names
#: What may be one thing for one tenant or today, and another for the next or tomorrow.
_PASSING = re.compile(
    r"\b(?:os\.environ|environ\b|getenv\b|get_x_argument\b|context\.config\b|config\.attributes\b|open\(|read_text\("
    r"|read_bytes\(|subprocess\b|socket\b|urllib\b|requests\b|httpx\b|getpass\b|gethostname\b)"
)


def passing(file: Path) -> str | None:
    """What in a file depends on the process or the machine that it runs on, as it is written there; the first."""
    found = _PASSING.search(file.read_text(encoding="utf-8", errors="replace"))
    return None if found is None else found[0].rstrip("(")


def imported(files: Iterable[Path]) -> frozenset[str]:
    """Packages that ``files`` import by name, without the standard library, Alembic and SQLAlchemy."""
    names: set[str] = set()
    for file in files:
        for one, several in _IMPORT.findall(file.read_text(encoding="utf-8", errors="replace")):
            names.update(part.split()[0].partition(".")[0] for part in (one or several).split(",") if part.strip())
    return frozenset(name for name in names if name and name not in _KNOWN)


def digest_of(packages: Collection[str]) -> str:
    """Checksum (SHA-256, hex) over all Python files of ``packages``, as far as they are to be found."""
    total = hashlib.sha256()
    for name in sorted(packages):
        for file in _files(name):
            total.update(f"{name} {file.name}\0".encode() + hashlib.sha256(file.read_bytes()).digest())
    return total.hexdigest()


def _files(package: str) -> list[Path]:
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        return []
    if spec is None:
        return []
    # One place stands there several times where the import path names it several times, as after each run of env.py.
    places = {Path(place).resolve() for place in spec.submodule_search_locations or ()}
    if not places:
        return [Path(spec.origin)] if spec.origin and Path(spec.origin).is_file() else []
    return sorted({file for place in places for file in place.rglob("*.py")})
