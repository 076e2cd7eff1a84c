"""A process that has opened its project, as a sign-up flow's has: ``warm_process.py PROJECT KIND``.

For each name that it reads, it makes that tenant, and says in a line of JSON how long that took and which way it went.
"""

import asyncio
import json
import os
import sys
import time
from dataclasses import replace
from pathlib import Path

import orchestrator
from orchestrator.actions.making import make, prepare
from orchestrator.actions.project import opened_project
from orchestrator.fleet.tenant import Isolation, Limits


async def main(project: str, kind: str) -> None:
    """Make whoever is asked for."""
    os.chdir(project)
    async with opened_project(orchestrator.load(Path("tenants.yaml"))) as opened:
        example = opened.fleet.tenants[0]

        def named(name: str):
            if kind == "schema":
                return replace(example, id=name, schema=name)
            return replace(example, id=name, isolation=Isolation.DATABASE, schema=None, database=name)

        started = time.perf_counter()
        blueprint = await prepare(opened, named("example"), "heads")
        print(json.dumps({"seconds": time.perf_counter() - started, "template": blueprint.template}), flush=True)
        while name := (await asyncio.to_thread(sys.stdin.readline)).strip():
            started = time.perf_counter()
            made = await make(opened, named(name), "heads", application="bench", limits=Limits())
            seconds = time.perf_counter() - started
            print(json.dumps({"seconds": seconds, "way": made.way, "not_taken": dict(made.not_taken)}), flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
