"""Let a worker use an LLM that its host hands to it: the worker-engine convention.

A worker gets a state, a plain dict. If the host has an LLM for it, the host puts
something under the reserved key ``worker_engine_factory``. It is one of two things:

* a lease. This is a dict of kind ``warden.engine_lease/1``, minted by Warden for one
  task. A lease is JSON, so it can travel to another process.
* a callable. A host that runs the worker in its own process may put one there:
  ``factory()`` gives its default engine and ``factory("id")`` the engine of that name.

The worker need not know which. It asks ``resolve_engine`` and gets an engine or None::

    from warden_engine import BudgetExceeded, EngineError, extract_engine_id, resolve_engine

    def summarize(state, text):
        engine = resolve_engine(state, extract_engine_id(state))
        if engine is None:
            return text[:200]           # no host, or no engine: do without
        try:
            return engine.execute("Summarize this:\\n" + text, max_tokens=200).content
        except BudgetExceeded:
            return text[:200]           # nothing left to spend; trying again is no use
        except EngineError as error:
            if error.retryable:
                raise                   # let whoever scheduled this worker try later
            return text[:200]

To run it under Warden, open a task and pass on the lease that comes with it::

    opened = ...                        # the JSON that POST /v1/tasks answered
    state = {"worker_engine_factory": opened["worker_engine_factory"]}
    summarize(state, "A long text.")    # with the worker's token in WARDEN_TOKEN

The convention is optional. A worker that never looks at the key runs as it did before.

Two kinds of failure are kept apart. Looking for an engine (``extract_*``, ``resolve_engine``,
``has_engine_context``) never raises and never touches the network: there is an engine or
there is None. Using a leased engine (``Engine.execute``) does one HTTP call, and raises
``EngineError`` when that fails.

Only the standard library is needed. Python 3.9 or later.
"""

import http.client
import json
import logging
import os
import re
import socket
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any, Callable, Dict, Optional
from urllib.parse import urlsplit

__all__ = [
    "ENGINE_FACTORY_KEY",
    "RESERVED_KEYS",
    "BudgetExceeded",
    "Completion",
    "Engine",
    "EngineError",
    "extract_engine_factory",
    "extract_engine_id",
    "has_engine_context",
    "resolve_engine",
]

#: Where the host puts the lease or the callable. Hosts and workers agree on this very text.
ENGINE_FACTORY_KEY = "worker_engine_factory"

#: Top-level keys of the state that belong to the host. A worker reads them at most: Warden
#: refuses a write that sets, replaces or deletes one. ``meta`` is among them because it
#: holds the engine id and the task id, and a worker must not choose what is recorded of it.
RESERVED_KEYS = frozenset({ENGINE_FACTORY_KEY, "meta", "_meta", "_errors", "_trace", "_workflow"})

LEASE_KIND = "warden.engine_lease/1"

#: Environment variable with the worker's own token. A lease alone opens nothing: Warden
#: wants the token of the worker that the lease was minted for as well.
TOKEN_VARIABLE = "WARDEN_TOKEN"

#: How long a silent connection is waited for when the caller names no time of its own.
DEFAULT_WAIT_S = 600.0

#: What a host's callable is. The engine is whatever that host gives; from a lease it is an Engine.
EngineFactory = Callable[..., Optional[Any]]

_log = logging.getLogger(__name__)

