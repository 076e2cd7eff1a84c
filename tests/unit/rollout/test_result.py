"""What a run did: causes, counts and the status it ends in."""

from __future__ import annotations

import json

import pytest

from orchestrator.rollout.result import fingerprint, run_status
from orchestrator.statuses import RunStatus, TenantStatus
from tests.unit.rollout.fleets import attempt, result

DUPLICATE = {"type": "DuplicateColumnError", "sqlstate": "42701", "revision": "r2"}


def test_causes_are_grouped_and_the_most_frequent_comes_first() -> None:
    """One line for each cause, with how many, an example and what to type."""
    found = result(
        attempt("t1", **DUPLICATE, statement="ALTER TABLE a ADD x int", message='column "x" exists'),
        attempt("t2", type="SystemExit", sqlstate=None, revision="r1", message="no more"),
        attempt("t3", type="SystemExit", sqlstate=None, revision="r1", message="no more"),
        attempt("t4", "succeeded"),
    ).causes

    assert [(cause.count, cause.example, cause.message) for cause in found] == [
        (2, "t2", "no more"),
        (1, "t1", 'column "x" exists'),
    ]
    assert {cause.retry for cause in found} == {"orchestrator resume run-1"}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("INSERT INTO t VALUES (1, 'acme')", "INSERT INTO t VALUES (22, 'it''s globex')"),
        ('ALTER TABLE "acme".accounts ADD x int', 'ALTER TABLE "globex 2".accounts ADD x int'),
    ],
    ids=["literals", "schemas"],
)
def test_one_cause_though_the_statements_differ_in_values(one: str, other: str) -> None:
    """Literals and schema names differ between tenants where the cause is the same."""
    found = result(
        attempt("t1", **DUPLICATE, statement=one, message="first"),
        attempt("t2", **DUPLICATE, statement=other, message="second"),
    ).causes

    assert [cause.count for cause in found] == [2]


@pytest.mark.parametrize(
    "change", [{"revision": "r3"}, {"sqlstate": "42703"}, {"type": "Other"}, {"statement": "ALTER TABLE b ADD x int"}]
)
def test_two_causes(change: dict[str, str]) -> None:
    """Another revision, SQLSTATE, kind of error or statement is another cause."""
    error = {**DUPLICATE, "statement": "ALTER TABLE a ADD x int"}

    assert fingerprint(error, "acme") != fingerprint({**error, **change}, "acme")


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (
            "locked",
            "another migration of this tenant is under way: orchestrator run-7 {id} (pid {pid}, for 00:00:0{n})",
        ),
        ("ConfigurationError", "tenant {id}: env.py passes version_table_schema='x', its schema is '{id}'"),
        ("unprovisioned", "tenant {id}: schema '{id}' does not exist"),
        ("unreachable", "no connection to postgresql://app@db1:5432/{id}: refused"),
    ],
)
def test_one_cause_though_each_message_names_its_tenant(kind: str, message: str) -> None:
    """412 tenants that fail alike are one line, not 412, also where the message names the tenant."""
    found = result(
        *(
            attempt(id, type=kind, message=message.format(id=id, pid=4000 + n, n=n))
            for n, id in enumerate(["acme", "globex-2", "o'brien", "a.b"])
        )
    ).causes

    assert [(cause.count, cause.example) for cause in found] == [(4, "acme")]


def test_a_tenant_called_like_a_word_of_the_message() -> None:
    """A tenant's id inside another word is not its name."""
    message = "relation accounts does not exist"

    assert fingerprint({"message": message}, "a") == fingerprint({"message": message}, "count")


def test_partial_tenants_need_to_be_named() -> None:
    """A plain resume leaves them alone; but nobody is told to run them again as long as others are left, too."""
    cut = attempt("t1", "partial", type="cut_off", message="run x was cut off in revision r2")
    invalid = attempt("t2", "partial", type="invalid_index", message="index i is invalid")
    failed = attempt("t3", **DUPLICATE, message="m")
    done = attempt("t4", "succeeded")

    assert {cause.example: cause.retry for cause in result(cut, invalid, failed, done).causes} == {
        "t1": "orchestrator resume run-1 --retry-partial",
        "t2": "orchestrator resume run-1",
        "t3": "orchestrator resume run-1",
    }
    assert result(cut, failed).retry == result(cut, invalid).retry == "orchestrator resume run-1"
    assert result(cut, done).retry == "orchestrator resume run-1 --retry-partial"


def test_one_of_a_cause_is_partial() -> None:
    """The same statement failed inside a transaction and outside one: the command goes on with both."""
    (cause,) = result(attempt("t1", **DUPLICATE), attempt("t2", "partial", **DUPLICATE)).causes

    assert cause.retry == "orchestrator resume run-1 --retry-partial"


def test_missing_places_have_to_be_made() -> None:
    """Who has no schema is not made one without a word."""
    found = result(attempt("t1", "blocked", type="unprovisioned", message="m"), attempt("t2", **DUPLICATE))

    assert found.retry == "orchestrator resume run-1 --provision"


def test_what_is_all_right_is_no_cause() -> None:
    """A skipped tenant's remark is not a failure."""
    assert result(attempt("t1", "skipped", type="gone", message="no longer in the fleet")).causes == ()


def test_fingerprint_is_stable() -> None:
    """The same in every process and version: scripts and the journal keep it."""
    error = {**DUPLICATE, "statement": "ALTER TABLE a ADD x int"}

    assert fingerprint(error, "acme") == fingerprint(json.loads(json.dumps(error)), "acme")
    assert len(fingerprint(error, "acme")) == 12


@pytest.mark.parametrize("status", list(TenantStatus))
def test_status_of_a_run(status: TenantStatus) -> None:
    """A run has succeeded only when every tenant is where it was asked to be."""
    attempts = [attempt("t1", "succeeded"), attempt("t2", status.value)]

    fine = status.value in {"succeeded", "already_current", "skipped"}
    assert run_status(attempts, None) is (RunStatus.SUCCEEDED if fine else RunStatus.FAILED)
    assert run_status(attempts, RunStatus.PAUSED) is RunStatus.PAUSED


def test_document() -> None:
    """The document is JSON, keeps the tenants' order, and counts only what occurs."""
    document = result(attempt("b", "failed", type="x", message="m"), attempt("a", "succeeded")).as_json()

    assert json.loads(json.dumps(document)) == document
    assert [each["tenant"] for each in document["tenants"]] == ["b", "a"]
    assert document["summary"] == {"succeeded": 1, "failed": 1}
    assert document["started_at"] == "2026-03-01T00:00:00+00:00"
