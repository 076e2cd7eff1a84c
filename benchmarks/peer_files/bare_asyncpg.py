"""What asyncpg alone does: connect, run the script, close. ``bare_asyncpg.py SCRIPT AT_ONCE ADDRESSES``."""

import asyncio
import sys
from pathlib import Path

import asyncpg


async def main(script: str, at_once: int, addresses: list[str]) -> None:
    """Run ``script`` at every address, ``at_once`` at a time."""
    waiting = iter(addresses)

    async def work() -> None:
        for address in waiting:
            connection = await asyncpg.connect(address)
            await connection.execute(script)
            await connection.close()

    await asyncio.gather(*(work() for _ in range(at_once)))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]).read_text(), int(sys.argv[2]), Path(sys.argv[3]).read_text().split()))
