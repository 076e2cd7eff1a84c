"""Open the journal that a fleet names."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from orchestrator.databases.address import parse
from orchestrator.errors import JournalError
from orchestrator.fleet.fleet import Fleet
from orchestrator.fleet.secrets import Template
from orchestrator.journal.journal import Journal, default_url

log = logging.getLogger("orchestrator.journal")


def journal_url(template: str, fleet: Fleet) -> str:
    """The journal's address with its secrets put in.

    Args:
        template: what tenants.yaml says.
        fleet: whose it is.
    """
    return Template(template, fleet.root).resolve()


@asynccontextmanager
async def opened_journal(fleet: Fleet, *, read_only: bool = False) -> AsyncIterator[Journal]:
    """The fleet's journal, closed at the end.

    Args:
        fleet: says where; without a word, ``.orchestrator/journal.db`` beside tenants.yaml.
        read_only: write nothing; a missing journal reads as empty.

    Raises:
        JournalError: it cannot be opened.
    """
    if fleet.journal is None:
        journal = await Journal.open(default_url(fleet.root), root=fleet.root, read_only=read_only)
    else:
        address = parse(journal_url(fleet.journal, fleet))
        if address.dialect == "sqlite" and address.database is not None:
            # As every path in tenants.yaml: relative to it, wherever the command is run.
            address = address.with_database(str(fleet.root / address.database))
        journal = await Journal.open(
            address.url, address.connect_args, address.masked, root=fleet.root, read_only=read_only
        )
    try:
        yield journal
    except BaseException:
        # What ended the work is what the operator must see; the journal saves to a file what it could not write.
        with suppress(JournalError):
            await journal.close()
        raise
    try:
        await journal.close()
    except JournalError as error:
        if read_only:
            raise
        # The work is done, and how it ended is to be told: an error instead would say that nothing was touched.
        log.warning("%s\n  hint: %s", error.message, error.hint)
