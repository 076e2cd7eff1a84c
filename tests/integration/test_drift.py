"""drift: every kind of difference is found and told, none is invented, and what is suggested takes it away."""

from __future__ import annotations

from itertools import cycle, islice
from typing import Any

from tests.command_line import Project
from tests.drifting import PLANTS, carry_out, drifting, plant

TENANTS = [f"t{number:03}" for number in range(1, 301)]
#: Every sixth tenant is odd, or at least not as the others are.
ODD = dict(zip(TENANTS[::6], islice(cycle(PLANTS), len(TENANTS[::6])), strict=True))


def lines_of(document: Any) -> dict[str, list[str]]:
    """What is told of each odd tenant."""
    return {each["tenant"]: each["difference"] for each in document["odd"]}


async def test_every_kind_of_drift_in_some_of_300(project: Project) -> None:
    """All that was planted is found, in those tenants and no others; carrying the suggestions out takes it away."""
    drifting(project, TENANTS)
    assert project.json("drift")["summary"] == {"identical": 300, "accepted": 0, "odd": 0, "not_compared": 0}
    for tenant, kind in ODD.items():
        plant(project, tenant, PLANTS[kind].sql)
    document = project.json("drift", exit_code=3, timeout=120)
    expected = {tenant: list(PLANTS[kind].told) for tenant, kind in ODD.items() if PLANTS[kind].told}
    assert lines_of(document) == expected
    assert document["not_compared"] == []
    shapes = {shape["example"]: shape for shape in document["shapes"]}
    assert shapes[TENANTS[1]]["tenants"] == 300 - len(expected)
    assert {shape["fingerprint"] for shape in shapes.values()} >= {each["fingerprint"] for each in document["odd"]}
    mended = set()
    for kind, planted in PLANTS.items():
        tenants = [tenant for tenant, there in ODD.items() if there == kind]
        if not planted.told:
            continue
        shape = shapes[tenants[0]]
        assert shape["tenants"] == len(tenants), kind
        lines = shape["operations"]
        for line, start in zip(lines, planted.operations, strict=planted.operations[-1] != "..."):
            assert start == "..." or line.startswith(start), (kind, lines)
        if not any(line.startswith("#") for line in lines):
            await carry_out(project.url, tenants[0], lines)
            mended.add(tenants[0])
    again = lines_of(project.json("drift", exit_code=3, timeout=120))
    assert again.keys() == expected.keys() - mended
    assert {ODD[tenant] for tenant in expected.keys() - mended - again.keys()} == set()
