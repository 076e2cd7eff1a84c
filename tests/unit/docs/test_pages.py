"""What the documentation says without being run: options, keys, statuses, links, YAML, Python, lines of shell."""

from __future__ import annotations

import ast
import importlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from pydantic import BaseModel

import orchestrator
from orchestrator.cli.group import root
from orchestrator.fleet import schema
from orchestrator.history.rules import RULES
from orchestrator.statuses import RunStatus, TenantStatus
from tests import documents
from tests.documents import HISTORY_PAGE, HISTORY_PAGE_RU, PAGES, Block, blocks
from tests.workspace import REPOSITORY

CLI, TENANTS = "docs/cli.md", "docs/tenants.md"
#: Programs of the pages' shell lines that are not this project's to parse.
NOT_OURS = {"pip", "make", "export", "cp", "pg_dump", "pg_restore", "psql", "createdb", "python", "kubectl"}


@pytest.mark.parametrize("page", PAGES)
def test_yaml_is_valid(page: str, tmp_path: Path) -> None:
    """Every yaml block is a tenants.yaml that loads, or a part of one that loads with the rest added."""
    for block in blocks(page):
        if block.language != "yaml" or block.file not in (None, "tenants.yaml"):
            continue
        path = tmp_path / "tenants.yaml"
        path.write_text(completed(block.text), encoding="utf-8")
        try:
            orchestrator.load(path, may_be_empty=True)
        except orchestrator.OrchestratorError as error:
            raise AssertionError(f"{block.place}: {error.message}") from error


def completed(text: str) -> str:
    """A tenants.yaml, or a part of one, with what every tenants.yaml must have."""
    keys = yaml.safe_load(text).keys()
    if "servers" not in keys:
        text += 'servers: {main: "postgresql://db1/app"}\n'
    if not {"tenants", "sources"} & keys:
        text += "tenants: [acme]\n"
    return text


@pytest.mark.parametrize("page", PAGES)
def test_python_compiles(page: str) -> None:
    """Every Python block compiles, and what it imports from us, Alembic and SQLAlchemy is there."""
    for block in blocks(page):
        if block.language != "python":
            continue
        tree = compile(
            block.text, block.place, "exec", flags=ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True
        )
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in ("orchestrator", "sqlalchemy"):
                module = importlib.import_module(node.module or "")
                for alias in node.names:
                    assert hasattr(module, alias.name), f"{block.place}: {node.module} has no {alias.name}"


@pytest.mark.parametrize("page", PAGES)
def test_shell_parses(page: str) -> None:
    """Every line of shell names a program that there is, and ours take the options that it gives."""
    for block in blocks(page):
        if block.language not in ("sh", "console"):
            continue
        lines = [command.text for command in block.commands()] if block.language == "console" else shell_lines(block)
        for line in lines:
            for words in simple_commands(line):
                assert_understood(words, f"{block.place}: {line}")


def shell_lines(block: Block) -> list[str]:
    """The commands of an sh block."""
    return [line for line in block.text.replace("\\\n", "").splitlines() if line and not line.startswith("#")]


