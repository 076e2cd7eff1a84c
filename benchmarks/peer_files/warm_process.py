"""A sign-up flow's process, with a desk open: ``warm_process.py PROJECT KIND``.

It prepares, and says how long that took. Then it onboards each name that it reads, and says in a line of JSON how long
that took and which way it went.
"""

import asyncio
import json
import os
import sys
import time

import orchestrator


async def main(project: str, kind: str) -> None:
    """Onboard whoever is asked for."""
    os.chdir(project)
    async with orchestrator.onboarding(orchestrator.load("tenants.yaml")) as desk:
        started = time.perf_counter()
        ready = await desk.prepare(isolation=kind)
        print(json.dumps({"seconds": time.perf_counter() - started, **ready.as_json()}), flush=True)
        while name := (await asyncio.to_thread(sys.stdin.readline)).strip():
            started = time.perf_counter()
            result = await desk.onboard({"id": name, "isolation": kind})
            seconds = time.perf_counter() - started
            (tenant,) = result.tenants
            print(json.dumps({"seconds": seconds, "way": tenant.path, "error": tenant.error}), flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
