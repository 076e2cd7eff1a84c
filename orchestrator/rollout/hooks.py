"""Call the operator's hooks: commands, functions and webhooks, each with a JSON document."""

from __future__ import annotations

import asyncio
import json
import logging
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from orchestrator.errors import OrchestratorError
from orchestrator.fleet.callables import called
from orchestrator.fleet.hooks import Hook, Moment
from orchestrator.fleet.masking import mask, remember
from orchestrator.fleet.secrets import Template
from orchestrator.journal.records import EventRecord
from orchestrator.rollout.commands import refusal
from orchestrator.rollout.stop import CutOff, Stop
from orchestrator.rollout.watching import Recorder

#: Seconds that a webhook may take to answer, and the pauses before it is tried again.
_TIMEOUT, _PAUSES = 10.0, (0.5, 2.0, 5.0)
#: Answers of a webhook that may be others in a moment.
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})

log = logging.getLogger("orchestrator.run")


class HookRefused(OrchestratorError):
    """A hook that is called before something said no."""


@dataclass(frozen=True, slots=True)
class Hooks:
    """The hooks of one run."""

    declared: Mapping[Moment, Sequence[Hook]] = field(default_factory=dict)
    #: Where commands run.
    root: Path = field(default_factory=Path)
    #: What every document has: ``run``, ``command``, ``target``.
    about: Mapping[str, Any] = field(default_factory=dict)
    #: Cuts off what hangs.
    stop: Stop = field(default_factory=Stop)

    async def before(self, moment: Moment, document: Mapping[str, Any]) -> None:
        """Ask the hooks of ``moment``, one after the other.

        Args:
            moment: one of those before something.
            document: what it is about; only what JSON can hold.

        Raises:
            HookRefused: one says no, or cannot be called.
        """
        for hook in self.declared.get(moment, ()):
            if (reason := await self._called(hook, moment, document)) is not None:
                raise HookRefused(
                    mask(f"{moment} hook {hook}: {reason}"),
                    hint="see what it says; to go on without it, take it out of `hooks:` in tenants.yaml",
                )

    async def after(self, moment: Moment, document: Mapping[str, Any], recorder: Recorder) -> None:
        """Tell the hooks of ``moment``. One that fails changes nothing: it is logged, and journaled."""
        for hook in self.declared.get(moment, ()):
            if (reason := await self._called(hook, moment, document)) is not None:
                told = mask(f"{moment} hook {hook}: {reason}")
                log.warning("%s", told)
                detail = {"moment": moment.value, "message": told}
                tenant = document.get("tenant")
                recorder.record_event(
                    EventRecord(str(self.about["run"]), tenant, datetime.now(UTC), "hook", detail=detail)
                )

    async def _called(self, hook: Hook, moment: Moment, document: Mapping[str, Any]) -> str | None:
        """Why it says no."""
        whole = {"event": moment.value, **self.about, **document}
        try:
            return await self.stop.unless_cut(self._one(hook, whole))
        except CutOff:
            return "cut off"
        except OrchestratorError as error:
            return error.message
        except Exception as error:
            # Whatever it is, a hook's fault must not end the run with a traceback.
            return mask(f"{type(error).__name__}: {error}")

    async def _one(self, hook: Hook, document: Mapping[str, Any]) -> str | None:
        if hook.command is not None:
            return await refusal(hook.command, self.root, document)
        if hook.webhook is not None:
            return await _posted(hook.webhook, document)
        assert hook.python is not None
        await called(hook.python, dict(document))
        return None


async def _posted(address: Template, document: Mapping[str, Any]) -> str | None:
    url = await asyncio.to_thread(address.resolve)
    parts = urlsplit(url)
    for secret in (url, parts.path.strip("/"), parts.query):
        # Whoever has a webhook's address may post to it.
        remember(secret)
    if parts.scheme not in ("http", "https"):
        return "not an http or https address"
    reason = None
    for pause in (*_PAUSES, None):
        reason, passing = await asyncio.to_thread(_post, url, json.dumps(document).encode())
        if reason is None or not passing or pause is None:
            break
        await asyncio.sleep(pause)
    return reason


def _post(url: str, body: bytes) -> tuple[str | None, bool]:
    """Why it failed, if it did, and whether that may pass."""
    try:
        request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
        with _opener().open(request, timeout=_TIMEOUT):
            return None, False
    except urllib.error.HTTPError as error:
        with error:
            return f"HTTP {error.code} {error.reason}", error.code in _PASSING
    except (OSError, ValueError, HTTPException) as error:
        return str(getattr(error, "reason", error)), isinstance(error, OSError)


def _opener() -> urllib.request.OpenerDirector:
    """Without redirections: a POST would become a GET, and a page to log in on would count as a yes."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.HTTPDefaultErrorHandler(),
    ):
        opener.add_handler(handler)
    return opener
