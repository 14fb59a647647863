"""Limits as dependencies of FastAPI."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Annotated, Any

import httpx
import pytest
from fastapi import APIRouter, Depends, FastAPI, Header, Request, Response, WebSocket
from fastapi.responses import StreamingResponse

from tidegate import FakeClock, Policy, Reservation, TokenBudget, Verdict
from tidegate.fastapi import RESPONSES, enforce, install, limit


def client(app: FastAPI, ip: str = "192.0.2.1") -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app, client=(ip, 50_000))
    return httpx.AsyncClient(transport=transport, base_url="http://test")


async def user(authorization: Annotated[str | None, Header()] = None) -> str | None:
    return authorization and authorization.removeprefix("Bearer ")


def by(name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {name}"}


async def statuses(app: FastAPI, times: int, path: str = "/", **options: Any) -> list[int]:
    async with client(app) as calls:
        return [(await calls.get(path, **options)).status_code for _ in range(times)]


async def test_a_limit_answers_429_as_the_drafts_have_it(clock: FakeClock) -> None:
    app = FastAPI()

    @app.get("/", dependencies=[Depends(limit("2/minute", clock=clock))])
    async def hello() -> str:
        return "hello"

    async with client(app) as calls:
        first = await calls.get("/")
        assert first.status_code == 200
        assert first.headers["ratelimit-policy"] == '"ip";q=2;w=60'
        assert first.headers["ratelimit"] == '"ip";r=1;t=60'
        assert "retry-after" not in first.headers
        clock.advance(0.5)
        await calls.get("/")
        denied = await calls.get("/")
    assert denied.status_code == 429
    assert denied.headers["retry-after"] == "60", "rounded up"
    assert denied.headers["content-type"] == "application/problem+json"
    assert denied.headers["cache-control"] == "no-store"
    assert denied.headers.get_list("ratelimit") == ['"ip";r=0;t=60']
    problem = denied.json()
    assert problem["type"] == "https://iana.org/assignments/http-problem-types#quota-exceeded"
    assert (problem["status"], problem["violated-policies"]) == (429, ["ip"])
    clock.advance(60)
    assert await statuses(app, 1) == [200]


async def test_users_have_limits_of_their_own_and_strangers_none(clock: FakeClock) -> None:
    app = FastAPI()

    @app.get("/")
    async def hello(verdict: Annotated[Verdict, Depends(limit("2/minute", key=user, clock=clock))]) -> int:
        return verdict.standings[0].remaining

    async with client(app) as calls:
        names = ["alice", "alice", "bob", "alice", "carol"]
        got = [(await calls.get("/", headers=by(name))).status_code for name in names]
        assert got == [200, 200, 200, 429, 200]
        stranger = await calls.get("/")
        assert stranger.status_code == 403, "a missing key is never unlimited"
        assert "retry-after" not in stranger.headers


async def test_a_request_that_a_later_layer_denies_is_charged_by_none(clock: FakeClock) -> None:
    app = FastAPI()
    per_ip, per_user = limit("100/minute", clock=clock), limit("2/minute", key=user, clock=clock)
    budget = limit("1000/day", key=user, cost=lambda: 100, name="budget", algorithm="fixed-window", clock=clock)

    @app.get("/", dependencies=[Depends(per_ip), Depends(budget), Depends(per_user)])
    async def hello() -> None: ...

    assert await statuses(app, 10, headers=by("alice")) == [200] * 2 + [429] * 8
    assert per_ip.policy.peek(ip="192.0.2.1").standings[0].remaining == 97, "98, but for the peek"
    left = budget.policy.peek(user="alice", llm_tokens=0).standings[0].remaining
    assert left == 800


async def test_a_budget_is_reserved_and_settled_by_what_was_used(clock: FakeClock) -> None:
    app = FastAPI()

    async def most(request: Request) -> int:
        return int((await request.body()) or 0)

    budget = limit("1000/day", key=user, cost=most, name="budget", algorithm="fixed-window", clock=clock)

    @app.post("/")
    async def chat(tokens: Annotated[Reservation, Depends(budget)], used: int) -> int:
        tokens.settle(used)
        return tokens.reserved

    def left() -> int:
        return budget.policy.peek(user="alice", llm_tokens=0).standings[0].remaining

    async with client(app) as calls:
        answer = await calls.post("/", params={"used": 150}, content="600", headers=by("alice"))
        assert answer.json() == 600
        assert answer.headers["ratelimit-policy"] == '"budget";q=1000;w=86400;tidegate-unit="llm-tokens"'
        assert left() == 850
        denied = await calls.post("/", params={"used": 1}, content="851", headers=by("alice"))
        assert denied.status_code == 429
        oversized = await calls.post("/", params={"used": 1}, content="1001", headers=by("alice"))
        assert "retry-after" not in oversized.headers, "no wait helps"
        assert left() == 850


async def test_a_stream_is_settled_when_it_ends_and_carries_the_fields(clock: FakeClock) -> None:
    app = FastAPI()
    install(app)
    budget = limit("1000/day", key=user, cost=lambda: 600, algorithm="fixed-window", clock=clock)

    @app.get("/")
    async def chat(tokens: Annotated[Reservation, Depends(budget)]) -> StreamingResponse:
        async def words() -> Any:
            used = 0
            try:
                for used in range(1, 101):
                    yield "word "
            finally:
                tokens.settle(used)

        return StreamingResponse(words())

    async with client(app) as calls:
        answer = await calls.get("/", headers=by("alice"))
        assert answer.text == "word " * 100
        assert answer.headers["ratelimit"].startswith('"user";r=400')
    assert budget.policy.peek(user="alice", llm_tokens=0).standings[0].remaining == 900


async def test_a_stream_whose_client_hangs_up_is_settled_by_what_came_so_far(clock: FakeClock) -> None:
    app = FastAPI()
    install(app)
    budget = limit("1000/day", key=user, cost=lambda: 600, algorithm="fixed-window", clock=clock)
    settled = asyncio.Event()

    @app.get("/")
    async def chat(tokens: Annotated[Reservation, Depends(budget)]) -> StreamingResponse:
        async def words() -> Any:
            used = 0
            try:
                while True:
                    used += 1
                    yield "word "
                    await asyncio.sleep(0)
            finally:
                tokens.settle(used)
                settled.set()

        return StreamingResponse(words())

    sent = asyncio.Semaphore(0)

    async def send(_: Any) -> None:
        sent.release()

    async def receive() -> dict[str, Any]:
        for _ in range(20):
            await sent.acquire()
        return {"type": "http.disconnect"}

    scope = {"type": "http", "method": "GET", "path": "/", "raw_path": b"/", "query_string": b""}
    scope |= {"headers": [(b"authorization", b"Bearer alice")], "client": ("192.0.2.1", 1)}
    await app(scope, receive, send)
    await asyncio.wait_for(settled.wait(), 10)
    left = budget.policy.peek(user="alice", llm_tokens=0).standings[0].remaining
    assert 900 < left < 1_000, "some words, and not all that was reserved"


async def test_concurrent_requests_are_limited_while_they_run() -> None:
    app, go = FastAPI(), asyncio.Event()
    at_a_time = limit("2 concurrent", key="global")

    @app.get("/", dependencies=[Depends(at_a_time)])
    async def wait() -> None:
        await go.wait()

    async with client(app) as calls:
        running = [asyncio.create_task(calls.get("/")) for _ in range(5)]
        done, waiting = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        while len(done) < 3:
            more, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            done |= more
        assert [task.result().status_code for task in done] == [429] * 3
        go.set()
        assert [(await task).status_code for task in waiting] == [200] * 2
        assert (await calls.get("/")).status_code == 200


async def test_a_place_is_kept_until_the_answer_has_ended_whatever_becomes_of_the_tokens() -> None:
    app, settled, go = FastAPI(), asyncio.Event(), asyncio.Event()
    policy = Policy("""
        [[rule]]
        name = "calls"
        limit = "1 concurrent"
        key = "global"

        [[rule]]
        name = "tokens"
        limit = "1000 per hour"
        key = "global"
        cost = "llm-tokens"
    """)
    layers = enforce(policy, llm_tokens=lambda: 100)

    @app.get("/")
    async def chat(tokens: Reservation = Depends(layers)) -> StreamingResponse:
        async def words() -> AsyncIterator[str]:
            async with tokens:
                tokens.settle(7)
            settled.set()
            await go.wait()
            yield "words"

        return StreamingResponse(words())

    async with client(app) as calls:
        first = asyncio.create_task(calls.get("/"))
        await settled.wait()
        denied = await asyncio.wait_for(calls.get("/"), 10)
        assert denied.json()["violated-policies"] == ["calls"]
        go.set()
        assert (await first).status_code == 200
        assert (await calls.get("/")).status_code == 200


async def test_a_policy_is_one_dependency() -> None:
    app = FastAPI()
    policy = Policy("""
        [[rule]]
        name = "ip"
        limit = "3 per hour"
        key = "ip"

        [[rule]]
        name = "user"
        limit = "1 per hour"
        key = "user"
        match = { authenticated = true }
    """)

    @app.get("/", dependencies=[Depends(enforce(policy, user=user))])
    async def hello() -> None: ...

    assert await statuses(app, 3, headers=by("alice")) == [200, 429, 429]
    assert await statuses(app, 3) == [200, 200, 429]


async def test_an_endpoints_own_reservations_are_answered_429_too() -> None:
    app, budget = FastAPI(), TokenBudget(10)
    install(app)

    @app.get("/")
    async def chat() -> None:
        async with budget.reserve("alice", 6) as reservation:
            reservation.settle(6)

    async with client(app) as calls:
        assert (await calls.get("/")).status_code == 200
        denied = await calls.get("/")
    assert (denied.status_code, denied.json()["violated-policies"]) == (429, ["tokens"])
    assert int(denied.headers["retry-after"]) > 0
    assert denied.headers["content-type"] == "application/problem+json"


async def test_a_client_is_who_the_trusted_proxies_say(clock: FakeClock) -> None:
    app = FastAPI()
    behind = limit("1/minute", trusted_proxies=["10.0.0.0/8"], clock=clock)

    @app.get("/", dependencies=[Depends(behind)])
    async def hello() -> None: ...

    async def get(peer: str, forwarded_for: str) -> int:
        async with client(app, peer) as calls:
            return (await calls.get("/", headers={"X-Forwarded-For": forwarded_for})).status_code

    assert await get("10.0.0.1", "6.6.6.6, 203.0.113.9") == 200
    assert await get("10.0.0.2", "7.7.7.7, 203.0.113.9, 10.1.1.1") == 429, "spoofed on the left"
    assert await get("203.0.113.9", "8.8.8.8") == 429, "a stranger is who it is"
    assert await get("10.0.0.1", "2001:db8::1") == 200
    assert await get("10.0.0.1", "2001:DB8:0:0::ffff") == 429, "one network"
    assert await get("testclient", "") == 403, "no address, no limit of its own"


async def test_other_apps_and_exceptions_are_left_as_they_are() -> None:
    app = FastAPI()

    @app.get("/", dependencies=[Depends(limit("1/minute"))])
    async def hello(response: Response) -> dict[str, int]:
        response.headers["x-mine"] = "1"
        return {"a": 1}

    async with client(app) as calls:
        answer = await calls.get("/")
        assert (answer.json(), answer.headers["x-mine"]) == ({"a": 1}, "1")
        assert (await calls.get("/missing")).json() == {"detail": "Not Found"}


def documented(app: FastAPI, path: str, method: str = "get") -> dict[str, Any]:
    responses: dict[str, Any] = app.openapi()["paths"][path][method]["responses"]
    return responses


def test_openapi_documents_the_429_where_there_is_a_limit() -> None:
    app, router = FastAPI(), APIRouter(prefix="/v1")
    install(app)
    nested = limit("1/minute", key=user)

    def inner(_: Annotated[Verdict, Depends(nested)]) -> None: ...

    @app.get("/free")
    async def free() -> None: ...

    @app.get("/limited", dependencies=[Depends(nested)])
    async def limited() -> None: ...

    @router.post("/chat/{room}", dependencies=[Depends(inner)])
    async def chat(room: str) -> None: ...

    app.include_router(router, prefix="/api")
    assert "429" not in documented(app, "/free")
    for responses in [documented(app, "/limited"), documented(app, "/api/v1/chat/{room}", "post")]:
        assert responses["429"] == json.loads(json.dumps(RESPONSES[429]))
        assert "Retry-After" in responses["429"]["headers"]
    parameters = app.openapi()["paths"]["/limited"]["get"]["parameters"]
    assert [parameter["name"] for parameter in parameters] == ["authorization"], "no others"


async def test_a_key_that_is_no_id_says_what_to_return() -> None:
    app = FastAPI()

    @app.get("/", dependencies=[Depends(limit("1/minute", key=lambda: {"id": 7}))])
    async def hello() -> None: ...

    with pytest.raises(TypeError, match="not dict; give a dependency that returns the caller's id"):
        await statuses(app, 1)


async def test_a_limit_that_is_none_is_refused_when_it_is_made() -> None:
    with pytest.raises(ValueError, match="use one of|use `ip`"):
        limit("1/minute", key="address")
    with pytest.raises(ValueError, match="is not a rate"):
        limit("often")
    with pytest.raises(ValueError, match="is not a network"):
        limit("1/minute", trusted_proxies=["10.0.0.0/99"])


async def test_websockets_are_limited_by_dependencies_too(clock: FakeClock) -> None:
    app = FastAPI()

    @app.websocket("/", dependencies=[Depends(limit("1/minute", clock=clock))])
    async def talk(socket: WebSocket) -> None:
        await socket.accept()
        await socket.close()

    async def first_message() -> str:
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        async def receive() -> dict[str, str]:
            return {"type": "websocket.connect"}

        scope = {"type": "websocket", "path": "/", "headers": [], "query_string": b""}
        scope |= {"client": ("192.0.2.1", 1), "extensions": {"websocket.http.response": {}}}
        await app(scope, receive, send)
        return f"{sent[0]['type']} {sent[0].get('status', '')}".strip()

    assert await first_message() == "websocket.accept"
    assert await first_message() == "websocket.http.response.start 429"
