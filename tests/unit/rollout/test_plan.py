"""Plans: who is attempted, to what, and why not."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, timedelta

import pytest

from orchestrator.databases.answers import Reading
from orchestrator.databases.failures import Failure
from orchestrator.errors import HistoryError, UsageError
from orchestrator.fleet.fleet import FailureBudget, Policy, Wave
from orchestrator.fleet.selection import Selection
from orchestrator.history.directory import History
from orchestrator.rollout.planning import Request
from tests.unit.history.directories import Revision, directory, line
from tests.unit.rollout.fleets import TODAY, plan, planned, tenant

UP = Request("upgrade")
AWAY = Failure("unreachable", "no connection")


@pytest.fixture(scope="module")
def history() -> Iterator[History]:
    """Three revisions in a row, a sibling of the second, a labelled branch of its own."""
    shape = [
        *line("a", "b", "c"),
        Revision("x", ("a",)),
        *line("s1", "s2", label="shared"),
        Revision("l1", label="line"),
        Revision(
            "l2", ("l1",), upgrade="op.drop_table('t')", downgrade="def downgrade():\n    op.drop_column('t', 'c')\n"
        ),
        Revision("l3", ("l2",), downgrade="def downgrade():\n    raise NotImplementedError\n"),
        Revision("l4", ("l3",), upgrade="global seen"),
    ]
    with directory(shape) as found:
        yield found


@pytest.mark.parametrize(
    ("request_", "reading", "state", "verdict", "path"),
    [
        (Request("upgrade", "c"), Reading(True, ("a",)), "behind", "pending", ("b", "c")),
        (Request("upgrade", "c"), Reading(True), "behind", "pending", ("a", "b", "c")),
        (Request("upgrade", "c"), Reading(True, ("c",)), "current", "already_current", ()),
        (Request("upgrade", "b"), Reading(True, ("c",)), "ahead", "skipped", ()),
        (Request("upgrade", "c"), Reading(True, ("x",)), "diverged", "blocked", ()),
        (Request("upgrade", "c"), Reading(True, ("ghost",)), "unknown_revision", "blocked", ()),
        (Request("upgrade", "c"), Reading(False), "unprovisioned", "blocked", ("a", "b", "c")),
        (Request("upgrade", "c", provision=True), Reading(False), "unprovisioned", "pending", ("a", "b", "c")),
        (Request("upgrade", "c"), Reading(True, failure=AWAY), "unreachable", "failed", ()),
        (Request("upgrade", "+1"), Reading(True, ("a", "x")), "diverged", "blocked", ()),
        (Request("upgrade", "shared@head"), Reading(True, ("c",)), "behind", "pending", ("s1", "s2")),
        (Request("downgrade", "a"), Reading(True, ("c",)), "ahead", "pending", ("c", "b")),
        (Request("downgrade", "c"), Reading(True, ("c",)), "current", "already_current", ()),
        (Request("downgrade", "-1"), Reading(True, ("c",)), "ahead", "pending", ("c",)),
        (Request("downgrade", "-1"), Reading(True, ("b", "x")), "diverged", "blocked", ()),
        (Request("downgrade", "l2"), Reading(True, ("l4",)), "ahead", "blocked", ("l4", "l3")),
        (Request("downgrade", "a"), Reading(True, ("ghost",)), "unknown_revision", "blocked", ()),
        (Request("downgrade", "a", provision=True), Reading(False), "unprovisioned", "blocked", ()),
        (Request("stamp", "c"), Reading(True, ("ghost",)), "behind", "pending", ()),
        (Request("stamp", "c"), Reading(True, ("c",)), "current", "already_current", ()),
        (Request("stamp", "c"), Reading(False), "unprovisioned", "blocked", ()),
    ],
)
def test_verdicts(
    history: History, request_: Request, reading: Reading, state: str, verdict: str, path: tuple[str, ...]
) -> None:
    """For each command and each way a tenant can be found: its state, whether it is attempted, what would run."""
    found = planned(history, request_, tenant("acme"), reading)

    assert (found.state, found.verdict, found.path) == (state, verdict, path)
    assert (found.failure is not None) == (verdict in {"blocked", "failed"})
    assert found.heads == (None if reading.failure else reading.heads)


@pytest.mark.parametrize(
    ("reading", "kind"),
    [
        (Reading(True, ("x",)), "diverged"),
        (Reading(True, ("ghost",)), "unknown_revision"),
        (Reading(False), "unprovisioned"),
        (Reading(True, failure=AWAY), "unreachable"),
    ],
)
def test_why_not(history: History, reading: Reading, kind: str) -> None:
    """What keeps a tenant from being attempted has a short name, and but for the server's own words a hint."""
    failure = planned(history, Request("upgrade", "c"), tenant("acme"), reading).failure

    assert failure is not None
    assert failure.type == kind
    assert failure.hint or kind == "unreachable"


