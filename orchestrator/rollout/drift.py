"""Tenants grouped by the shape of their schema, and how each group differs from the reference. Pure."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from orchestrator.databases.failures import Failure
from orchestrator.rollout.differences import Change
from orchestrator.rollout.remedies import in_order, operations
from orchestrator.rollout.sightings import Kind
from orchestrator.rollout.telling import told

#: What the reference is called where the versions directory made it.
REVISIONS = "revisions"


@dataclass(frozen=True, slots=True)
class Shape:
    """Tenants at the same heads that are alike."""

    #: Digest of their definitions; of several that differ only in what is ignored, the reference's or the largest's.
    fingerprint: str
    kind: Kind
    heads: tuple[str, ...]
    #: Ids, in the fleet's order; none where nobody is like the reference.
    tenants: tuple[str, ...]
    #: What is not as in the reference; empty for the reference's own shape.
    difference: tuple[Change, ...] = ()
    #: A baseline says that this is normal.
    accepted: bool = False
    #: How many of the tenants differ in what tenants.yaml ignores.
    ignored: int = 0

    @property
    def odd(self) -> bool:
        """Whether it is neither the reference's nor accepted."""
        return bool(self.difference) and not self.accepted

    @property
    def told(self) -> list[str]:
        """The difference in words, a line for each object."""
        return [told(change) for change in self.difference]

    @property
    def operations(self) -> list[str]:
        """Alembic operations that would make its tenants what the reference is, in an order to run them in."""
        return [line for change in in_order(self.difference) for line in operations(change, self.kind.dialect)]

    def as_json(self) -> dict[str, Any]:
        """An entry of ``shapes`` in the document of ``drift``."""
        return {
            "fingerprint": self.fingerprint,
            "tenants": len(self.tenants),
            "example": self.tenants[0],
            "difference": self.told,
            "operations": self.operations,
            "changes": [change.as_json() for change in self.difference],
            "accepted": self.accepted,
            "ignored": self.ignored,
            "dialect": self.kind.dialect,
            "version": self.kind.version,
            "heads": list(self.heads),
        }


@dataclass(frozen=True, slots=True)
class NotCompared:
    """A tenant that nothing is known of."""

    tenant: str
    #: Why: ``unreachable``, ``unprovisioned``, ``unknown_revision``, ``unreadable``, ``moved``, ``no_reference`` or
    #: ``not_alike``.
    state: str
    failure: Failure

    def as_json(self) -> dict[str, Any]:
        """An entry of ``not_compared`` in the document of ``drift``."""
        return {"tenant": self.tenant, "state": self.state, "error": self.failure.as_json()}


@dataclass(frozen=True, slots=True)
class DriftReport:
    """What the selected tenants look like."""

    #: ``revisions``, or the tenant that the others are held against.
    reference: str
    #: The largest first; the reference's own before all others.
    shapes: tuple[Shape, ...]
    not_compared: tuple[NotCompared, ...] = ()
    _order: Mapping[str, int] = field(default_factory=dict, repr=False)

    @property
    def odd(self) -> tuple[Shape, ...]:
        """Shapes that are neither the reference's nor accepted."""
        return tuple(shape for shape in self.shapes if shape.odd)

    @property
    def exit_code(self) -> int:
        """3 where somebody is odd, 1 where somebody could not be compared, else 0."""
        return 3 if self.odd else 1 if self.not_compared else 0

    def as_json(self) -> dict[str, Any]:
        """The document of ``drift --json`` (see docs/cli.md)."""
        odd = {tenant: shape for shape in self.odd for tenant in shape.tenants}
        lines = {id(shape): shape.told for shape in self.odd}
        return {
            "reference": self.reference,
            "shapes": [shape.as_json() for shape in self.shapes],
            "odd": [
                {"tenant": tenant, "fingerprint": odd[tenant].fingerprint, "difference": lines[id(odd[tenant])]}
                for tenant in sorted(odd, key=lambda tenant: self._order.get(tenant, 0))
            ],
            "not_compared": [each.as_json() for each in self.not_compared],
            "summary": {
                "identical": sum(len(shape.tenants) for shape in self.shapes if not shape.difference),
                "accepted": sum(len(shape.tenants) for shape in self.shapes if shape.accepted),
                "odd": len(odd),
                "not_compared": len(self.not_compared),
            },
        }


def report(
    reference: str, shapes: Iterable[Shape], not_compared: Iterable[NotCompared], order: Sequence[str]
) -> DriftReport:
    """Put what was found together.

    Args:
        reference: what tenants were held against.
        shapes: of all kinds and heads.
        not_compared: everybody else.
        order: ids of all tenants, as the fleet has them.
    """
    places = {tenant: number for number, tenant in enumerate(order)}
    ranked = sorted(
        (shape for shape in shapes if shape.tenants),
        key=lambda shape: (bool(shape.difference), -len(shape.tenants), places[shape.tenants[0]]),
    )
    left = sorted(not_compared, key=lambda each: places[each.tenant])
    return DriftReport(reference, tuple(ranked), tuple(left), places)


def merged(
    kind: Kind,
    heads: tuple[str, ...],
    reference: str,
    groups: Mapping[str, Sequence[str]],
    found: Mapping[str, tuple[Change, ...]],
    ignored: Collection[str],
    accepted: frozenset[str],
) -> list[Shape]:
    """Shapes of tenants of one kind at the same heads. Groups whose differences are the same are one shape.

    Args:
        kind: theirs.
        heads: where they are.
        reference: the digest of what they should be.
        groups: ids by digest.
        found: how each digest but the reference's differs, without what is ignored.
        ignored: digests of which something is left out.
        accepted: differences that are normal, as :func:`spelled` has them.
    """
    alike: dict[str, list[str]] = defaultdict(list)
    for digest in sorted(groups, key=lambda digest: (digest != reference, -len(groups[digest]))):
        alike[spelled(found.get(digest, ()))].append(digest)
    shapes = []
    for text, digests in alike.items():
        difference = found.get(digests[0], ())
        tenants = tuple(tenant for digest in digests for tenant in groups[digest])
        but_for_that = sum(len(groups[digest]) for digest in digests if digest in ignored)
        shapes.append(
            Shape(
                reference if not difference else digests[0],
                kind,
                heads,
                tenants,
                difference,
                accepted=bool(difference) and text in accepted,
                ignored=0 if difference else but_for_that,
            )
        )
    return shapes


def spelled(changes: Iterable[Change]) -> str:
    """A difference as one text: equal differences have equal ones, at whatever heads and of whatever kind."""
    return spelled_json([change.as_json() for change in changes])


def spelled_json(changes: Iterable[Mapping[str, Any]]) -> str:
    """The same of a difference that a baseline has kept."""
    return "\n".join(sorted(json.dumps(change, sort_keys=True) for change in changes))
