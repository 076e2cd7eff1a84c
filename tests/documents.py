"""The documentation as something to run: a page's blocks, their commands, and a reader who types them one by one."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests import warm_start
from tests.workspace import REPOSITORY, Workspace

#: Every page, relative to the repository.
PAGES = sorted(
    str(path.relative_to(REPOSITORY))
    for glob in ("*.md", "docs/**/*.md", "alembic/*.md")
    for path in REPOSITORY.glob(glob)
)
#: The page about the shared history, and its translation.
HISTORY_PAGE, HISTORY_PAGE_RU = "alembic/README.md", "alembic/README.ru.md"

_FENCE = re.compile(r"^( *)(`{3,})(\w*)[^\n]*\n(.*?)^\1\2 *$", re.DOTALL | re.MULTILINE)
#: A block that starts with a comment naming a file is that file: ``# alembic/env.py``, ``-- seed.sql``; ``"""`` is not.
_FILE = re.compile(r"(?:# (?=.*\.(?:py|yaml|ini|txt|toml)$)|-- (?=.*\.sql$))([\w./-]+)$")
#: How a page says that a command does not end with 0.
_EXIT = re.compile(r" # exit (\d+)$")
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
#: A line of a page that stands for any number of lines of the output.
_GAP = "..."

#: Identifiers that are new in every run. A page's own is bound to the one that is seen in its place, and from then on
#: stands for it: in outputs, in commands, and in files.
_NAMES = re.compile(
    r"\b\d{8}-\d{6}-[a-z0-9]{5}\b"  # a run
    r"|(?<![0-9a-f])[0-9a-f]{12}(?![0-9a-f])"  # a revision, a fingerprint
    r"|\b\d{4}_\d\d_\d\d(?=_)"  # the day in the name of a revision file
)
#: Text that differs from run to run and is bound to nothing.
_VOLATILE = tuple(
    re.compile(pattern)
    for pattern in (
        r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(?:\.\d+)?(?: UTC|\+00:00)?",  # a moment
        r"\b\d+(?:\.\d+)? m?s\b",  # how long something took
        r'(?<="duration_ms": )[\d.]+',
        r'(?<="at": )[\d.]+',
        r"(?<=  \d  )\d+$",  # the last column of `runs show`, in ms
        r"(?<= UTC  )\S+@\S+",  # who, in `runs list`
        r'(?<="actor": ")[^"]+',
        r"\b[0-9a-f]{64}\b",  # a directory's digest
        r"(?<=postgresql )\d+",  # a server's version
        r"(?<=\"version\": \")[\d.]+",
        r"(?<=sqlite )[\d.]+",
        r"(?<=pid )\d+",
        r"\b\d+ kB\b",  # a table's size
        r"(?<=, version )[\d.]+",
    )
)


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block of a page."""

    #: Relative to the repository.
    page: str
    #: 1-based line of its first line of text.
    line: int
    #: ``console``, ``yaml``, ``python``, ``sh``, ...
    language: str
    text: str

    @property
    def place(self) -> str:
        """Where it stands, for messages."""
        return f"{self.page}:{self.line}"

    @property
    def file(self) -> str | None:
        """The file that it is the text of; ``None`` when it is not one."""
        found = _FILE.match(self.text.partition("\n")[0])
        return found[1] if found else None

    def commands(self) -> Iterator[Command]:
        """What a reader types in a console block, each with the output shown below it."""
        lines = self.text.splitlines()
        starts = [number for number, line in enumerate(lines) if line.startswith("$ ")]
        for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
            typed = lines[start].removeprefix("$ ").rstrip()
            below = start + 1
            while typed.endswith("\\") and below < end:
                typed = f"{typed}\n{lines[below]}"
                below += 1
            expected = _EXIT.search(typed)
            yield Command(
                f"{self.page}:{self.line + start}",
                _EXIT.sub("", typed).rstrip(),
                int(expected[1]) if expected else 0,
                "\n".join(lines[below:end]).strip("\n"),
            )


@dataclass(frozen=True, slots=True)
class Command:
    """One command of a page."""

    place: str
    text: str
    exit_code: int
    #: What the page shows below it; may be empty, which claims nothing.
    shown: str


@dataclass(slots=True)
class Reader:
    """Somebody who does what a page says, in a directory of its own."""

    workspace: Workspace
    #: Environment of every command.
    environment: Mapping[str, str]
    #: What stands in outputs and is written otherwise on the pages: this machine's paths and ports, longest first.
    said_as: Mapping[str, str] = field(default_factory=dict)
    #: A page's identifier to the one that this run has in its place.
    names: dict[str, str] = field(default_factory=dict)

    def write(self, block: Block) -> Path:
        """Save a block that is a file."""
        assert block.file is not None
        return self.workspace.write(self._here(block.file), self._here(block.text))

    def type(self, command: Command) -> None:
        """Run a command of a page, and hold its exit code and its output to what the page says."""
        result = self.run(command.text)
        told = f"{command.place}: $ {command.text}\n{result.stdout}{result.stderr}"
        assert result.returncode == command.exit_code, f"exit code {result.returncode}, not {command.exit_code}: {told}"
        if command.shown:
            self.compare(command, self.seen(result))

    def run(self, text: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """Run a line of shell here, whatever its exit code."""
        return subprocess.run(
            ["bash", "-c", self._here(text)],
            check=False,
            cwd=self.workspace.path,
            env=dict(self.environment),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    def seen(self, result: subprocess.CompletedProcess[str]) -> str:
        """What a page shows of an output: stdout, or stderr where nothing was written there."""
        text = result.stdout if result.stdout.strip() else result.stderr
        for here, on_page in self.said_as.items():
            text = text.replace(here, on_page)
        return text.strip("\n")

    def compare(self, command: Command, seen: str) -> None:
        """Hold an output to what the page shows, and learn this run's identifiers from it."""
        shown, seen = _evened(command.shown), _evened(seen)
        groups: list[str] = []
        pattern = "".join(self._pattern(line, groups) for line in shown.splitlines())
        found = re.fullmatch(pattern, f"{seen}\n")
        assert found, f"{command.place}: $ {command.text}\nthe page shows:\n{shown}\nthe command printed:\n{seen}"
        for number, name in enumerate(groups):
            self.names[name] = found[f"n{number}"]

    def _pattern(self, line: str, groups: list[str]) -> str:
        """A regular expression for one line of a page; unknown identifiers in it become groups."""
        if line == _GAP:
            return r"(?:.*\n)*?"
        holes = {found.span(): None for found in _NAMES.finditer(line)}
        for pattern in _VOLATILE:
            for found in pattern.finditer(line):
                if not any(start < found.end() and found.start() < end for start, end in holes):
                    holes[found.span()] = pattern
        out, at = [], 0
        for (start, end), pattern in sorted(holes.items(), key=lambda hole: hole[0]):
            out.append(re.escape(line[at:start]))
            out.append(self._name(line[start:end], groups) if pattern is None else _loose(pattern))
            at = end
        return "".join(out) + re.escape(line[at:]) + r"\n"

    def _name(self, name: str, groups: list[str]) -> str:
        if name in self.names:
            return re.escape(self.names[name])
        if name in groups:
            return f"(?P=n{groups.index(name)})"
        groups.append(name)
        return rf"(?P<n{len(groups) - 1}>{_NAMES.pattern})"

    def _here(self, text: str) -> str:
        """A page's text with its identifiers replaced by this run's."""
        return _NAMES.sub(lambda found: self.names.get(found[0], found[0]), text)


