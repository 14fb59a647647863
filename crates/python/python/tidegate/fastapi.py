"""Limits as dependencies of FastAPI.

    from fastapi import Depends, FastAPI
    from tidegate.fastapi import limit

    app = FastAPI()

    @app.post("/login", dependencies=[Depends(limit("5/minute", key="ip"))])
    async def login(): ...

    per_user = limit("20/minute", key=require_auth)       # any dependency that tells who calls
    budget = limit("10000/day", key=require_auth, cost=estimate, algorithm="fixed-window")

    @app.post("/chat", dependencies=[Depends(per_user)])
    async def chat(tokens: Reservation = Depends(budget)):
        ...
        tokens.settle(used)

A request that a limit denies is answered 429 with ``Retry-After``, the ``RateLimit`` fields and a problem
body, and is charged by none of its limits, in whatever order they stand. Limits on a Redis are the exception:
what they were charged stays, unless it is reserved (``cost``), so let dependencies with them come last.

``install(app)`` documents the 429 in OpenAPI, answers so too when an endpoint's own ``reserve`` is denied,
and adds the fields to responses that endpoints make themselves, as a ``StreamingResponse``.
"""

from __future__ import annotations

import inspect
import json
import math
import os
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Literal

import fastapi.routing
from fastapi import Depends, FastAPI, Response
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from . import FakeClock, LimitExceeded, Policy, Reservation, Verdict
from ._running import Running

__all__ = ["RESPONSES", "Denied", "Enforced", "enforce", "install", "limit"]

_PROBLEM = {
    "description": "A limit is spent. `Retry-After` says when to try again.",
    "headers": {
        "Retry-After": {
            "description": "The seconds after which the request can succeed.",
            "schema": {"type": "integer", "minimum": 1},
        },
        "RateLimit": {
            "description": "What is left of each limit: draft-ietf-httpapi-ratelimit-headers.",
            "schema": {"type": "string"},
        },
        "RateLimit-Policy": {
            "description": "The limits: draft-ietf-httpapi-ratelimit-headers.",
            "schema": {"type": "string"},
        },
    },
    "content": {
        "application/problem+json": {
            "schema": {
                "title": "Problem",
                "type": "object",
                "required": ["type", "title", "status", "detail", "violated-policies"],
                "properties": {
                    "type": {"type": "string", "format": "uri"},
                    "title": {"type": "string"},
                    "status": {"type": "integer"},
                    "detail": {"type": "string"},
                    "violated-policies": {"type": "array", "items": {"type": "string"}},
                },
            }
        }
    },
}

RESPONSES: dict[int | str, dict[str, Any]] = {429: _PROBLEM}
"""What ``install`` documents, for ``responses=`` of single routes and routers."""

_CHARGED = "tidegate.charged"
"""In a scope: the verdicts of the layers that have let the request through so far."""

_FIELDS = "tidegate.fields"
"""In a scope: that the fields are added to whatever response comes."""


class Denied(HTTPException):
    """A request that a limit has denied. Its ``verdict`` says which, and why."""

    def __init__(self, verdict: Verdict) -> None:
        fields = {
            name.decode("latin-1"): value.decode("latin-1")
            for name, value in verdict.headers
            if name != b"content-type"
        }
        super().__init__(verdict.status, verdict.detail, fields)
        self.verdict = verdict


