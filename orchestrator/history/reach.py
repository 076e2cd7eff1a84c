"""How far a revision reaches: the names of tables that its source mentions, and how many tables it makes."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

_WORD = re.compile(r"\w+")
_CREATE_TABLE = re.compile(r"\bcreate\s+table\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Reach:
    """What one transaction of a migration may touch, as its source tells without being run."""

    #: Revisions that are one transaction; the first is named.
    revision: str
    #: Every word, and every whole string, of its texts: whichever of them are tables' names, the database knows.
    words: frozenset[str]
    #: Tables that it makes. What a loop makes counts once: how often it is gone through is not known.
    created: int

    @classmethod
    def together(cls, parts: Iterable[Reach]) -> Reach:
        """Several revisions that are committed at once."""
        whole = list(parts)
        words = frozenset[str]().union(*(part.words for part in whole))
        return cls(whole[0].revision, words, sum(part.created for part in whole))


def find_reach(revision: str, file: Path) -> Reach:
    """Read one revision file for what its ``upgrade()`` may touch.

    Args:
        revision: the identifier to report.
        file: the Python source of the revision.
    """
    words: set[str] = set()
    created = 0
    for node in _forward(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            words.add(node.value)
            words.update(_WORD.findall(node.value))
            created += len(_CREATE_TABLE.findall(node.value))
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "create_table":
            created += 1
    return Reach(revision, frozenset(words), created)


def _forward(tree: ast.Module) -> Iterator[ast.AST]:
    """All of the file but its docstring and the way back: upgrade() may use whatever else is there."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == "downgrade":
            continue
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            continue
        yield from ast.walk(node)