def blocks(page: str) -> list[Block]:
    """The fenced blocks of a page, in order."""
    text = (REPOSITORY / page).read_text(encoding="utf-8")
    return [
        Block(page, text.count("\n", 0, found.start(4)) + 1, found[3], _dedented(found[4], len(found[1])))
        for found in _FENCE.finditer(text)
    ]


def links(page: str) -> list[str]:
    """Targets of a page's links to other places in this repository."""
    text = _FENCE.sub("", (REPOSITORY / page).read_text(encoding="utf-8"))
    return [target for target in _LINK.findall(text) if "://" not in target and not target.startswith("mailto:")]


def anchors(page: str) -> set[str]:
    """What a link to a heading of a page may say after its ``#``, as GitHub makes it."""
    text = _FENCE.sub("", (REPOSITORY / page).read_text(encoding="utf-8"))
    plain = (re.sub(r"\[([^\]]*)\]\([^)]*\)|[`*]", r"\1", heading) for heading in _HEADING.findall(text))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in plain}


def section(page: str, heading: str) -> str:
    """What stands under a heading, down to the next one of any level."""
    text = (REPOSITORY / page).read_text(encoding="utf-8")
    found = re.search(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#+ |\Z)", _masked(text), re.DOTALL | re.MULTILINE)
    assert found, f"{page} has no heading {heading!r}"
    return text[found.start(1) : found.end(1)]


def first_column(text: str) -> list[str]:
    """The first cell of every row of the tables in ``text``, without headings."""
    rows = [line for line in text.splitlines() if line.startswith("|")]
    return [row.split("|")[1].strip() for row in rows if not set(row) <= set("|-: ")]


def programs(directory: Path) -> Path:
    """A directory for PATH with the commands that an installation of this project has."""
    directory.mkdir()
    scripts = {name: warm_start.script(name) for name in warm_start.MODULES}
    scripts["python"] = f'#!/bin/sh\nexec "{sys.executable}" "$@"\n'
    for name, text in scripts.items():
        script = directory / name
        script.write_text(text)
        script.chmod(0o755)
    return directory


def path_with(*directories: Path) -> str:
    """PATH with ``directories`` before all others."""
    return os.pathsep.join([*map(str, directories), os.environ.get("PATH", os.defpath)])


def _evened(text: str) -> str:
    """Columns are as wide as what is in them, and that differs."""
    return "\n".join(re.sub(r"(?<=\S) {2,}", "  ", line.rstrip()) for line in text.splitlines())


def _loose(pattern: re.Pattern[str]) -> str:
    """What a volatile text may be on any line: its pattern without the look at what surrounds it."""
    return re.sub(r"\(\?(?:<?[=!]).*?\)|\\b|\$$", "", pattern.pattern)


def _masked(text: str) -> str:
    """``text`` with the blocks' own lines blanked, so that ``# comment`` in them is no heading."""
    return _FENCE.sub(lambda found: re.sub(r"[^\n]", " ", found[0]), text)


def _dedented(text: str, indent: int) -> str:
    return "\n".join(line[indent:] for line in text.splitlines()) + "\n"
