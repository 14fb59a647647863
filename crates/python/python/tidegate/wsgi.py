"""A middleware that limits requests by a policy, for every WSGI framework.

    from tidegate import Policy
    from tidegate.wsgi import RateLimitMiddleware

    app.wsgi_app = RateLimitMiddleware(app.wsgi_app, Policy.from_file("policy.toml"))  # Flask
    application = RateLimitMiddleware(application, policy)                             # Django

For limits on single views of Flask, see ``tidegate.limits``, which Flask-Limiter can use.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any

from . import Policy

__all__ = ["RateLimitMiddleware", "reservation_of"]

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
App = Callable[[Environ, StartResponse], Iterable[bytes]]

_RESERVATION = "tidegate.reservation"


class RateLimitMiddleware:
    """Limits the requests of ``app`` by ``policy``.

    ``user`` tells from an environ who calls, once that is proved, or None. ``llm_tokens`` tells how many
    LLM tokens a request will use at most, for rules with that cost; the reservation is then
    ``reservation_of(environ)``.
    """

    def __init__(
        self,
        app: App,
        policy: Policy,
        *,
        user: Callable[[Environ], str | None] | None = None,
        llm_tokens: Callable[[Environ], int] | None = None,
    ) -> None:
        if policy.is_concurrent:
            raise ValueError(
                "a limit of concurrent requests is for tidegate.asgi, which sees them end"
            )
        self._app = app
        self._policy = policy
        self._user = user
        self._llm_tokens = llm_tokens

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        verdict = self._policy.decide_scope(
            _scope(environ),
            None if self._user is None else self._user(environ),
            None if self._llm_tokens is None else self._llm_tokens(environ),
        )
        fields = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in verdict.headers]
        if not verdict.allowed:
            body = verdict.body
            status = f"{verdict.status} {HTTPStatus(verdict.status).phrase}"
            start_response(status, [*fields, ("content-length", str(len(body)))])
            return [body]
        if verdict.reservation is not None:
            environ[_RESERVATION] = verdict.reservation

        def start_with_fields(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
            return start_response(status, [*headers, *fields], *rest)

        return self._app(environ, start_with_fields)


def reservation_of(environ: Environ) -> Any:
    """The reservation of a request's LLM tokens, to be settled; None when no rule counts them."""
    return environ.get(_RESERVATION)


def _scope(environ: Environ) -> Environ:
    """The request as ASGI has it."""
    headers = [
        (name[5:].replace("_", "-").lower().encode("latin-1"), value.encode("latin-1"))
        for name, value in environ.items()
        if name.startswith("HTTP_")
    ]
    # These two have no prefix (PEP 3333), and may be there and empty.
    for name in ("CONTENT_TYPE", "CONTENT_LENGTH"):
        if value := environ.get(name):
            headers.append((name.replace("_", "-").lower().encode("latin-1"), value.encode("latin-1")))
    path = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
    peer = environ.get("REMOTE_ADDR")
    return {
        "type": "http",
        "method": environ["REQUEST_METHOD"],
        # Its bytes are in a text of Latin-1.
        "path": path.encode("latin-1", "replace").decode("utf-8", "replace"),
        "headers": headers,
        "client": (peer, 0) if peer else None,
    }