_LEASE = re.compile(r"wdl_[0-9a-fA-F]{64}")
# What may stand in an HTTP header here. Above all no line break, which would start a new header.
_VISIBLE = re.compile(r"[\x21-\x7e]+")
_RFC3339 = re.compile(r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(?:\.\d+)?([Zz]|[+-]\d\d:\d\d)", re.ASCII)


# ---- Looking for an engine: no exception, no network ----


def extract_engine_factory(state: Any) -> Optional[EngineFactory]:
    """Give the callable that makes engines, or None if the host gave none.

    A callable in the state is handed back as it is. A well-formed lease becomes a callable
    of the same use. Everything else is None: no state, no key, text, a list, a number, a
    lease with a part missing.

    An expired lease is still a lease here. The factory looks at the clock when it is
    called, since a worker may keep the factory for a while.
    """
    if not isinstance(state, dict):
        return None
    value = state.get(ENGINE_FACTORY_KEY)
    factory: Optional[EngineFactory] = None
    if callable(value):
        factory = value
    elif isinstance(value, dict) and _is_lease(value):
        factory = _factory_of(value)
    return factory


def extract_engine_id(state: Any, default: Optional[str] = None) -> Optional[str]:
    """Give the engine that the host chose, ``state["meta"]["engine_id"]``, or ``default``.

    Only a non-empty string counts. It is not trimmed: ``"  "`` comes back as ``"  "``, and
    the host says whether it has an engine of that name.
    """
    meta = state.get("meta") if isinstance(state, dict) else None
    engine_id = meta.get("engine_id") if isinstance(meta, dict) else None
    if isinstance(engine_id, str) and engine_id:
        return engine_id
    return default


def resolve_engine(state: Any, engine_id: Optional[str] = None) -> Optional[Any]:
    """Find the factory and call it. With an id: that engine. Without: the host's default.

    An empty id is no id. None means there is no engine to be had, for whatever reason, and
    the worker goes on without one. A host's callable gives None for an id it does not know.
    A lease cannot tell without asking Warden, so there the first ``execute`` finds out.
    """
    factory = extract_engine_factory(state)
    if factory is None:
        return None
    try:
        return factory(engine_id) if engine_id else factory()
    # Not BaseException: Ctrl-C and a cancelled task have to get through.
    except Exception as error:
        # The class only. The text of an exception may hold a key or a prompt.
        _log.warning("engine.resolve_failed: the engine factory raised %s", type(error).__name__)
        return None


def has_engine_context(state: Any) -> bool:
    """Tell whether the host gave a factory. It is not called, so it may still give None."""
    return extract_engine_factory(state) is not None


# ---- Using an engine ----


@dataclass(frozen=True)
class Completion:
    """What an engine answered."""

    content: str
    #: The engine and the model that really answered. They may differ from those asked for.
    engine: Optional[str] = None
    model: Optional[str] = None
    #: ``input_tokens`` and ``output_tokens``, as far as Warden told them.
    usage: Dict[str, int] = field(default_factory=dict)
    task: Optional[str] = None
    #: The decision under which the call was let through. It is the thread into the audit log.
    decision: Optional[str] = None


class EngineError(Exception):
    """A call that gave no completion.

    ``code``       a short word for programs, such as ``unknown_model`` or ``unreachable``
    ``message``    a sentence for people
    ``status``     the HTTP status, or None if there was no answer
    ``retryable``  the same call may work later. This says nothing about cost: a call that
                   ended in ``timeout`` may have been run, and counted, all the same.
    ``decision``   the id of Warden's decision if it sent one. An operator can look it up.
    """

    def __init__(
        self,
        code: str,
        message: str,
        status: Optional[int] = None,
        retryable: bool = False,
        decision: Optional[str] = None,
    ) -> None:
        # All of them, or the error would not survive the way between two processes (pickle).
        super().__init__(code, message, status, retryable, decision)
        self.code = code
        self.message = message
        self.status = status
        self.retryable = retryable
        self.decision = decision

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


class BudgetExceeded(EngineError):
    """HTTP 402: the worker's budget does not cover this call."""


@dataclass(frozen=True)
class Engine:
    """An engine behind Warden, bound to one task by a lease.

    Workers get one from ``resolve_engine``. It holds no connection and nothing to close.
    """

    base_url: str
    task: str
    # Not shown: whoever logs an engine should not log the lease with it.
    lease: str = field(repr=False)
    #: None leaves the choice to Warden.
    engine: Optional[str] = None

    def execute(self, prompt: str, *, timeout_s: Optional[float] = None, **options: Any) -> Completion:
        """Send one prompt and wait for the answer.

        Options that Warden knows are ``model``, ``system``, ``max_tokens`` and ``engine``. They
        are passed on as they are, except those that are None. ``timeout_s`` is how long Warden may take.

        The worker's token is read from WARDEN_TOKEN at each call, so that a new token
        is used at once. It goes to ``base_url``, which is as good as the host that wrote
        the lease. Do not make engines of leases from elsewhere.

        Raises EngineError, or BudgetExceeded if the budget is what is missing.
        """
        token = os.environ.get(TOKEN_VARIABLE, "").strip()
        if not _VISIBLE.fullmatch(token):
            raise EngineError("no_token", f"{TOKEN_VARIABLE} holds no usable token")

        body: Dict[str, Any] = {"engine": self.engine, **options, "prompt": prompt}
        payload = json.dumps({name: value for name, value in body.items() if value is not None}).encode()
        headers = {
            "authorization": f"Bearer {token}",
            "content-type": "application/json",
            "x-warden-task": self.task,
            "x-warden-lease": self.lease,
        }
        wait = DEFAULT_WAIT_S
        if timeout_s is not None:
            headers["x-warden-timeout-ms"] = str(int(timeout_s * 1000))
            # A little longer than Warden, whose own answer says more than a cut connection.
            wait = timeout_s + 2.0
        return self._post(payload, headers, wait)

    def _post(self, payload: bytes, headers: Dict[str, str], wait: float) -> Completion:
        # http.client and not urllib.request: that one follows redirects and goes through the
        # proxy named in the environment, and would take the token along to both.
        try:
            url = urlsplit(self.base_url)
            kind = http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection
            connection = kind(url.hostname or "", url.port, timeout=wait)
            try:
                connection.request("POST", url.path.rstrip("/") + "/execute", payload, headers)
                answer = connection.getresponse()
                raw = answer.read()
            finally:
                connection.close()
        except (OSError, http.client.HTTPException, ValueError) as error:
            # "from None": the text of what went wrong below may quote a header.
            raise _no_answer(error) from None

        body = _json_object(raw)
        decision = answer.getheader("x-warden-decision")
        if answer.status != 200:
            raise _refusal(answer.status, body, decision)
        if not isinstance(body.get("content"), str):
            raise EngineError("bad_answer", "the answer holds no content", answer.status, decision=decision)
        usage = body.get("usage")
        return Completion(
            content=body["content"],
            engine=body.get("engine"),
            model=body.get("model"),
            usage=usage if isinstance(usage, dict) else {},
            task=body.get("task"),
            decision=body.get("decision") or decision,
        )


# ---- Leases ----


def _is_lease(value: Dict[str, Any]) -> bool:
    """Tell whether this is a lease in form. Whether it is good, Warden alone can say."""
    lease, task, base_url = value.get("lease"), value.get("task"), value.get("base_url")
    return (
        value.get("kind") == LEASE_KIND
        and isinstance(lease, str)
        and _LEASE.fullmatch(lease) is not None
        and isinstance(task, str)
        and _VISIBLE.fullmatch(task) is not None
        and isinstance(base_url, str)
        and _is_http(base_url)
        and isinstance(value.get("engine"), (str, type(None)))
    )


def _is_http(text: str) -> bool:
    try:
        url = urlsplit(text)
        # Reading the port raises if it is no number, or too high a one.
        return url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
    except ValueError:
        return False


def _factory_of(lease: Dict[str, Any]) -> EngineFactory:
    """Make a factory like the one that a host in the same process would give."""
    # A copy: the state may change under a worker that keeps the factory.
    lease = dict(lease)

    def factory(engine_id: Optional[str] = None) -> Optional[Engine]:
        # No engine has such a name.
        if not isinstance(engine_id, (str, type(None))):
            return None
        # Warden looks at the time itself. This only spares a call that is bound to fail.
        if _is_over(lease.get("expires")):
            return None
        return Engine(lease["base_url"], lease["task"], lease["lease"], engine_id or lease.get("engine") or None)

    return factory


def _is_over(expires: Any) -> bool:
    """Tell whether this time has come. A time that cannot be read counts as past."""
    found = _RFC3339.fullmatch(expires) if isinstance(expires, str) else None
    if found is None:
        return True
    # fromisoformat knows neither "Z" nor nanoseconds before Python 3.11. The fraction is left out.
    day, clock, zone = found.groups()
    try:
        end = datetime.fromisoformat(f"{day}T{clock}{'+00:00' if zone in 'Zz' else zone}")
    except ValueError:
        return True
    return datetime.now(timezone.utc) >= end


# ---- Failures ----


def _no_answer(error: Exception) -> EngineError:
    name = type(error).__name__
    # socket.timeout is a class of its own before Python 3.10.
    if isinstance(error, (TimeoutError, socket.timeout)):
        return EngineError("timeout", "Warden did not answer in time", retryable=True)
    if isinstance(error, (OSError, http.client.IncompleteRead)):
        return EngineError("unreachable", f"no answer from Warden ({name})", retryable=True)
    return EngineError("bad_request", f"the call could not be sent or its answer not be read ({name})")


def _refusal(status: int, body: Dict[str, Any], decision: Optional[str]) -> EngineError:
    """Read ``{"error": {"code", "message"}}``. Whatever else comes is named by its status."""
    error = body.get("error")
    error = error if isinstance(error, dict) else {}
    code, message = error.get("code"), error.get("message")
    kind = BudgetExceeded if status == 402 else EngineError
    return kind(
        code if isinstance(code, str) and code else f"http_{status}",
        message if isinstance(message, str) and message else f"Warden answered {status}",
        status,
        # The rest are verdicts. They stay the same until somebody changes something.
        retryable=status in (408, 429, 500, 502, 503, 504),
        decision=decision,
    )


def _json_object(raw: bytes) -> Dict[str, Any]:
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
