"""Selection: which of the fleet's tenants a command means."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from hashlib import blake2b
from typing import Any

from orchestrator.errors import SelectionError, UsageError
from orchestrator.fleet.nearest import did_you_mean
from orchestrator.fleet.tenant import Tenant

_LIST_HINT = "orchestrator tenants list"
#: What makes a glob of a pattern.
_GLOB = frozenset("*?[")
#: Where a comment begins in a list of tenants; an id may have a ``#`` in it.
_COMMENT = re.compile(r"(?:^|\s)#")


@dataclass(frozen=True, slots=True)
class Selection:
    """What ``-t``, ``--tag``, ``--server``, ``--exclude``, ``--tenants-from``, ``--shard`` and ``--sample`` say.

    They apply in this order: patterns and listed (either one takes a tenant), tags, servers (any one of each is
    enough), exclude, shard, sample. Every pattern, tag, server and listed id must match some tenant of the fleet, and
    so must every exclusion: with a mistyped ``--exclude`` the very tenant would be migrated that was to be spared.

    An exact id wins over a glob: where a tenant is called ``*``, the pattern ``*`` means that one.
    """

    #: Tenant ids or globs (``eu-*``), case-sensitive.
    patterns: tuple[str, ...] = ()
    #: A tenant with any of these.
    tags: tuple[str, ...] = ()
    #: A tenant on any of these.
    servers: tuple[str, ...] = ()
    #: Tenant ids or globs to leave out.
    exclude: tuple[str, ...] = ()
    #: Exact ids, as read from ``--tenants-from``; ``None`` when it was not given.
    listed: tuple[str, ...] | None = None
    #: (i, n): the i-th of n shards, from 1. A tenant's shard depends on its id alone.
    shard: tuple[int, int] | None = None
    #: Take this many tenants, always the same ones as long as the fleet is the same.
    sample: int | None = None

    def __post_init__(self) -> None:
        if self.shard is not None and not 1 <= self.shard[0] <= self.shard[1]:
            message = f"there is no shard {self.shard[0]} of {self.shard[1]}"
            raise UsageError(message, hint="write --shard I/N with I from 1 to N")
        if self.sample is not None and self.sample < 1:
            raise UsageError(f"a sample of {self.sample} tenants is none", hint="write --sample N with N from 1")

    def as_json(self) -> dict[str, Any]:
        """Plain data, which :meth:`from_json` takes back."""
        return {name: value for name, value in asdict(self).items() if value}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Selection:
        """What :meth:`as_json` gave."""
        given: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in data.items()
        }
        return cls(**given)

    @property
    def is_empty(self) -> bool:
        """Whether nothing at all was asked for; commands that can lose data refuse that without ``--all``."""
        return self == Selection()

    def choose(self, tenants: Sequence[Tenant]) -> tuple[Tenant, ...]:
        """Pick from the whole fleet, in the fleet's order.

        Raises:
            SelectionError: a pattern, tag, server, id or exclusion matches nothing, or nothing is left of them all.
                A shard that happens to be empty is no error: one job of a matrix then has nothing to do.
        """
        self._refuse_strangers(tenants)
        chosen = self._unsharded(tenants)
        if not chosen and tenants:
            raise SelectionError(f"no tenant is left: {self._narrowing(tenants)}", hint=_LIST_HINT)
        return self._portion(chosen)

    def filter(self, tenants: Sequence[Tenant], fleet: Iterable[Tenant] | None = None) -> tuple[Tenant, ...]:
        """Pick from some of the fleet's tenants, in their order; what matches nothing is no error (waves).

        Args:
            tenants: to pick from.
            fleet: all whose ids are taken, where ``tenants`` are only some of them.
        """
        return self._portion(self._unsharded(tenants, fleet))

    def _unsharded(self, tenants: Sequence[Tenant], fleet: Iterable[Tenant] | None = None) -> list[Tenant]:
        takes_any = not self.patterns and self.listed is None
        known = frozenset(each.id for each in (tenants if fleet is None else fleet)) if self._may_glob else frozenset()
        named, excluded = meaning(self.patterns, known), meaning(self.exclude, known)
        listed = frozenset(self.listed or ())
        tags = frozenset(self.tags)
        return [
            tenant
            for tenant in tenants
            if (takes_any or tenant.id in listed or named(tenant.id))
            and (not tags or not tags.isdisjoint(tenant.tags))
            and (not self.servers or tenant.server in self.servers)
            and not (self.exclude and excluded(tenant.id))
        ]

    @property
    def _may_glob(self) -> bool:
        return any(may_glob(pattern) for pattern in (*self.patterns, *self.exclude))

    def _portion(self, chosen: Sequence[Tenant]) -> tuple[Tenant, ...]:
        if self.shard is not None:
            number, count = self.shard
            chosen = [tenant for tenant in chosen if _hash("shard", tenant.id) % count == number - 1]
        if self.sample is not None and self.sample < len(chosen):
            shuffled = sorted((tenant.id for tenant in chosen), key=lambda id: (_hash("sample", id), id))
            drawn = frozenset(shuffled[: self.sample])
            chosen = [tenant for tenant in chosen if tenant.id in drawn]
        return tuple(chosen)

    def _refuse_strangers(self, tenants: Sequence[Tenant]) -> None:
        ids = [tenant.id for tenant in tenants]
        known_ids = frozenset(ids)
        for pattern in (*self.patterns, *self.exclude):
            if pattern not in known_ids and not (may_glob(pattern) and any(fnmatchcase(id, pattern) for id in ids)):
                _refuse("tenant", pattern, ids)
        known_tags = {tag for tenant in tenants for tag in tenant.tags}
        for tag in self.tags:
            if tag not in known_tags:
                _refuse("tag", tag, known_tags)
        known_servers = {tenant.server for tenant in tenants}
        for server in self.servers:
            if server not in known_servers:
                _refuse("server", server, known_servers)
        if self.listed is not None:
            self._refuse_unlisted(ids, known_ids, self.listed)

    @staticmethod
    def _refuse_unlisted(ids: Sequence[str], known_ids: frozenset[str], listed: tuple[str, ...]) -> None:
        if not listed:
            raise SelectionError("the list of tenants is empty", hint="write one tenant id per line")
        unknown = [id for id in listed if id not in known_ids]
        if len(unknown) == 1:
            _refuse("tenant", unknown[0], ids)
        if unknown:
            shown = ", ".join(repr(id) for id in unknown[:10]) + (", ..." if len(unknown) > 10 else "")
            message = f"the list names {len(unknown)} tenants that the fleet does not have: {shown}"
            raise SelectionError(message, hint=_LIST_HINT)

    def _narrowing(self, tenants: Sequence[Tenant]) -> str:
        steps = [
            ("tenants", Selection(patterns=self.patterns, listed=self.listed)),
            ("tags", Selection(patterns=self.patterns, listed=self.listed, tags=self.tags)),
            ("servers", Selection(patterns=self.patterns, listed=self.listed, tags=self.tags, servers=self.servers)),
        ]
        counts = [f"{len(step.filter(tenants))} after {name}" for name, step in steps]
        return ", ".join([*counts, "0 after exclusions"])


def parse_shard(text: str) -> tuple[int, int]:
    """Read ``2/5`` as the second of five shards.

    Raises:
        UsageError: it is not of that form, or there is no such shard.
    """
    number, slash, count = text.partition("/")
    if not (slash and number.isascii() and number.isdigit() and count.isascii() and count.isdigit()):
        raise UsageError(f"{text!r} is not a shard", hint="write --shard I/N, for example --shard 2/5")
    shard = (int(number), int(count))
    Selection(shard=shard)
    return shard


def may_glob(pattern: str) -> bool:
    """Whether a pattern may mean others than the tenant with that very id."""
    return not _GLOB.isdisjoint(pattern)


def meaning(patterns: Collection[str], known: Collection[str]) -> Callable[[str], bool]:
    """What says whether an id is meant by ``patterns``: the exact ids among them mean themselves and nobody else.

    Args:
        patterns: ids or globs.
        known: all ids that there are.
    """
    globs = [pattern for pattern in patterns if may_glob(pattern) and pattern not in known]
    exact = frozenset(patterns).difference(globs)
    return lambda id: id in exact or any(fnmatchcase(id, pattern) for pattern in globs)


def require_plain_ids(ids: Iterable[str]) -> None:
    """Refuse new ids that a selection could not name: tenants that there are already keep theirs.

    Raises:
        UsageError: one is a glob, two in a list with commas, or a comment in a list of tenants.
    """
    odd = [id for id in ids if may_glob(id) or "]" in id or "," in id or _COMMENT.search(id)]
    if odd:
        shown = ", ".join(repr(id) for id in odd[:10]) + (", ..." if len(odd) > 10 else "")
        raise UsageError(
            f"a new tenant cannot be called {shown}: in selections, * ? [ ] make a glob, commas separate, "
            "and # begins a comment",
            hint="nothing was touched; choose an id without * ? [ ] and commas that does not begin with #",
        )


def listed_ids(text: str) -> tuple[str, ...]:
    """The ids of a list: one on each line, with comments after a ``#`` at the beginning or after a space."""
    lines = (_COMMENT.split(line, maxsplit=1)[0].strip() for line in text.splitlines())
    return tuple(line for line in lines if line)


def _hash(purpose: str, id: str) -> int:
    # Python's own hash() differs from process to process; two purposes must not draw from the same order.
    return int.from_bytes(blake2b(id.encode(), digest_size=8, person=purpose.encode()).digest(), "big")


def _refuse(kind: str, word: str, known: Iterable[str]) -> None:
    near = did_you_mean(word, known)
    raise SelectionError(f"no {kind} matches {word!r}", hint=f"did you mean {near!r}?" if near else _LIST_HINT)