class Enforced:
    """A policy as a dependency: made by ``limit`` and ``enforce``."""

    def __init__(
        self,
        policy: Policy,
        user: Callable[..., Any] | None = None,
        llm_tokens: Callable[..., Any] | None = None,
    ) -> None:
        self.policy = policy
        parameters = [
            _parameter("connection", HTTPConnection),
            _parameter("response", Response),
        ]
        if user is not None:
            parameters.append(_parameter("user", Any, Depends(user)))
        if llm_tokens is not None:
            parameters.append(_parameter("llm_tokens", Any, Depends(llm_tokens)))
        # FastAPI looks here for what to call this with.
        self.__signature__ = inspect.Signature(parameters)

    async def __call__(
        self,
        connection: HTTPConnection,
        response: Response,
        user: Any = None,
        llm_tokens: int | None = None,
    ) -> Any:
        """Decides on the request: the reservation, if LLM tokens are counted, else the verdict."""
        verdict = await self._decide(connection, response, user, llm_tokens)
        return verdict.reservation or verdict

    async def _decide(
        self, connection: HTTPConnection, response: Response, user: Any, llm_tokens: int | None
    ) -> Verdict:
        if user is not None and type(user) is not str:
            user = _as_text(user)
        scope = connection.scope
        if self.policy.is_remote:
            verdict = await self.policy.decide_scope_async(scope, user, llm_tokens)
        else:
            verdict = self.policy.decide_scope(scope, user, llm_tokens)
        if not verdict.allowed:
            for earlier in scope.pop(_CHARGED, ()):
                earlier.cancel()
            _answer_denials(scope)
            raise Denied(verdict)
        scope.setdefault(_CHARGED, []).append(verdict)
        if _FIELDS not in scope:
            response.headers.raw.extend(verdict.headers)
        return verdict


class Concurrent(Enforced):
    """As `Enforced`, for limits of concurrent requests: it sees the response end."""

    def __init__(self, policy: Policy, *keys_and_costs: Callable[..., Any] | None) -> None:
        super().__init__(policy, *keys_and_costs)
        self._running = Running(policy)

    async def __call__(  # type: ignore[override]
        self,
        connection: HTTPConnection,
        response: Response,
        user: Any = None,
        llm_tokens: int | None = None,
    ) -> AsyncIterator[Reservation | Verdict]:
        verdict = await self._decide(connection, response, user, llm_tokens)
        if (place := verdict.place) is None:
            yield verdict.reservation or verdict
        else:
            with self._running.holding(place):
                yield verdict.reservation or verdict


def _of(policy: Policy, *keys_and_costs: Callable[..., Any] | None) -> Enforced:
    return (Concurrent if policy.is_concurrent else Enforced)(policy, *keys_and_costs)


def limit(
    rate: str,
    *,
    key: str | Callable[..., Any] = "ip",
    cost: int | Callable[..., Any] = 1,
    name: str | None = None,
    algorithm: str | None = None,
    burst: int | None = None,
    epochs: int | None = None,
    time_zone: str | None = None,
    keys: int = 10_000,
    when_full: Literal["deny", "take-over"] = "deny",
    missing_key: Literal["deny", "share", "skip"] = "deny",
    ipv6_prefix: int = 64,
    reservation_expires: float = 3600.0,
    shared: str | os.PathLike[str] | None = None,
    trusted_proxies: Sequence[str] = (),
    fields: Literal["ietf", "x-ratelimit", "none"] = "ietf",
    clock: FakeClock | None = None,
) -> Enforced:
    """A limit such as "20/minute" as a dependency.

    ``key`` tells callers apart: "ip", "header:<name>", "global", or a dependency that returns a str or an
    int, such as the one that authenticates. For requests without it (None), ``missing_key`` says what to
    do; unless said otherwise, they are denied with 403.

    ``cost`` is a number, or a dependency that returns how many LLM tokens the request will use at most.
    Then the limit's value is a ``Reservation``, to be settled by what was really used.

    With ``shared``, the path of a file, all processes share the limit. Limits in one file that are not to
    be one need a ``name`` of their own.
    """
    by = key if isinstance(key, str) else "user"
    policy = Policy.layer(
        rate,
        name=name or by.removeprefix("header:"),
        key=by,
        cost=cost if isinstance(cost, int) else None,
        algorithm=algorithm,
        burst=burst,
        epochs=epochs,
        time_zone=time_zone,
        keys=keys,
        when_full=when_full,
        missing_key=missing_key,
        ipv6_prefix=ipv6_prefix,
        reservation_expires=reservation_expires,
        shared=shared,
        trusted_proxies=list(trusted_proxies),
        fields=fields,
        clock=clock,
    )
    return _of(
        policy,
        None if isinstance(key, str) else key,
        None if isinstance(cost, int) else cost,
    )


