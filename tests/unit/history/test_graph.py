"""The graph of revisions: closures over any shape of directory."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.history.graph import Graph


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """Acyclic graphs of up to twelve revisions; the first parent of each is its descent, the others it depends on."""
    parents: dict[str, tuple[str, ...]] = {}
    for number in range(draw(st.integers(1, 12))):
        earlier = sorted(parents)
        chosen = draw(st.lists(st.sampled_from(earlier), max_size=3, unique=True)) if earlier else []
        parents[f"r{number}"] = tuple(chosen)
    return Graph(parents, {revision: before[:1] for revision, before in parents.items()})


some = st.data()


@given(graphs(), some)
def test_closure_holds_every_parent(graph: Graph, data: st.DataObject) -> None:
    """A closure holds what it began with and the parents of all it holds, and is its own closure."""
    start = data.draw(st.lists(st.sampled_from(sorted(graph.parents))))

    closure = graph.closure(start)

    assert closure.issuperset(start)
    assert all(closure.issuperset(graph.parents[revision]) for revision in closure)
    assert graph.closure(closure) == closure


@given(graphs(), some)
def test_closure_holds_nothing_else(graph: Graph, data: st.DataObject) -> None:
    """Everything in a closure is either a start or a parent of something in it."""
    start = data.draw(st.lists(st.sampled_from(sorted(graph.parents))))

    closure = graph.closure(start)

    reached = {parent for revision in closure for parent in graph.parents[revision]}
    assert closure == reached | set(start)


@given(graphs(), some)
def test_before_is_the_closure_without_the_revision(graph: Graph, data: st.DataObject) -> None:
    """What is before a revision is its closure without itself."""
    revision = data.draw(st.sampled_from(sorted(graph.parents)))

    assert graph.before(revision) == graph.closure([revision]) - {revision}


@given(graphs(), some)
def test_branch_follows_descent_only(graph: Graph, data: st.DataObject) -> None:
    """A branch is the one line back to its base, and part of the closure."""
    revision = data.draw(st.sampled_from(sorted(graph.parents)))

    branch = graph.branch([revision])

    assert branch <= graph.closure([revision])
    assert branch == {revision}.union(*(graph.branch([each]) for each in graph.parents[revision][:1]))


@given(graphs(), st.lists(st.sampled_from(["r0", "r1", "ghost", "phantom"])))
@settings(max_examples=30)
def test_unknown(graph: Graph, revisions: list[str]) -> None:
    """Unknown are those that are no revision of the directory, in the order given."""
    assert graph.unknown(revisions) == tuple(each for each in revisions if each not in graph.parents)


def test_a_long_line_is_walked() -> None:
    """Five thousand revisions in a row are no recursion too deep."""
    parents = {f"r{number}": (f"r{number - 1}",) if number else () for number in range(5000)}
    graph = Graph(parents, parents)

    assert len(graph.closure(["r4999"])) == 5000


def test_many_diamonds_are_walked_once() -> None:
    """Sixty diamonds in a row have 2**60 ways through them, and 181 revisions."""
    parents: dict[str, tuple[str, ...]] = {"top0": ()}
    for number in range(60):
        parents |= {f"left{number}": (f"top{number}",), f"right{number}": (f"top{number}",)}
        parents[f"top{number + 1}"] = (f"left{number}", f"right{number}")

    assert len(Graph(parents, parents).closure(["top60"])) == 181


@given(graphs(), some)
def test_back_is_an_order(graph: Graph, data: st.DataObject) -> None:
    """Taken back is all of what is asked for, each revision once, and after all of them that need it."""
    kept = graph.closure(data.draw(st.lists(st.sampled_from(sorted(graph.parents)))))
    applied = graph.closure({*kept, *data.draw(st.lists(st.sampled_from(sorted(graph.parents))))})

    order = graph.back(applied - kept)

    assert sorted(order) == sorted(applied - kept)
    for number, revision in enumerate(order):
        assert not any(revision in graph.before(later) for later in order[number + 1 :])