@pytest.mark.parametrize(
    ("heads", "state", "verdict", "path"),
    [
        (("a",), "behind", "pending", ("b",)),
        (("b",), "pinned", "skipped", ()),
        (("c",), "pinned", "skipped", ()),
        (("x",), "diverged", "blocked", ()),
        (("ghost",), "unknown_revision", "blocked", ()),
    ],
)
def test_pin(history: History, heads: tuple[str, ...], state: str, verdict: str, path: tuple[str, ...]) -> None:
    """A pinned tenant is brought to its pin and no further, whatever target was asked for."""
    for target in (None, "c"):
        found = planned(history, Request("upgrade", target), tenant("acme", pin="b"), Reading(True, heads))

        assert (found.state, found.verdict, found.path, found.goal) == (state, verdict, path, ("b",))


@pytest.mark.parametrize(
    ("until", "holds"), [(TODAY + timedelta(days=1), True), (TODAY, False), (date(2020, 1, 1), False)]
)
def test_pin_until(history: History, until: date, holds: bool) -> None:
    """A pin holds up to the day before `until`."""
    found = planned(history, Request("upgrade", "c"), tenant("acme", pin="b", until=until), Reading(True, ("b",)))

    assert found.verdict == ("skipped" if holds else "pending")


def test_together_as_alone(history: History) -> None:
    """What is decided once for tenants that are alike is decided for nobody who differs in one respect."""
    at_a, request = Reading(True, ("a",)), Request("upgrade", fixed={"fixed": "b"})
    tomorrow = TODAY + timedelta(days=1)
    everybody = {
        tenant("plain", target="c"): at_a,
        tenant("same", target="c"): at_a,
        tenant("further", target="c"): Reading(True, ("b",)),
        tenant("gone", target="c"): Reading(False, ("a",)),
        tenant("away", target="c"): Reading(True, ("a",), AWAY),
        tenant("else", target="x"): at_a,
        tenant("pinned", target="c", pin="b", until=tomorrow): at_a,
        tenant("ended", target="c", pin="b", until=TODAY): at_a,
        tenant("held", target="c", pin="a"): at_a,
        tenant("fixed", target="c"): at_a,
    }

    together = plan(history, request, everybody).tenants

    assert together == tuple(planned(history, request, one, reading) for one, reading in everybody.items())


def test_pin_holds_nobody_back(history: History) -> None:
    """A pin is about upgrades: downgrade and stamp go where they are told."""
    pinned = tenant("acme", pin="b")

    assert planned(history, Request("downgrade", "a"), pinned, Reading(True, ("b",))).path == ("b",)
    assert planned(history, Request("stamp", "c"), pinned, Reading(True, ("b",))).verdict == "pending"


@pytest.mark.parametrize("keys", [{"pin": "nowhere"}, {"target": "nowhere"}], ids=["pin", "target"])
def test_tenant_with_a_target_that_does_not_exist(history: History, keys: dict[str, str]) -> None:
    """A revision that tenants.yaml names wrongly is told with the tenant it was written at."""
    with pytest.raises(HistoryError, match=r"acme.*nowhere"):
        planned(history, UP, tenant("acme", **keys), Reading(True))


