"""Claims from a pool beside bare renames, in one process: ``claim_process.py PROJECT ADDRESS COUNT PREFIX``.

Each claim makes a ready database the tenant's, and writes the tenant into a table, by a SQL source's statement. Beside
it, over a connection that is open, ALTER DATABASE ... RENAME and INSERT. It prints the seconds of both, as JSON.
"""

import asyncio
import json
import os
import sys
import time

import asyncpg

import orchestrator
from orchestrator.actions.onboarding.making import template_of
from orchestrator.actions.onboarding.pooling import pool_for
from orchestrator.actions.project import opened_project
from orchestrator.databases.claims import Claim, Marker
from orchestrator.fleet.tenant import Isolation, Tenant


async def main(project: str, address: str, count: int, prefix: str) -> None:
    """Take turns: one of ours, one bare."""
    os.chdir(project)
    fleet = orchestrator.load("tenants.yaml")
    (server,) = fleet.servers
    async with orchestrator.onboarding(fleet, refill=False) as desk:
        await desk.prepare(server=server, isolation="database")
    raw = await asyncpg.connect(address)
    await raw.execute("CREATE TABLE IF NOT EXISTS registry (id text PRIMARY KEY)")
    claims, renames = [], []
    async with opened_project(fleet) as opened:
        opened.servers.connect_all(fleet)
        database = opened.databases[server]
        example = Tenant("example", server, Isolation.DATABASE, database="example")
        template = await template_of(opened, example, "heads")
        assert template is not None
        pool = pool_for(opened, example, template)
        for number in range(count):
            await raw.execute(f'CREATE DATABASE "{prefix}spare_{number}" TEMPLATE "{template.name}"')
        # What is still to be written of all that was made is nobody's cost.
        await raw.execute("CHECKPOINT")
        for number in range(count):
            name = f"{prefix}claimed_{number}"
            tenant = Tenant(name, server, Isolation.DATABASE, database=name)
            claim = Claim(Marker(opened.identity, name, fresh=True), template=template, pool=pool)
            started = time.perf_counter()
            found = await database.claim(tenant, claim, 10.0)
            await database.write("INSERT INTO registry (id) VALUES (:id)", {"id": name})
            claims.append(time.perf_counter() - started)
            assert found.taken, found
            name = f"{prefix}renamed_{number}"
            started = time.perf_counter()
            await raw.execute(f'ALTER DATABASE "{prefix}spare_{number}" RENAME TO "{name}"')
            await raw.execute("INSERT INTO registry (id) VALUES ($1)", name)
            renames.append(time.perf_counter() - started)
    await raw.close()
    print(json.dumps({"claims": claims, "renames": renames}))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]))
