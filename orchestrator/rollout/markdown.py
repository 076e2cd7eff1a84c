"""Markdown that shows a text as it is, whatever is in it: pipes, backticks, line breaks, HTML, mentions."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

#: What means something to Markdown, its tables or HTML, anywhere in a line.
_SPECIAL = re.compile(r"[\\`*_{}\[\]()<>#+!|~&@:$^=\-.\"']")
#: What a code span in a table shows as it is.
_PLAIN = re.compile(r"[^`|\\\r\n]+")
_BREAKS = re.compile(r"\s*[\r\n\u2028\u2029\x0b\x0c]+\s*")


def code(text: str) -> str:
    """``text`` as code in a line, also in a table's cell; line breaks become blanks."""
    line = _BREAKS.sub(" ", text).strip()
    if not line:
        return ""
    if _PLAIN.fullmatch(line):
        return f"`{line}`"
    # A pipe ends a cell within a code span, too, and behind a backslash even where it is escaped.
    return f"<code>{_SPECIAL.sub(lambda found: f'&#{ord(found[0])};', line)}</code>"


def block(text: str) -> str:
    """``text`` as a block of code, with a fence that is longer than any in it."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{text.rstrip()}\n{fence}"


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; its cells are Markdown already."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