def test_targets_of_their_own(history: History) -> None:
    """Without a target on the command line each tenant goes to its own; with one, all go there."""
    readings = {tenant("public", target="shared@head"): Reading(True), tenant("acme", target="b"): Reading(True)}

    own, asked = plan(history, UP, readings), plan(history, Request("upgrade", "a"), readings)

    assert [each.path for each in own.tenants] == [("s1", "s2"), ("a", "b")]
    assert own.target == ("b", "s2")
    assert [each.path for each in asked.tenants] == [("a",), ("a",)]


def test_revision_with_global_state_is_serial(history: History) -> None:
    """Only who runs the revision with `global` is serial."""
    found = plan(
        history,
        Request("upgrade", "line@head"),
        {tenant("a"): Reading(True, ("l3",)), tenant("b"): Reading(True, ("l4",)), tenant("c"): Reading(True, ("l1",))},
    )

    assert [each.serial for each in found.tenants] == [True, False, True]


def test_hazards_of_the_direction(history: History) -> None:
    """Each hazard is told once, and only those that matter for the way the plan goes."""
    two = {tenant("a"): Reading(True, ("l1",)), tenant("b"): Reading(True, ("l1",))}
    back = {tenant("a"): Reading(True, ("l2",))}

    up, down = plan(history, Request("upgrade", "l2"), two), plan(history, Request("downgrade", "l1"), back)

    assert [hazard.kind for hazard in up.hazards] == ["upgrade_loses_data"]
    assert [hazard.kind for hazard in down.hazards] == ["downgrade_loses_data"]


def test_cohorts(history: History) -> None:
    """Tenants with the same dialect, version, heads and path are one cohort; who is not attempted is in none."""
    found = plan(
        history,
        Request("upgrade", "c"),
        {
            tenant("a"): Reading(True, ("a",)),
            tenant("b"): Reading(True, ("b",)),
            tenant("c"): Reading(True, ("b",)),
            tenant("d"): Reading(True, ("c",)),
            tenant("e", pin="b"): Reading(True, ("a",)),
        },
    )

    shown = [(each.start, each.goal, each.path, each.tenants, each.example.tenant.id) for each in found.cohorts]
    assert shown[0] == (("b",), ("c",), ("c",), 2, "b")
    assert sorted(shown[1:]) == [(("a",), ("b",), ("b",), 1, "e"), (("a",), ("c",), ("b", "c"), 1, "a")]


@pytest.mark.parametrize(
    ("asked", "wave", "policy", "budget"),
    [
        (None, None, FailureBudget(3), FailureBudget(3)),
        (None, FailureBudget(2), FailureBudget(3), FailureBudget(2)),
        (FailureBudget(0), FailureBudget(2), FailureBudget(3), FailureBudget(0)),
        (FailureBudget(None), FailureBudget(2), FailureBudget(3), FailureBudget(None)),
    ],
    ids=["policy", "wave", "command line: none", "command line: any number"],
)
def test_whose_budget_holds(
    history: History,
    asked: FailureBudget | None,
    wave: FailureBudget | None,
    policy: FailureBudget,
    budget: FailureBudget,
) -> None:
    """The command line's budget wins over the wave's, and the wave's over the policy's."""
    found = plan(
        history,
        Request("upgrade", budget=asked),
        {tenant("a"): Reading(True)},
        waves=(Wave("first", max_failures=wave),),
        policy=Policy(max_failures=policy),
    )

    assert [each.budget for each in found.waves] == [budget]


def test_one_wave(history: History) -> None:
    """--wave leaves only that wave's tenants, as they are when all waves are dealt."""
    waves = (Wave("canary", Selection(tags=("canary",))), Wave("half", percent=50))
    readings = {tenant(id, tags=("canary",) if id == "a" else ()): Reading(True) for id in "abcd"}

    found = plan(history, Request("upgrade", wave="half"), readings, waves=waves)

    assert [(wave.name, [each.tenant.id for each in wave.tenants]) for wave in found.waves] == [("half", ["b", "c"])]


def test_wave_that_does_not_exist(history: History) -> None:
    """An unknown wave is refused, with the waves there are."""
    with pytest.raises(UsageError, match="canry") as refused:
        plan(history, Request("upgrade", wave="canry"), {tenant("a"): Reading(True)}, waves=(Wave("canary"),))

    assert "canary" in (refused.value.hint or "")
