"""examples/signup, driven over HTTP by customers who sign up at once, twice, and with names that cannot be."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx

from tests.command_line import THIRD, Project
from tests.workspace import REPOSITORY


@asynccontextmanager
async def serving(project: Project) -> AsyncIterator[httpx.AsyncClient]:
    """The application in a process of its own, as uvicorn runs it."""
    listener = socket.create_server(("127.0.0.1", 0))
    environment = project.workspace.environment({"ORCHESTRATOR_CONFIG": str(project.workspace.path / "tenants.yaml")})
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "uvicorn", "app:app", "--fd", str(listener.fileno()), "--log-level", "info"),
        cwd=REPOSITORY / "examples" / "signup",
        env=environment,
        pass_fds=[listener.fileno()],
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    try:
        told = b""
        while b"startup complete" not in told:
            line = await process.stderr.readline()
            assert line, told.decode()
            told += line
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        async with httpx.AsyncClient(base_url=address, timeout=60) as client:
            yield client
    finally:
        process.terminate()
        await process.communicate()
        listener.close()


async def test_sign_ups(project: Project) -> None:
    """Ten customers at once get a tenant each, the eleventh is one of them again, and others are told what is wrong."""
    project.fleet()
    project.execute("CREATE SCHEMA theirs; CREATE TABLE theirs.t ()")
    async with serving(project) as client:

        async def sign_up(slug: str, plan: str = "free") -> int:
            answer = await client.post("/signup", json={"slug": slug, "plan": plan})
            return answer.status_code

        names = [f"customer-{number}" for number in range(10)]
        assert await asyncio.gather(*map(sign_up, names)) == [201] * 10
        assert await sign_up("customer-3") == 200
        assert await sign_up("theirs") == 409
        assert await sign_up("No Name") == 422
    shown = {tenant["tenant"]: tenant for tenant in project.json("status")["tenants"]}
    assert sorted(shown) == sorted(names)
    assert {(tuple(tenant["heads"]), tuple(tenant["tags"])) for tenant in shown.values()} == {((THIRD,), ("free",))}
