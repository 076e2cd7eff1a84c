"""Where a tenant stands, held against what Alembic does there."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.errors import HistoryError
from orchestrator.history.directory import History
from orchestrator.history.position import position, stand
from orchestrator.statuses import TenantStatus
from tests.unit.history.directories import Revision, alembic_runs, directory, line, shapes

CURRENT, AHEAD, BEHIND, DIVERGED = (
    TenantStatus.CURRENT,
    TenantStatus.AHEAD,
    TenantStatus.BEHIND,
    TenantStatus.DIVERGED,
)
#: Each example writes a directory.
few = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def walked(history: History, data: st.DataObject) -> tuple[str, ...]:
    """Heads that a tenant can really have: those that Alembic left after upgrades to some revisions."""
    heads: tuple[str, ...] = ()
    for target in data.draw(st.lists(st.sampled_from(sorted(history.graph.parents)), max_size=3), label="walk"):
        heads = alembic_runs(history, "upgrade", heads, target).heads
    return heads


@few
@given(shapes(), st.data())
def test_upgrade_does_what_alembic_does(shape: list[Revision], data: st.DataObject) -> None:
    """The path is what Alembic runs; a tenant is behind exactly where Alembic has something to run."""
    with directory(shape) as history:
        heads = walked(history, data)
        target = data.draw(st.sampled_from(["heads", *sorted(history.graph.parents)]), label="target")
        ran = alembic_runs(history, "upgrade", heads, target)

        here = position(history, "upgrade", heads, target)

        assert here.status in {CURRENT, AHEAD, BEHIND, DIVERGED}
        if here.problem is None:
            assert here.path == ran.revisions
            assert (here.status is BEHIND) == bool(ran.revisions)
        if here.status is BEHIND:
            assert stand(history.graph, ran.heads, history.resolve(target)) in {CURRENT, AHEAD}


@few
@given(shapes(), st.data())
def test_heads_are_never_refused(shape: list[Revision], data: st.DataObject) -> None:
    """From wherever Alembic can have left a tenant there is a way to `heads`, and it ends there."""
    with directory(shape) as history:
        heads = walked(history, data)

        here = position(history, "upgrade", heads, "heads")

        assert here.problem is None
        assert (here.status is CURRENT) == (history.graph.closure(heads) == set(history.graph.parents))


@few
@given(shapes(dependencies=False), st.data())
def test_diverged_means_a_sibling_branch(shape: list[Revision], data: st.DataObject) -> None:
    """Diverged: no head is before the target, they have an ancestor in common, and the target is not applied."""
    with directory(shape) as history:
        heads = walked(history, data)
        target = data.draw(st.sampled_from(sorted(history.graph.parents)), label="target")
        wanted, applied = history.graph.closure([target]), history.graph.closure(heads)

        diverged = stand(history.graph, heads, [target]) is DIVERGED

        sibling = bool(wanted & applied) and not wanted.intersection(heads)
        assert diverged == (sibling and target not in applied)


@few
@given(shapes(dependencies=False), st.data())
def test_ahead_means_that_a_downgrade_would_do_something(shape: list[Revision], data: st.DataObject) -> None:
    """A tenant ahead of a revision has it applied and something after it."""
    with directory(shape) as history:
        heads = walked(history, data)
        target = data.draw(st.sampled_from(sorted(history.graph.parents)), label="target")

        status = stand(history.graph, heads, [target])

        after = {name for name in history.graph.closure(heads) if target in history.graph.before(name)}
        assert (status is AHEAD) == bool(after)


@few
@given(shapes(dependencies=False), st.data())
def test_downgrade_does_what_alembic_does(shape: list[Revision], data: st.DataObject) -> None:
    """The path down is what Alembic runs, and where Alembic refuses there is a problem."""
    with directory(shape) as history:
        heads = walked(history, data)
        target = data.draw(st.sampled_from(["base", *sorted(history.graph.parents)]), label="target")
        ran = alembic_runs(history, "downgrade", heads, target)

        here = position(history, "downgrade", heads, target)

        assert (here.problem is not None) == (ran.revisions is None)
        if here.problem is None:
            assert here.path == ran.revisions
            assert (here.status is AHEAD) == bool(ran.revisions)


@few
@given(shapes(), st.data())
def test_unknown_head_is_never_migrated(shape: list[Revision], data: st.DataObject) -> None:
    """One head that the directory does not have blocks every migration."""
    with directory(shape) as history:
        heads = (*walked(history, data), "ghost")
        for command, target in (("upgrade", "heads"), ("downgrade", "base"), ("upgrade", "r0")):
            here = position(history, command, heads, target)

            assert (here.status, here.kind, here.path) == (TenantStatus.UNKNOWN_REVISION, "unknown_revision", ())
            assert "ghost" in str(here.problem)


BRANCHED = [
    *line("a", "b"),
    Revision("c1", ("b",)),
    Revision("c2", ("b",)),
    Revision("m", ("c1", "c2")),
    *line("s1", "s2", label="shared"),
]


@pytest.mark.parametrize(
    ("heads", "target", "status", "path"),
    [
        ((), "b", BEHIND, ("a", "b")),
        (("a",), "b", BEHIND, ("b",)),
        (("b",), "b", CURRENT, ()),
        (("c1",), "b", AHEAD, ()),
        (("c1",), "m", BEHIND, ("c2", "m")),
        (("c1", "c2"), "m", BEHIND, ("m",)),
        (("m",), "c1", AHEAD, ()),
        (("c1",), "c2", DIVERGED, ()),
        (("m",), "shared@head", BEHIND, ("s1", "s2")),
        (("m", "s1"), "shared@head", BEHIND, ("s2",)),
        (("s2",), "m", BEHIND, None),
        (("m", "s2"), "heads", CURRENT, ()),
        (("m", "s2"), "shared@head", CURRENT, ()),
        (("b",), "+1", DIVERGED, ()),
        (("a",), "+1", BEHIND, ("b",)),
    ],
)
def test_upgrade(heads: tuple[str, ...], target: str, status: TenantStatus, path: tuple[str, ...] | None) -> None:
    """Each kind of place in a directory with a branch, its merge, and a labelled branch of its own."""
    with directory(BRANCHED) as history:
        here = position(history, "upgrade", heads, target)

    assert here.status is status
    assert path is None or here.path == path
    assert (here.problem is not None) == (status is DIVERGED)
    assert here.problem is None or here.problem.hint


def test_labelled_branch_that_depends_on_another() -> None:
    """A head of one labelled branch is no obstacle to the branch that it depends on."""
    shape = [*line("s1", "s2", label="shared"), Revision("t1", depends=("s1",), label="tenant")]
    with directory(shape) as history:
        heads = alembic_runs(history, "upgrade", (), "tenant@head").heads
        here = position(history, "upgrade", heads, "shared@head")
        ran = alembic_runs(history, "upgrade", heads, "shared@head")

    assert (here.status, here.path) == (BEHIND, ("s2",))
    assert ran.revisions == ("s2",)


def test_relative_downgrade_with_two_heads_is_refused() -> None:
    """-1 with two heads would take back one of them, whichever comes first."""
    with directory(BRANCHED) as history:
        here = position(history, "downgrade", ("c1", "c2"), "-1")

    assert here.kind == "diverged"
    assert "2 heads" in str(here.problem)


def test_relative_downgrade_with_one_head() -> None:
    """-1 takes back the one head."""
    with directory(BRANCHED) as history:
        assert position(history, "downgrade", ("b",), "-1").path == ("b",)


@pytest.mark.parametrize(
    ("downgrade", "reason"),
    [("", "no downgrade"), ("def downgrade():\n    raise NotImplementedError\n", "irreversible")],
    ids=["without the function", "raises"],
)
def test_revision_without_a_way_back(downgrade: str, reason: str) -> None:
    """A downgrade that would pass a revision which cannot be taken back is a problem before anything runs."""
    shape = [*line("a", "b"), Revision("c", ("b",), downgrade=downgrade), Revision("d", ("c",))]
    with directory(shape) as history:
        blocked = position(history, "downgrade", ("d",), "a")
        short = position(history, "downgrade", ("d",), "c")

    assert reason in str(blocked.problem).replace("_", " ")
    assert "c" in str(blocked.problem)
    assert blocked.kind == "irreversible"
    assert (short.problem, short.path) == (None, ("d",))


@pytest.mark.parametrize("command", ["upgrade", "downgrade", "stamp"])
def test_target_that_does_not_exist(command: str) -> None:
    """A target that the directory does not have is the command's fault, not a tenant's."""
    with directory(BRANCHED) as history, pytest.raises(HistoryError, match="nowhere"):
        position(history, command, ("b",), "nowhere")


@pytest.mark.parametrize(
    ("heads", "target", "status"),
    [(("b",), "b", CURRENT), (("a",), "b", BEHIND), (("ghost",), "b", BEHIND), (("ghost",), "base", BEHIND)],
)
def test_stamp(heads: tuple[str, ...], target: str, status: TenantStatus) -> None:
    """Stamping is to do unless the heads are the very ones; it is the way out of an unknown revision."""
    with directory(BRANCHED) as history:
        here = position(history, "stamp", heads, target)

    assert (here.status, here.problem) == (status, None)


def test_asked_once() -> None:
    """Ten thousand tenants at the same heads ask Alembic for one way, and each other question gets its own answer."""
    with directory(line("a", "b", "c")) as history:
        first, again = (position(history, "upgrade", ("a",), "heads") for _ in range(2))
        others = [
            position(history, "upgrade", ("b",), "heads"),
            position(history, "upgrade", ("a",), "b"),
            position(history, "downgrade", ("a",), "base"),
        ]

    assert again is first
    assert [here.path for here in others] == [("c",), ("b",), ("a",)]
