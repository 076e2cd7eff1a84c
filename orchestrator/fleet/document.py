"""A YAML file as plain data that still knows where each value stands.

Built from the parser's events and not by PyYAML's own constructor: that one resolves every scalar anew (ten thousand
tenants take most of a second), takes the last of two equal keys without a word, and lets aliases explode.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any

import yaml

from orchestrator.errors import ConfigurationError
from orchestrator.fleet.problems import Path, Problem

#: libyaml's parser, ten times faster; a PyYAML built without it has only the slow one.
LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
#: tenants.yaml needs 5; the rest is for a source's own options.
_DEEPEST = 20

_RESOLVERS = yaml.SafeLoader.yaml_implicit_resolvers
_CONSTRUCT = yaml.SafeLoader("")
_PREFIX = "tag:yaml.org,2002:"
# Numbers that one YAML version reads and the other does not, or that come out as another number than is written.
_ODD_NUMBER = re.compile(
    r"[-+]?(0[0-9_]+|0[xob][0-9A-Fa-f_]+|[0-9][0-9_]*(:[0-9_.]+)+|[0-9]+[eE][-+]?[0-9]+|[0-9]+_[0-9_.]*)"
)


@dataclass(slots=True)
class Node:
    """Where a value stands, and the places of what is in it."""

    #: The parser's mark of the value.
    mark: Any
    #: Of a mapping: key to (mark of the key, node of its value).
    keys: dict[str, tuple[Any, Node]] | None = None
    items: list[Node] | None = None
    #: What is written there, of a value that YAML did not read as text.
    written: str | None = None


@dataclass(slots=True)
class Document:
    """What a YAML file says, and where."""

    data: Any
    root: Node
    #: What is wrong with the YAML itself; the data is still good enough to look for further problems in it.
    problems: list[Problem] = field(default_factory=list)

    def place(self, path: Path, *, at_key: bool = False) -> tuple[int, int]:
        """Line and column, both from 1, of the value at ``path``, or of the nearest value around it."""
        node, mark = self.root, self.root.mark
        for step in path:
            if node.keys is not None and step in node.keys:
                key_mark, node = node.keys[str(step)]
                mark = key_mark if at_key else node.mark
            elif node.items is not None and isinstance(step, int) and step < len(node.items):
                node = node.items[step]
                mark = node.mark
        return mark.line + 1, mark.column + 1

    def written(self, path: Path) -> str | None:
        """What is written at ``path``, when it is a scalar that YAML did not read as text."""
        node = self.root
        for step in path:
            if node.keys is not None and step in node.keys:
                node = node.keys[str(step)][1]
            elif node.items is not None and isinstance(step, int) and step < len(node.items):
                node = node.items[step]
            else:
                return None
        return node.written


def compose(text: str, file: str) -> Document | None:
    """Read one YAML document; ``None`` when there is nothing in it.

    Raises:
        ConfigurationError: it is not YAML, or there is more than one document.
    """
    try:
        return _Builder(text).document()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        what = error.problem or error.context or "cannot be read"
        raise ConfigurationError(
            f"not valid YAML: {what}", file=file, line=line, column=column, hint=_yaml_hint(what)
        ) from None
    except yaml.reader.ReaderError as error:
        line = _line_of_unreadable(text)
        raise ConfigurationError(
            f"not valid YAML: {error.reason}", file=file, line=line, hint="take the control character out"
        ) from None
    except _SeveralDocuments as several:
        raise ConfigurationError(
            "a second YAML document starts here", file=file, line=several.line, hint="keep one document per file"
        ) from None


class _SeveralDocuments(Exception):
    def __init__(self, line: int) -> None:
        self.line = line


class _Builder:
    """Turns events into data and nodes, side by side."""

    def __init__(self, text: str) -> None:
        self._events: Iterator[Any] = iter(yaml.parse(text, Loader=LOADER))
        self._known: dict[str, Any] = {}
        self._problems: list[Problem] = []

    def document(self) -> Document | None:
        next(self._events)  # StreamStart
        event = next(self._events)
        if isinstance(event, yaml.StreamEndEvent):
            return None
        data, node = self._value(next(self._events), ())
        next(self._events)  # DocumentEnd
        event = next(self._events)
        if isinstance(event, yaml.DocumentStartEvent):
            mark = event.start_mark
            raise _SeveralDocuments(mark.line + 1 if mark is not None else 1)
        return Document(data, node, self._problems)

    def _value(self, event: Any, path: Path) -> tuple[Any, Node]:
        kind = type(event)
        if event.anchor is not None:
            what = "an alias" if kind is yaml.AliasEvent else "an anchor"
            self._refuse(path, f"`{event.anchor}` is {what}, which is not supported here", "write the value out")
        if kind is yaml.ScalarEvent:
            return self._scalar(event, path)
        if kind is yaml.AliasEvent:
            return f"*{event.anchor}", Node(event.start_mark)
        if event.tag is not None:
            self._refuse(path, f"the YAML tag `{event.tag}` is not supported here", "take it out")
        if len(path) >= _DEEPEST:
            raise yaml.MarkedYAMLError(problem="nested too deeply", problem_mark=event.start_mark)
        return self._mapping(event, path) if kind is yaml.MappingStartEvent else self._sequence(event, path)

    def _mapping(self, start: Any, path: Path) -> tuple[dict[str, Any], Node]:
        data: dict[str, Any] = {}
        keys: dict[str, tuple[Any, Node]] = {}
        for event in self._events:
            if type(event) is yaml.MappingEndEvent:
                break
            mark = event.start_mark
            key = self._key(event, path)
            inside = (*path, key)
            value, node = self._value(next(self._events), inside)
            if key in data:
                first = keys[key][0].line + 1
                keys[f"{key} again"] = (mark, Node(mark))  # no key of the file: a place for the problem to stand
                message = f"`{key}` stands here twice, first in line {first}"
                self._refuse((*path, f"{key} again"), message, "keep one of them")
                continue
            data[key] = value
            keys[key] = (mark, node)
        return data, Node(start.start_mark, keys=keys)

    def _sequence(self, start: Any, path: Path) -> tuple[list[Any], Node]:
        data: list[Any] = []
        items: list[Node] = []
        for event in self._events:
            if type(event) is yaml.SequenceEndEvent:
                break
            value, node = self._value(event, (*path, len(data)))
            data.append(value)
            items.append(node)
        return data, Node(start.start_mark, items=items)

    def _key(self, event: Any, path: Path) -> str:
        if type(event) is not yaml.ScalarEvent:
            raise yaml.MarkedYAMLError(problem="a key must be plain text", problem_mark=event.start_mark)
        key: str = event.value
        at = (*path, key)
        if event.anchor is not None or event.tag is not None:
            message = f"the key `{key}` has an anchor or a tag, which is not supported here"
            self._refuse(at, message, "take it out", at_key=True)
        elif event.implicit[0] and type(self._resolved(key)) is not str:
            message = f"the key `{key}` is read by YAML as {kind_of(self._known[key])}"
            self._refuse(at, message, f'quote it: "{key}"', at_key=True)
        return key

    def _scalar(self, event: Any, path: Path) -> tuple[Any, Node]:
        text: str = event.value
        if event.tag is not None:
            self._refuse(path, f"the YAML tag `{event.tag}` is not supported here", "take it out, or quote the value")
            return text, Node(event.start_mark)
        if not event.implicit[0]:
            return text, Node(event.start_mark)
        value = self._resolved(text)
        if type(value) is str:
            return text, Node(event.start_mark)
        if isinstance(value, _Odd):
            message = f"`{text}` is a number to some YAML readers, and not always the same one"
            self._refuse(path, message, f'quote it if it is a name: "{text}"; otherwise write a plain decimal number')
            return text, Node(event.start_mark)
        return value, Node(event.start_mark, written=text)

    def _resolved(self, text: str) -> Any:
        try:
            return self._known[text]
        except KeyError:
            value = self._known[text] = _resolve(text)
            return value

    def _refuse(self, path: Path, message: str, hint: str, *, at_key: bool = False) -> None:
        self._problems.append(Problem(path, message, hint, at_key))


class _Odd:
    """Stands for a number that YAML readers disagree on."""


def kind_of(value: Any) -> str:
    """What YAML made of a value, for people."""
    if isinstance(value, bool):
        return "a yes-or-no value"
    if value is None:
        return "null (nothing)"
    if isinstance(value, date):
        return "a date"
    if isinstance(value, int | float | _Odd):
        return "a number"
    if isinstance(value, str):
        return "text"
    if isinstance(value, list | tuple):
        return "a list"
    return "a mapping" if isinstance(value, dict) else type(value).__name__


def is_text(text: str) -> bool:
    """Whether ``text``, without quotes, is read as text."""
    return isinstance(_resolve(text), str)


def _resolve(text: str) -> Any:
    """What YAML 1.1 makes of a plain scalar, as PyYAML's SafeLoader has it."""
    if _ODD_NUMBER.fullmatch(text):
        return _Odd()
    for tag, pattern in _RESOLVERS.get(text[:1], ()):
        if pattern.match(text):
            return _construct(tag.removeprefix(_PREFIX), text)
    return text


def _construct(tag: str, text: str) -> Any:
    scalar = yaml.ScalarNode(_PREFIX + tag, text)
    match tag:
        case "null":
            return None
        case "bool":
            return _CONSTRUCT.construct_yaml_bool(scalar)
        case "int":
            # Python refuses to read thousands of digits, and no key here wants them.
            return _CONSTRUCT.construct_yaml_int(scalar) if len(text) < 40 else _Odd()
        case "float":
            return _CONSTRUCT.construct_yaml_float(scalar)
        case "timestamp":
            try:
                value: date | datetime = _CONSTRUCT.construct_yaml_timestamp(scalar)
            except ValueError:  # 2024-02-31 looks like a date and is none
                return text
            return value
    return text


def _yaml_hint(problem: str) -> str:
    if "\\t" in problem or "'\t'" in problem:
        return "indent with spaces, not with tabs"
    if "mapping values are not allowed" in problem:
        return "quote a text that holds `: `, and indent lines of one level alike"
    return "look at the line above too: a quote, a bracket or the indentation may be wrong there"


def _line_of_unreadable(text: str) -> int:
    at = next((at for at, char in enumerate(text) if not (char.isprintable() or char in "\n\r\t\x85")), 0)
    return text.count("\n", 0, at) + 1
