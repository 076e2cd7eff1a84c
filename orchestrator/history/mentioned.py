"""Which tables a revision may be about, as far as its text tells: what stands in it as a name or in SQL."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from orchestrator.history.preflight import ATTRIBUTE

_WORD = re.compile(r"\w+")
#: What says nothing about tables: the revision's own names, and its checks.
_ASIDE = frozenset({"revision", "down_revision", "branch_labels", "depends_on", ATTRIBUTE})


def mentioned(file: Path, direction: str) -> frozenset[str]:
    """Words in the texts of a revision file: those that are a table's name are tables that it may touch.

    Args:
        file: the Python source of the revision.
        direction: ``upgrade`` or ``downgrade``; what stands in the other one's function does not count.
    """
    other = "downgrade" if direction == "upgrade" else "upgrade"
    tree = ast.parse(file.read_bytes())
    words: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == other:
            continue
        if isinstance(node, ast.Assign | ast.AnnAssign) and _names(node) & _ASIDE:
            continue
        said = {id(inner.value) for inner in ast.walk(node) if isinstance(inner, ast.Expr)}
        for inner in ast.walk(node):
            # A text that stands for itself is a docstring.
            if isinstance(inner, ast.Constant) and isinstance(inner.value, str) and id(inner) not in said:
                words.update(_WORD.findall(inner.value))
    return frozenset(words)


def _names(node: ast.Assign | ast.AnnAssign) -> set[str]:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    return {target.id for target in targets if isinstance(target, ast.Name)}
