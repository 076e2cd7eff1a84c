"""The root command: finds a command's module only when it is needed, and ends every error the same way."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import update_wrapper
from importlib import import_module
from typing import Any, NoReturn

import click

from orchestrator import __version__
from orchestrator.cli import streams
from orchestrator.cli.settings import Settings, common_options, take_common
from orchestrator.errors import OrchestratorError

#: Command to the module under orchestrator.cli that defines it, in the order of ``--help``.
COMMANDS = {
    "init": "init",
    "tenants": "tenants",
    "status": "status",
    "check": "check",
    "plan": "plan",
    "rehearse": "rehearse",
    "upgrade": "upgrade",
    "downgrade": "downgrade",
    "rollback": "rollback",
    "resume": "resume",
    "onboard": "onboard",
    "offboard": "offboard",
    "pool": "pool",
    "backup": "backup",
    "restore": "restore",
    "runs": "runs",
    "worker": "worker",
    "stamp": "stamp",
    "revision": "revision",
    "drift": "drift",
    "lint": "lint",
    "doctor": "doctor",
    "demo": "demo",
}


class LazyGroup(click.Group):
    """Imports the module of a command when the command is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All commands, in the order in which one meets them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, or ``None``."""
        if cmd_name not in COMMANDS:
            return None
        module = import_module(f"orchestrator.cli.{COMMANDS[cmd_name]}")
        command: click.Command = getattr(module, cmd_name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Suggest what was meant when there is no such command."""
        if args[0] not in COMMANDS:
            from difflib import get_close_matches

            for near in get_close_matches(args[0], COMMANDS, 1):
                ctx.fail(f"No such command {args[0]!r}. Did you mean {near!r}?")
        return super().resolve_command(ctx, args)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@common_options
@click.version_option(__version__, prog_name="orchestrator")
@click.pass_context
def root(context: click.Context, /, **given: Any) -> None:
    """Apply one shared Alembic versions directory to every tenant of a SaaS."""
    take_common(context, given)


def command(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command's function the common options; they reach it as its first argument, the settings.

    Stands lowest, right above the function: what is above it comes first in the command's help.
    """

    @common_options
    @click.pass_context
    def wrapped(context: click.Context, /, **given: Any) -> Any:
        return function(take_common(context, given), **given)

    return update_wrapper(wrapped, function, assigned=("__name__", "__doc__", "__module__"), updated=())


def run() -> NoReturn:
    """Run the command line; whatever a user can cause ends in a message, a hint and an exit code."""
    settings = Settings()
    streams.keep()
    try:
        code = root.main(prog_name="orchestrator", standalone_mode=False, obj=settings)
        code = code if isinstance(code, int) else 0
        _require_told(settings)
        sys.exit(code)
    except OrchestratorError as error:
        _fail(settings, type(error).__name__, error.message, error.hint, error.exit_code)
    except click.UsageError as error:
        where = error.ctx.command_path if error.ctx is not None else "orchestrator"
        _fail(settings, "UsageError", error.format_message(), f"{where} --help", 2)
    except click.ClickException as error:
        _fail(settings, type(error).__name__, error.format_message(), None, 2)
    except (click.Abort, KeyboardInterrupt):
        _fail(settings, "Interrupted", "interrupted", None, 130)


def _require_told(settings: Settings) -> None:
    try:
        streams.require_told()
    except streams.OutputLost as error:
        if not settings.ran:
            raise
        # What a run has done is done: an exit code that says that nothing was touched would be wrong.
        click.echo(f"warning: {error.message}\n  hint: {error.hint}", err=True)


def _fail(settings: Settings, kind: str, message: str, hint: str | None, code: int) -> NoReturn:
    import json

    from orchestrator.cli.hints import typed
    from orchestrator.fleet.secrets import mask

    message, hint = mask(message), mask(typed(hint, settings.config)) if hint else None
    if settings.json or "--json" in sys.argv:
        print(json.dumps({"error": {"type": kind, "message": message, "hint": hint}}, ensure_ascii=False))
    print(f"error: {message}", file=sys.stderr)
    if hint:
        print(f"  hint: {hint}", file=sys.stderr)
    sys.exit(code)
