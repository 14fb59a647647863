"""A middleware that limits requests by a policy, for every ASGI framework.

    from tidegate import Policy
    from tidegate.asgi import RateLimitMiddleware

    policy = Policy.from_file("policy.toml", shared="/var/lib/app/limits")
    app = RateLimitMiddleware(app, policy)                  # any ASGI application
    app.add_middleware(RateLimitMiddleware, policy=policy)  # Starlette, FastAPI

Each request is decided once, before the application sees it. One that is denied is answered 429, with
``Retry-After``, the ``RateLimit`` fields and a problem body; the application's answers get the fields.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from . import Policy, Verdict
from ._running import Running

__all__ = ["RateLimitMiddleware", "reservation_of"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_RESERVATION = "tidegate.reservation"


class RateLimitMiddleware:
    """Limits the requests and websockets of ``app`` by ``policy``.

    ``user`` tells from a scope who calls, once that is proved, or None. ``llm_tokens`` tells how many LLM
    tokens a request will use at most, for rules with that cost; the reservation is then
    ``reservation_of(scope)``, and keeps its whole charge if nobody settles it.
    """

    def __init__(
        self,
        app: App,
        policy: Policy,
        *,
        user: Callable[[Scope], str | None] | None = None,
        llm_tokens: Callable[[Scope], int] | None = None,
    ) -> None:
        self._app = app
        self._policy = policy
        self._decide = policy.decide_scope
        self._is_remote = policy.is_remote
        self._running = Running(policy) if policy.is_concurrent else None
        self._user = user
        self._llm_tokens = llm_tokens

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if kind != "http" and kind != "websocket":
            return await self._app(scope, receive, send)
        user = None if self._user is None else self._user(scope)
        llm_tokens = None if self._llm_tokens is None else self._llm_tokens(scope)
        if self._is_remote:
            verdict = await self._policy.decide_scope_async(scope, user, llm_tokens)
        else:
            verdict = self._decide(scope, user, llm_tokens)
        if not verdict.allowed:
            return await _deny(verdict, scope, send)
        fields = verdict.headers
        begins = "http.response.start" if kind == "http" else "websocket.accept"

        async def send_with_fields(message: Message) -> None:
            if message["type"] == begins:
                message["headers"] = [*message.get("headers", ()), *fields]
            await send(message)

        reservation = verdict.reservation
        if reservation is not None:
            scope[_RESERVATION] = reservation
        if self._running is None or (place := verdict.place) is None:
            return await self._app(scope, receive, send_with_fields)
        with self._running.holding(place):
            await self._app(scope, receive, send_with_fields)


def reservation_of(scope: Scope) -> Any:
    """The reservation of a request's LLM tokens, to be settled; None when no rule counts them."""
    return scope.get(_RESERVATION)


async def _deny(verdict: Verdict, scope: Scope, send: Send) -> None:
    if scope["type"] == "http":
        kind = "http.response"
    elif "websocket.http.response" in scope.get("extensions", ()):
        kind = "websocket.http.response"
    else:
        # A handshake that is closed before it is accepted is answered 403.
        return await send({"type": "websocket.close", "code": 1008, "reason": verdict.detail})
    body = verdict.body
    headers = [*verdict.headers, (b"content-length", str(len(body)).encode())]
    await send({"type": f"{kind}.start", "status": verdict.status, "headers": headers})
    await send({"type": f"{kind}.body", "body": body})