def enforce(
    policy: Policy,
    *,
    user: Callable[..., Any] | None = None,
    llm_tokens: Callable[..., Any] | None = None,
) -> Enforced:
    """All layers of a policy as one dependency.

    ``user`` is a dependency that returns who calls, and ``llm_tokens`` one that returns how many LLM
    tokens the request will use at most, for rules that look at them.
    """
    return _of(policy, user, llm_tokens)


def install(app: FastAPI) -> None:
    """Makes limits at home in an app: before it starts, and once.

    Documents the 429 of limits in OpenAPI; answers each ``LimitExceeded`` of an endpoint with 429; adds the
    ``RateLimit`` fields to responses that endpoints make themselves too.
    """
    app.add_middleware(_Fields)
    app.add_exception_handler(Denied, _answer_denied)
    app.add_exception_handler(LimitExceeded, _answer_exceeded)
    make = app.openapi

    def openapi() -> dict[str, Any]:
        is_new = app.openapi_schema is None
        schema = make()
        if is_new:
            _document(app, schema)
        return schema

    app.openapi = openapi  # type: ignore[method-assign]


class _Fields:
    """Adds what the layers of a request tell to its response."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        scope[_FIELDS] = True

        async def send_with_fields(message: Message) -> None:
            if message["type"] == "http.response.start" and _CHARGED in scope:
                fields = (pair for verdict in scope[_CHARGED] for pair in verdict.headers)
                message["headers"] = [*message.get("headers", ()), *fields]
            await send(message)

        await self._app(scope, receive, send_with_fields)


def _parameter(name: str, annotation: Any, default: Any = inspect.Parameter.empty) -> inspect.Parameter:
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default
    )


def _as_text(user: Any) -> str:
    if isinstance(user, (str, int)) and not isinstance(user, bool):
        return str(user)
    raise TypeError(
        f"the key of a limit is a str or an int, not {type(user).__name__}; "
        "give a dependency that returns the caller's id"
    )


def _answer_denials(scope: Any) -> None:
    """Sees to it that denials are answered as problems, in apps that nobody has called `install` on."""
    handlers = scope.get("starlette.exception_handlers")
    if handlers:
        handlers[0].setdefault(Denied, _answer_denied)


async def _answer_denied(_: Any, denied: Any) -> Response:
    verdict: Verdict = denied.verdict
    response = Response(verdict.body, verdict.status, media_type="application/problem+json")
    fields = (pair for pair in verdict.headers if pair[0] != b"content-type")
    response.headers.raw.extend(fields)
    return response


async def _answer_exceeded(_: Any, exceeded: Any) -> Response:
    problem = {
        "type": "https://iana.org/assignments/http-problem-types#quota-exceeded",
        "title": "Quota exceeded",
        "status": 429,
        "detail": f"{exceeded}.",
        "violated-policies": [exceeded.name],
    }
    headers = {"cache-control": "no-store"}
    if exceeded.decision.retry_after is not None:
        headers["retry-after"] = str(max(1, math.ceil(exceeded.decision.retry_after)))
    return Response(json.dumps(problem), 429, headers, "application/problem+json")


def _document(app: FastAPI, schema: dict[str, Any]) -> None:
    # Newer releases of FastAPI include routers without a copy of their routes.
    every: Any = getattr(fastapi.routing, "iter_route_contexts", iter)
    for route in every(app.routes):
        dependant = getattr(route, "dependant", None)
        if dependant is None or not _is_limited(dependant):
            continue
        operations = schema.get("paths", {}).get(route.path_format, {})
        for method in route.methods or ():
            operation = operations.get(method.lower())
            if operation is not None:
                operation.setdefault("responses", {}).setdefault("429", _PROBLEM)


def _is_limited(dependant: Any) -> bool:
    return isinstance(dependant.call, Enforced) or any(map(_is_limited, dependant.dependencies))