def simple_commands(line: str) -> Iterator[list[str]]:
    """The commands that a line of shell is made of, without redirections and leading assignments."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|;&<>()")
    lexer.whitespace_split = True
    words: list[str] = []
    skip = False
    for token in [*lexer, ";"]:
        if token in ("|", ";", "&&", "||"):
            while words and re.fullmatch(r"\w+=.*", words[0]):
                words.pop(0)
            if words:
                yield words
            words = []
        elif set(token) <= set("<>&"):
            # `2>&1`: the descriptor before it is no argument.
            if words and words[-1].isdigit():
                words.pop()
            skip = True
        elif skip:
            skip = False
        else:
            words.append(token)


def assert_understood(words: list[str], place: str) -> None:
    """Our commands parse; others are known by name."""
    program, *arguments = words
    if program == "orchestrator":
        parse(root, program, arguments, place)
    elif program != "alembic":
        assert program in NOT_OURS, f"{place}: who is {program}?"


def parse(command: click.Command, name: str, arguments: list[str], place: str) -> None:
    """Let click read a command line to its end, without running it."""
    try:
        with command.make_context(name, list(arguments)) as context:
            if isinstance(command, click.Group):
                # The name of the command within a group: click 8.2 has given the attribute an underscore.
                kept = vars(context)
                rest = [*kept.get("_protected_args", kept.get("protected_args", [])), *context.args]
                if rest:
                    inner_name, inner, inner_arguments = command.resolve_command(context, rest)
                    assert inner is not None
                    parse(inner, inner_name or "", inner_arguments, place)
    except click.UsageError as error:
        raise AssertionError(f"{place}: {error.format_message()}") from error
    except click.exceptions.Exit:
        pass  # --help and --version


@pytest.mark.parametrize("page", PAGES)
def test_links_resolve(page: str) -> None:
    """Every link to a file of this repository has a file, and every link to a heading has a heading."""
    for target in documents.links(page):
        name, _, anchor = target.partition("#")
        path = (REPOSITORY / page).parent / name if name else REPOSITORY / page
        assert path.exists(), f"{page}: {target}"
        if anchor:
            assert anchor in documents.anchors(str(path.resolve().relative_to(REPOSITORY))), f"{page}: {target}"


def commands_of(group: click.Group, prefix: str = "orchestrator") -> Iterator[tuple[str, click.Command]]:
    """Every command that does something, with what is typed for it."""
    for name in group.list_commands(click.Context(group)):
        command = group.get_command(click.Context(group), name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from commands_of(command, f"{prefix} {name}")
        else:
            yield f"{prefix} {name}", command


def options_in(text: str) -> set[str]:
    """The options that the tables in ``text`` have in their first column."""
    return {option for cell in documents.first_column(text) for option in re.findall(r"`(-{1,2}[a-z][a-z-]*)", cell)}


@pytest.mark.parametrize(("name", "command"), list(commands_of(root)), ids=lambda value: str(value).replace(" ", "-"))
def test_every_option_is_documented(name: str, command: click.Command) -> None:
    """docs/cli.md has a section for every command with exactly the options that it takes."""
    text = documents.section(CLI, name)
    documented = options_in(text) | options_in(documents.section(CLI, "Common options"))
    for heading in ("Selection", "Execution"):
        if f"](#{heading.lower()})" in text:
            documented |= options_in(documents.section(CLI, heading))
    taken = {option for parameter in command.params if isinstance(parameter, click.Option) for option in parameter.opts}
    assert documented - {"-h", "--help"} == taken


def test_every_status_is_documented() -> None:
    """docs/cli.md explains every status that the JSON can hold."""
    text = documents.section(CLI, "Statuses")
    explained = {cell.strip("`") for cell in documents.first_column(text)} - {"state", "status"}
    assert explained == {status.value for status in TenantStatus}
    assert all(f"`{status.value}`" in text for status in RunStatus)


@pytest.mark.parametrize(
    ("heading", "model"),
    [
        ("Servers", schema.ServerEntry),
        ("Defaults", schema.DefaultsEntry),
        ("Tenants", schema.TenantEntry),
        ("SQL rows", schema.SqlEntry),
        ("Entry points", schema.EntryPointEntry),
        ("Policy", schema.PolicyEntry),
        ("Waves", schema.WaveEntry),
        ("Hooks", schema.HooksEntry),
        ("Lint", schema.LintEntry),
        ("Sections", schema.FleetEntry),
    ],
)
def test_every_key_is_documented(heading: str, model: type[BaseModel]) -> None:
    """docs/tenants.md has a table with exactly the keys that are accepted."""
    keys = {cell.strip("`") for cell in documents.first_column(documents.section(TENANTS, heading))} - {"key"}
    assert keys == {field.alias or name for name, field in model.model_fields.items()}


def test_every_kind_of_source_is_documented() -> None:
    """docs/tenants.md shows every kind of source, each in a block that loads."""
    shown: set[Any] = set()
    for block in blocks(TENANTS):
        if block.language == "yaml":
            shown |= {key for source in yaml.safe_load(block.text).get("sources", []) for key in source}
    assert schema.SOURCE_KINDS.keys() <= shown


def test_history_page_in_russian() -> None:
    """The Russian page has the same blocks as the English one, which are executed."""
    assert [(block.language, block.text) for block in blocks(HISTORY_PAGE_RU)] == [
        (block.language, block.text) for block in blocks(HISTORY_PAGE)
    ]


def test_every_rule_of_lint_is_documented() -> None:
    """docs/cli.md has a row for every rule, with what it weighs unless tenants.yaml says otherwise."""
    table = documents.section(CLI, "Rules of lint")
    rows = dict(re.findall(r"^\| `(\w+)` \| (\w+) \|", table, re.MULTILINE))
    assert rows == {kind.value: rule.severity.value for kind, rule in RULES.items()}
