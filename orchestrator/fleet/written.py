"""A tenant's entry as YAML on one line, that every reader reads as it is meant."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date

from orchestrator.fleet.document import is_text

#: Names that need no quotes anywhere, unless YAML reads them as something else.
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_./@-]*")
#: What YAML 1.1 as written, though not PyYAML, reads as yes and no.
_YES_OR_NO = frozenset({"y", "Y", "n", "N"})
_ESCAPED = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def written(value: object) -> str:
    """A value of an entry, or a whole one, as it may stand in a list of either style.

    Args:
        value: text, a number, a date, or a list or mapping of such.
    """
    if isinstance(value, Mapping):
        if value.keys() == {"id"}:
            return written(value["id"])
        return "{" + ", ".join(f"{written(key)}: {written(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(written(each) for each in value) + "]"
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, str):
        return _text(str(value))
    return str(value)


def _text(text: str) -> str:
    if _PLAIN.fullmatch(text) and text not in _YES_OR_NO and is_text(text):
        return text
    return '"' + "".join(_ESCAPED.get(char) or _character(char) for char in text) + '"'


def _character(char: str) -> str:
    if char.isprintable():
        return char
    code = ord(char)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
