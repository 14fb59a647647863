"""The middleware for ASGI."""

import asyncio
import pathlib
from typing import Any

import httpx
import pytest

from tidegate import Policy
from tidegate.asgi import RateLimitMiddleware, reservation_of

POLICY = """
[[rule]]
name = "ip"
limit = "3 per hour"
key = "ip"

[[rule]]
name = "budget"
limit = "1_000 per day"
algorithm = "fixed-window"
key = "user"
cost = "llm-tokens"
match = { authenticated = true }
"""


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "websocket":
        return await send({"type": "websocket.accept"})
    if (reservation := reservation_of(scope)) and scope["path"] == "/settle":
        reservation.settle(100)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x-mine", b"1")]})
    await send({"type": "http.response.body", "body": b"hello"})


def by_header(scope: Any) -> str | None:
    return dict(scope["headers"]).get(b"x-user", b"").decode() or None


def client(app: Any) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app, client=("192.0.2.1", 1))
    return httpx.AsyncClient(transport=transport, base_url="http://test")


async def test_requests_are_limited_and_answers_get_the_fields() -> None:
    async with client(RateLimitMiddleware(app, Policy(POLICY))) as calls:
        answers = [await calls.get("/") for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert answers[0].headers["ratelimit-policy"] == '"ip";q=3;w=3600'
    assert (answers[0].headers["x-mine"], answers[0].text) == ("1", "hello")
    denied = answers[3]
    assert int(denied.headers["retry-after"]) >= 3_599
    assert denied.json()["violated-policies"] == ["ip"]
    assert int(denied.headers["content-length"]) == len(denied.content)


async def test_reservations_are_the_applications_to_settle() -> None:
    policy = Policy(POLICY)
    limited = RateLimitMiddleware(app, policy, user=by_header, llm_tokens=lambda _: 600)
    async with client(limited) as calls:
        assert (await calls.get("/settle", headers={"X-User": "alice"})).status_code == 200
        assert (await calls.get("/", headers={"X-User": "alice"})).status_code == 200
        assert (await calls.get("/", headers={"X-User": "alice"})).status_code == 429
    left = policy.peek(ip="192.0.2.2", user="alice", llm_tokens=0).standings[1].remaining
    assert left == 300, "one was settled, the other keeps its charge"


async def test_requests_that_run_keep_their_places_and_leave_them(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rule = '[[rule]]\nname = "one"\nlimit = "1 concurrent"\nkey = "global"'
    policy, go, renewed = Policy(rule, shared=tmp_path / "limits"), asyncio.Event(), asyncio.Event()
    monkeypatch.setattr("tidegate._running._EVERY_SECONDS", 0.001)

    async def waits(scope: Any, receive: Any, send: Any) -> None:
        await go.wait()
        if scope["path"] == "/fails":
            raise KeyError
        await app(scope, receive, send)

    async with client(RateLimitMiddleware(waits, policy)) as calls:
        first = asyncio.create_task(calls.get("/"))
        while policy.renew_reservations() == 0:
            await asyncio.sleep(0)
        assert (await calls.get("/")).status_code == 429
        asyncio.get_running_loop().call_later(0.01, renewed.set)
        await renewed.wait()  # some renewals later
        go.set()
        assert (await first).status_code == 200
        with pytest.raises(KeyError):
            await calls.get("/fails")
        assert (await calls.get("/")).status_code == 200
    assert policy.renew_reservations() == 0


PLACES_AND_TOKENS = """
[[rule]]
name = "calls"
limit = "1 concurrent"
key = "global"

[[rule]]
name = "tokens"
limit = "1000 per hour"
key = "global"
cost = "llm-tokens"
"""


@pytest.mark.parametrize("ends", ["settle", "cancel", "with"])
async def test_a_request_keeps_its_place_until_its_answer_has_ended_whatever_becomes_of_its_tokens(
    ends: str,
) -> None:
    policy, settled, go = Policy(PLACES_AND_TOKENS), asyncio.Event(), asyncio.Event()

    async def streams(scope: Any, receive: Any, send: Any) -> None:
        reservation = reservation_of(scope)
        if ends == "with":
            async with reservation:
                reservation.settle(7)
        elif ends == "settle":
            reservation.settle(7)
        else:
            reservation.cancel()
        settled.set()
        await go.wait()
        await app(scope, receive, send)

    limited = RateLimitMiddleware(streams, policy, llm_tokens=lambda _: 100)
    async with client(limited) as calls:
        first = asyncio.create_task(calls.get("/"))
        await settled.wait()
        denied = await asyncio.wait_for(calls.get("/"), 10)
        assert denied.json()["violated-policies"] == ["calls"]
        go.set()
        assert (await first).status_code == 200
        assert (await calls.get("/")).status_code == 200


@pytest.mark.parametrize("can_answer", [True, False])
async def test_websockets_are_limited_at_their_handshake(can_answer: bool) -> None:
    limited = RateLimitMiddleware(app, Policy(POLICY))
    scope = {"type": "websocket", "path": "/", "headers": [], "client": ("192.0.2.1", 1)}
    scope["extensions"] = {"websocket.http.response": {}} if can_answer else {}
    first: list[Any] = []
    for _ in range(4):
        sent: list[Any] = []

        async def send(message: Any, sent: list[Any] = sent) -> None:
            sent.append(message)

        await limited(dict(scope), None, send)  # type: ignore[arg-type]
        first.append(sent[0])
    assert [message["type"] for message in first[:3]] == ["websocket.accept"] * 3
    assert (b"ratelimit", b'"ip";r=2;t=' + first[0]["headers"][1][1][11:]) in first[0]["headers"]
    if can_answer:
        assert (first[3]["type"], first[3]["status"]) == ("websocket.http.response.start", 429)
    else:
        assert (first[3]["type"], first[3]["code"]) == ("websocket.close", 1008)


async def test_other_scopes_pass() -> None:
    seen: list[str] = []

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["type"])

    await RateLimitMiddleware(inner, Policy(POLICY))({"type": "lifespan"}, None, None)  # type: ignore[arg-type]
    assert seen == ["lifespan"]


async def test_a_scope_that_is_none_is_an_error_and_no_pass() -> None:
    for scope in [{"type": "http"}, {"type": "http", "path": 7}, {"type": "http", "path": "/", "headers": [1]}]:
        with pytest.raises(TypeError):
            await RateLimitMiddleware(app, Policy(POLICY))(scope, None, None)  # type: ignore[arg-type]
