"""The way back to the heads before a run, over directories of any shape, with Alembic as the judge."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from orchestrator.history.directory import History
from orchestrator.history.position import position
from orchestrator.history.way_back import Stand, WayBack, stand_to
from orchestrator.migration.work import Work
from orchestrator.statuses import TenantStatus
from tests.unit.history.directories import Ran, Revision, alembic_runs, directory, line, runs, shapes

#: Each example writes a directory. More of them: GENERATED_SHAPES=300 make test PYTEST_ARGS="-k way_back".
few = settings(
    max_examples=int(os.environ.get("GENERATED_SHAPES", "30")),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)

#: Two lines that are joined and go on, and a third one that needs the first.
BRANCHED = [
    *line("a1", "a2"),
    *line("b1", "b2"),
    Revision("m", ("a2", "b2")),
    Revision("n", ("m",)),
    Revision("c1", depends=("a1",)),
    # One that splits and is joined again.
    Revision("d", label="diamond"),
    Revision("d1", ("d",)),
    Revision("d2", ("d",)),
    Revision("dd", ("d1", "d2")),
]


def walked(history: History, data: st.DataObject, heads: tuple[str, ...] = ()) -> tuple[str, ...]:
    """The heads that Alembic leaves after upgrades to some revisions."""
    for target in data.draw(st.lists(st.sampled_from(sorted(history.graph.parents)), max_size=3), label="walk"):
        heads = alembic_runs(history, "upgrade", heads, target).heads
    return heads


def taken_back(history: History, heads: tuple[str, ...], way: WayBack) -> Ran:
    """What Alembic does when it is given the steps of a rollback."""
    steps = Work.of(history, "rollback", str(way)).options["fn"]
    return runs(history, lambda current: steps(current, None), heads)


@few
@given(shapes(), st.data())
def test_back_to_its_own_heads(shape: list[Revision], data: st.DataObject) -> None:
    """Whatever upgrades did, the way back runs exactly that, each revision after all that need it, and ends there."""
    with directory(shape) as history:
        graph = history.graph
        before = walked(history, data)
        after = walked(history, data, before)
        way = WayBack(after, before)

        here = position(history, "rollback", after, str(way))

        assert here.problem is None
        assert set(here.path) == graph.closure(after) - graph.closure(before)
        assert len(here.path) == len(set(here.path))
        for number, revision in enumerate(here.path):
            assert not any(revision in graph.before(later) for later in here.path[number + 1 :])
        ran = taken_back(history, after, way)
        assert (ran.revisions, ran.heads) == (here.path, before)
        assert position(history, "rollback", ran.heads, str(way)).status is TenantStatus.CURRENT


@few
@given(shapes(), st.data())
def test_from_any_point_on_the_way(shape: list[Revision], data: st.DataObject) -> None:
    """Cut off after any of its revisions, the rest of the way is the rest of the path."""
    with directory(shape) as history:
        before = walked(history, data)
        after = walked(history, data, before)
        way = str(WayBack(after, before))
        path = position(history, "rollback", after, way).path
        assume(path)
        done = data.draw(st.integers(0, len(path)))
        heads = history.graph.tips(history.graph.closure(after) - set(path[:done]))

        rest = position(history, "rollback", heads, way)

        assert rest.problem is None
        assert set(rest.path) == set(path[done:])


@few
@given(shapes(), st.data())
def test_what_has_moved_on_is_refused(shape: list[Revision], data: st.DataObject) -> None:
    """A tenant with one revision more than the run left it with is not touched; told to, its later ones go along."""
    with directory(shape) as history:
        before = walked(history, data)
        after = walked(history, data, before)
        later = walked(history, data, after)
        assume(history.graph.closure(later) != history.graph.closure(after))

        here = position(history, "rollback", later, str(WayBack(after, before)))
        along = position(history, "rollback", later, str(WayBack(later, before)))

        if history.graph.closure(before) == history.graph.closure(after):
            assert here.kind in {"moved_on", None}
        assert (here.kind, here.path) == ("moved_on", ())
        assert set(along.path) == history.graph.closure(later) - history.graph.closure(before)


@few
@given(shapes(dependencies=False), st.data())
def test_where_one_target_says_it(shape: list[Revision], data: st.DataObject) -> None:
    """From one head back to one of its ancestors, it runs what `alembic downgrade` runs, where that runs no more."""
    with directory(shape) as history:
        heads = walked(history, data)
        assume(len(heads) == 1)
        target = data.draw(st.sampled_from(sorted(history.graph.closure(heads))))
        ran = alembic_runs(history, "downgrade", heads, target)
        assume(ran.heads == (target,))

        here = position(history, "rollback", heads, str(WayBack(heads, (target,))))

        assert ran.revisions is not None
        assert set(here.path) == set(ran.revisions)


@pytest.mark.parametrize(
    ("after", "before", "path"),
    [
        (("n",), ("a2", "b2"), ("n", "m")),
        (("n",), ("a2",), ("n", "m", "b2", "b1")),
        (("n",), ("a1", "b2"), ("n", "m", "a2")),
        (("a2", "b2"), ("a2",), ("b2", "b1")),
        (("a2", "b2"), ("a1", "b1"), ("a2", "b2")),
        (("c1", "n"), ("n",), ("c1",)),
        (("c1", "n"), ("a2", "c1"), ("n", "m", "b2", "b1")),
        (("c1",), (), ("c1", "a1")),
        (("n",), ("n",), ()),
        (("dd",), (), ("dd", "d1", "d2", "d")),
        (("dd",), ("d2",), ("dd", "d1")),
        (("dd", "n"), ("d", "n"), ("dd", "d1", "d2")),
    ],
)
def test_ways(after: tuple[str, ...], before: tuple[str, ...], path: tuple[str, ...]) -> None:
    """Across a merge, on one of two branches, beside a dependency: ways of which most have no target that says them."""
    with directory(BRANCHED) as history:
        way = WayBack(after, before)

        assert position(history, "rollback", after, str(way)).path == path
        assert taken_back(history, after, way) == Ran(path, before)


@pytest.mark.parametrize(
    ("heads", "stand"),
    [
        (("a2",), Stand.BACK),
        (("m",), Stand.ON_THE_WAY),
        (("a2", "b1"), Stand.ON_THE_WAY),
        (("n",), Stand.MOVED_ON),
        (("c1", "m"), Stand.MOVED_ON),
        (("a1",), Stand.BEYOND),
        ((), Stand.BEYOND),
        (("b2",), Stand.BEYOND),
    ],
)
def test_stand(heads: tuple[str, ...], stand: Stand) -> None:
    """Each way to stand to a run that went from a2 to m."""
    with directory(BRANCHED) as history:
        assert stand_to(history.graph, heads, WayBack(("m",), ("a2",)))[0] is stand


@pytest.mark.parametrize("way", [WayBack((), ()), WayBack(("a",), ()), WayBack(("a", "b"), ("c", "d"))])
def test_as_text(way: WayBack) -> None:
    """What the journal keeps of it is read again as it was."""
    assert WayBack.parse(str(way)) == way


@pytest.mark.parametrize(
    ("way", "heads"),
    [("gone:a1", ("a1",)), ("a2:gone", ("a2",)), ("a2:a1", ("gone",))],
    ids=["start", "goal", "tenant"],
)
def test_revision_that_the_directory_does_not_have(way: str, heads: tuple[str, ...]) -> None:
    """A run that began or ended at a revision nobody knows any more, or a tenant that is at one, is blocked."""
    with directory(BRANCHED) as history:
        here = position(history, "rollback", heads, way)

    assert (here.kind, here.path) == ("unknown_revision", ())
    assert "gone" in str(here.problem)


@pytest.mark.parametrize(
    "downgrade", ["", "def downgrade():\n    raise NotImplementedError\n"], ids=["without the function", "raises"]
)
def test_no_way_back(downgrade: str) -> None:
    """A revision on the way that cannot be taken back is a problem before anything runs, and names its file."""
    with directory([*line("a", "b"), Revision("c", ("b",), downgrade=downgrade), Revision("d", ("c",))]) as history:
        here = position(history, "rollback", ("d",), "d:a")
        short = position(history, "rollback", ("d",), "d:c")

    assert here.kind == "irreversible"
    assert "c" in str(here.problem)
    assert (short.problem, short.path) == (None, ("d",))
