"""The list of tenants in the text of tenants.yaml: entries put in and taken out, and not one other character changed.

No YAML library writes a file back as it was (ruamel.yaml comes near, and still moves comments, quotes and indentation).
So the text is cut where the parser says that things stand. The parser's events tell what belongs to what; but in block
style their ends lie behind the comments that follow, so where something really ends is told by its last token.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from orchestrator.fleet import document

#: What ends a line in YAML 1.1.
_BREAK = re.compile("\r\n|[\n\r\x85\u2028\u2029]")
_KEY = "tenants"


@dataclass(frozen=True, slots=True)
class _Token:
    start: int
    end: int
    kind: type


@dataclass(slots=True)
class _Places:
    """Where the list stands, in characters from the start of the text."""

    #: The whole document is written in braces.
    root_in_braces: bool
    #: Column of the document's keys.
    root_column: int
    #: Where the document's mapping ends; in block style, where something else begins.
    root_end: int = 0
    #: First event of the list's value; ``None`` without the key.
    value: Any = None
    #: Where the list ends: its bracket, or where something else begins.
    end: int = 0
    #: Where each entry begins, behind its dash.
    items: list[int] = field(default_factory=list)


class TenantList:
    """The list in one text, which has to be a valid tenants.yaml.

    Args:
        text: without a byte order mark.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        self._places = _find(text)
        tokens: Iterator[Any] = iter(yaml.scan(text, Loader=document.LOADER))
        found = ((token.start_mark.index, token.end_mark.index, type(token)) for token in tokens)
        # Those without a width only say that a collection begins or ends.
        self._tokens = [_Token(*each) for each in found if each[1] > each[0]]
        self._starts = [token.start for token in self._tokens]

    def with_entries(self, entries: Sequence[str]) -> str:
        """The text with ``entries``, each on one line and fit for either style, at the end of the list."""
        places = self._places
        if places.value is None:
            return self._with_key(entries)
        if isinstance(places.value, yaml.ScalarEvent):
            return self._in_place_of_nothing(entries)
        if self._text.startswith("[", places.value.start_mark.index):
            return self._in_brackets(entries)
        last = self._before(places.end)
        return self._lines_after(last.end, " " * places.value.start_mark.column, entries)

    def without(self, number: int) -> str:
        """The text without the entry of that number, from 0."""
        if self._text.startswith("[", self._places.value.start_mark.index):
            return self._out_of_brackets(number)
        return self._off_the_lines(number)

    # Block style

    def _with_key(self, entries: Sequence[str]) -> str:
        places, last = self._places, self._before(self._places.root_end)
        if places.root_in_braces:
            comma = "" if last.kind is yaml.FlowEntryToken else ","
            return self._cut((last.end, last.end, f"{comma} {_KEY}: [{', '.join(entries)}]"))
        after = self._tokens[-1]
        at = last.end if after.kind is yaml.DocumentEndToken else len(self._text)
        margin = " " * places.root_column
        return self._lines_after(at, margin, entries, first=f"{margin}{_KEY}:")

    def _in_place_of_nothing(self, entries: Sequence[str]) -> str:
        """The key is there, with no value or with YAML's word for none."""
        value, places = self._places.value, self._places
        start, end = value.start_mark.index, value.end_mark.index
        if end > start or places.root_in_braces:
            space = "" if end > start else " "
            return self._cut((start, end, f"{space}[{', '.join(entries)}]"))
        colon = self._before(start)
        return self._lines_after(colon.end, " " * places.root_column, entries, deeper=True)

    def _lines_after(
        self, at: int, margin: str, entries: Sequence[str], *, first: str | None = None, deeper: bool = False
    ) -> str:
        """A line for each entry below the line that ``at`` is in, or where it ends one."""
        inner = f"{margin}  " if deeper or first is not None else margin
        lines = [*([] if first is None else [first]), *(f"{inner}- {entry}" for entry in entries)]
        below, ending = self._next_line(at)
        if not self._ends_line(below):
            return self._cut((below, below, ending + ending.join(lines)))
        return self._cut((below, below, "".join(line + ending for line in lines)))

    def _off_the_lines(self, number: int) -> str:
        items, text = self._places.items, self._text
        dash = self._dash(number)
        is_last = number == len(items) - 1
        end = self._before(self._places.end if is_last else self._dash(number + 1)).end
        line = self._line_start(dash)
        if text[line:dash].strip(" "):  # behind a `:`, where the key was written with a `?`
            return self._cut((dash, end if is_last else self._dash(number + 1), ""))
        below, _ = self._next_line(end)
        if not self._ends_line(below) and line > 0:
            return self._cut((self._break_before(line), below, ""))
        return self._cut((line, below, ""))

    def _dash(self, number: int) -> int:
        at = bisect_left(self._starts, self._places.items[number])
        return next(each.start for each in reversed(self._tokens[:at]) if each.kind is yaml.BlockEntryToken)

    # Flow style

    def _in_brackets(self, entries: Sequence[str]) -> str:
        text, places = self._text, self._places
        last = self._before(places.end)
        if not places.items:
            at = places.value.start_mark.index + 1
            return self._cut((at, at, ", ".join(entries) + self._space_at(at)))
        is_comma = last.kind is yaml.FlowEntryToken
        end = self._before(last.start).end if is_comma else last.end
        start = places.items[-1]
        line = self._line_start(start)
        below, ending = self._next_line(last.end)
        if text[line:start].strip() or below > places.end:
            return self._cut((end, end, f", {', '.join(entries)}{self._space_at(end)}"))
        # It has a line of its own, and so has the bracket: the new ones get lines, too.
        new = f",{ending}".join(f"{text[line:start]}{entry}" for entry in entries)
        lines = (below, below, f"{new}{',' if is_comma else ''}{ending}")
        return self._cut(lines) if is_comma else self._cut((end, end, ","), lines)

    def _out_of_brackets(self, number: int) -> str:
        text, places, items = self._text, self._places, self._places.items
        start, end = items[number], self._end_in_brackets(number)
        before = self._comma(number - 1) if number else None
        after = self._comma(number)
        line = self._line_start(start)
        own = after.end if after is not None and not _BREAK.search(text, end, after.end) else end
        below, _ = self._next_line(own)
        # Only a comment can stand behind it on its line, or another entry.
        alone = not text[line:start].strip() and below <= places.end and self._after(own) >= below
        spare = (before.start, before.end, "") if before is not None and after is None else None
        if alone and (own > end or after is None):
            return self._cut(*([spare] if spare else []), (line, below, ""))
        if before is not None and not _BREAK.search(text, before.end, start):
            return self._cut((self._end_in_brackets(number - 1), end, ""))
        if after is not None and number + 1 < len(items) and not _BREAK.search(text, end, items[number + 1]):
            return self._cut((start, items[number + 1], ""))
        comma = [(after.start, after.end, "")] if after is not None else [spare] if spare else []
        return self._cut((start, end, ""), *comma)

    def _end_in_brackets(self, number: int) -> int:
        comma = self._comma(number)
        return self._before(self._places.end if comma is None else comma.start).end

    def _comma(self, number: int) -> _Token | None:
        """The comma behind an entry; the last one may have none."""
        items = self._places.items
        if number == len(items) - 1:
            last = self._before(self._places.end)
            return last if last.kind is yaml.FlowEntryToken else None
        at = bisect_left(self._starts, items[number + 1])
        return next(each for each in reversed(self._tokens[:at]) if each.kind is yaml.FlowEntryToken)

    def _space_at(self, at: int) -> str:
        """What keeps a comment that begins there from becoming part of what is put in front of it."""
        return " " if self._text.startswith("#", at) else ""

    # Text

    def _before(self, at: int) -> _Token:
        """The last token that begins before ``at``."""
        return self._tokens[bisect_left(self._starts, at) - 1]

    def _after(self, at: int) -> int:
        """Where the first token from ``at`` on begins."""
        return self._starts[bisect_left(self._starts, at)]

    def _next_line(self, at: int) -> tuple[int, str]:
        """Where the line below begins, and how lines end there; ``at`` itself where that ends a line already."""
        if at and self._ends_line(at):
            ending = self._text[self._break_before(at) : at]
            return at, ending
        found = _BREAK.search(self._text, at)
        if found is not None:
            return found.end(), found[0]
        first = _BREAK.search(self._text)
        return len(self._text), first[0] if first is not None else "\n"

    def _ends_line(self, at: int) -> bool:
        return at > 0 and _BREAK.fullmatch(self._text, at - 1, at) is not None

    def _break_before(self, line: int) -> int:
        """Where the break that ends at ``line`` begins."""
        return line - 2 if self._text.startswith("\r\n", line - 2) and line >= 2 else line - 1

    def _line_start(self, at: int) -> int:
        while at > 0 and not self._ends_line(at):
            at -= 1
        return at

    def _cut(self, *edits: tuple[int, int, str]) -> str:
        """The text with each span replaced; spans do not overlap."""
        text = self._text
        for start, end, new in sorted(edits, reverse=True):
            text = text[:start] + new + text[end:]
        return text


def _find(text: str) -> _Places:
    events: Iterator[Any] = iter(yaml.parse(text, Loader=document.LOADER))
    next(events), next(events)  # the stream, the document
    root: Any = next(events)
    places = _Places(bool(root.flow_style), root.start_mark.column)
    while not isinstance(key := next(events), yaml.MappingEndEvent):
        value = next(events)
        is_list = key.value == _KEY
        if is_list:
            places.value, places.end = value, value.end_mark.index
        if isinstance(value, yaml.ScalarEvent):
            continue
        depth = 1
        while depth:
            event = next(events)
            if is_list and depth == 1:
                places.end = event.start_mark.index
                if not isinstance(event, yaml.SequenceEndEvent):
                    places.items.append(places.end)
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
    end: Any = key
    places.root_end = end.start_mark.index
    return places
