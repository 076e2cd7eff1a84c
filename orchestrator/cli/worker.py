"""orchestrator worker"""

from __future__ import annotations

import logging
import os
import sys

import click

from orchestrator.cli.group import command
from orchestrator.cli.running import serve
from orchestrator.cli.settings import Settings


@click.command()
@click.option(
    "--slots",
    type=click.IntRange(min=1),
    default=256,
    show_default=True,
    metavar="N",
    help="Workers at most, on all machines together; each holds one of N slots.",
)
@command
def worker(settings: Settings, slots: int) -> None:
    """Take part in distributed runs (--executor dbos), until SIGTERM or SIGINT.

    Needs the journal on a PostgreSQL server. Any number of workers, anywhere, with the same tenants.yaml and versions
    directory: one with another directory takes no job.
    """
    level = logging.DEBUG if settings.verbose else logging.INFO
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    for name in ("orchestrator.worker", "orchestrator.run"):
        logging.getLogger(name).setLevel(level)
    fleet = settings.fleet(may_be_empty=True)

    async def work() -> int:
        from orchestrator.actions.worker import work as take_part
        from orchestrator.rollout.stop import Stop

        stop = Stop()
        received = serve(stop)
        await take_part(fleet, slots=slots, stop=stop, said=lambda text: click.echo(text, err=True))
        sys.stdout.flush()
        sys.stderr.flush()
        # Not by way of Python's end: a run as a whole that is here would be cancelled, and take that for its end.
        os._exit(128 + received[0] if received else 2)

    import asyncio

    asyncio.run(work())
