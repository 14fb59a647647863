"""Limits that machines share on a Redis, a real one."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator

import pytest

from tidegate import (
    LimitExceeded,
    Limiter,
    Policy,
    PolicyError,
    RateLimiter,
    ServerUnavailable,
    TokenBudget,
)
from tidegate.asgi import RateLimitMiddleware


class Redis:
    def __init__(self, program: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}"
        arguments = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", ""]
        self.process = subprocess.Popen([program, *arguments], stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        while b"eady to accept connections" not in self.process.stdout.readline():
            assert self.process.poll() is None


@pytest.fixture
def redis() -> Iterator[Redis]:
    program = os.environ.get("TIDEGATE_REDIS_SERVER") or shutil.which("redis-server")
    if program is None:
        pytest.skip("needs redis-server; install it, such as with apt-get install redis-server")
    server = Redis(program)
    yield server
    server.process.send_signal(signal.SIGCONT)
    server.process.kill()
    server.process.wait()


def eventually(expected: int, look: object) -> None:
    for _ in range(500):
        if look() == expected:  # type: ignore[operator]
            return
        time.sleep(0.01)
    assert look() == expected  # type: ignore[operator]


def test_limiters_with_one_address_are_one_limiter(redis: Redis) -> None:
    one, other = (RateLimiter(3, 3600, redis=redis.url) for _ in range(2))
    assert one.is_allowed("alice") and other.is_allowed("alice")
    assert one.remaining("alice") == 1
    decision = other.decide("alice")
    assert decision and decision.remaining == 0
    denied = one.decide("alice")
    assert not denied and denied.retry_after is not None and denied.retry_after > 3000
    assert one.is_allowed("bob") and one.is_allowed(b"alice") and one.is_allowed(("alice", 7))
    assert RateLimiter(3, 3600, redis=redis.url, namespace="other").is_allowed("alice")


def test_a_budget_is_reserved_and_settled(redis: Redis) -> None:
    budget = TokenBudget(1000, redis=redis.url)
    with budget.reserve("alice", 600) as reservation:
        assert budget.remaining("alice") == 400
        with pytest.raises(LimitExceeded, match="400 left"):
            budget.reserve("alice", 600)
        reservation.settle(100)
    eventually(900, lambda: budget.remaining("alice"))
    assert budget.check_and_deduct("alice", 900)
    assert not budget.check_and_deduct("alice", 1)


def test_hot_keys_are_leased_and_the_limit_holds(redis: Redis) -> None:
    limiters = [
        Limiter("1000 per day", algorithm="fixed-window", redis=redis.url, lease=0.5)
        for _ in range(3)
    ]
    admitted = sum(limiter.is_allowed("x") for _ in range(700) for limiter in limiters)
    assert 600 < admitted <= 1000


def test_a_server_that_is_gone_is_an_error_and_no_denial(redis: Redis) -> None:
    closed = RateLimiter(3, 60, redis=redis.url)
    opened = RateLimiter(3, 60, name="open", redis=redis.url, when_down="allow")
    shared = RateLimiter(8, 60, name="share", redis=redis.url, when_down="share of 4")
    assert closed.is_allowed("alice")
    redis.process.kill()
    redis.process.wait()
    with pytest.raises(ServerUnavailable, match="when_down"):
        closed.is_allowed("alice")
    with pytest.raises(ConnectionError):
        closed.reserve("alice", 1)
    assert all(opened.is_allowed("alice") for _ in range(20))
    assert [shared.is_allowed("alice") for _ in range(3)] == [True, True, False]


def test_what_does_not_go_together_is_refused(redis: Redis) -> None:
    with pytest.raises(ValueError, match="leave out shared="):
        RateLimiter(3, 60, redis=redis.url, shared="file")
    with pytest.raises(ValueError, match="give its address"):
        RateLimiter(3, 60, lease=0.5)
    with pytest.raises(ValueError, match="share of 4"):
        RateLimiter(3, 60, redis=redis.url, when_down="never")
    with pytest.raises(ValueError, match="the address is none"):
        RateLimiter(3, 60, redis="http://x")
    with pytest.raises(ValueError, match="sliding-window-counter"):
        Limiter("3/minute", algorithm="sliding-window-log", redis=redis.url, lease=0.5)
    with pytest.raises(PolicyError, match='backend = "local"'):
        Policy('[[rule]]\nname = "c"\nlimit = "3 concurrent"\nkey = "user"', redis=redis.url)


RULES = """
[[rule]]
name = "user"
limit = "3 per hour"
key = "user"

[[rule]]
name = "budget"
limit = "1_000 per day"
algorithm = "fixed-window"
key = "user"
cost = "llm-tokens"
"""


def test_policies_of_machines_share_their_rules(redis: Redis) -> None:
    one, other = (Policy(RULES, redis=redis.url) for _ in range(2))
    assert one.is_remote
    verdict = one.decide(user="alice", llm_tokens=400)
    assert verdict and verdict.reservation is not None
    assert [standing.remaining for standing in verdict.standings] == [2, 600]
    verdict.reservation.settle(150)
    eventually(850, lambda: other.peek(user="alice", llm_tokens=0).standings[1].remaining)
    assert other.decide(user="alice", llm_tokens=10) and one.decide(user="alice", llm_tokens=10)
    denied = one.decide(user="alice", llm_tokens=10)
    assert (denied.rule, denied.status) == ("user", 429)
    one.finish()


def test_a_policy_is_awaited_and_the_loop_goes_on(redis: Redis) -> None:
    policy = Policy(RULES, redis=redis.url)
    scope = {"type": "http", "method": "GET", "path": "/", "headers": []}

    async def run() -> None:
        answers = await asyncio.gather(
            *(policy.decide_scope_async(scope, "alice", 1) for _ in range(5))
        )
        assert sum(answer.allowed for answer in answers) == 3
        redis.process.send_signal(signal.SIGSTOP)
        steps = 0

        async def step() -> None:
            nonlocal steps
            while True:
                steps += 1
                await asyncio.sleep(0.001)

        stepping = asyncio.create_task(step())
        verdict = await policy.decide_scope_async(scope, "bob", 1)
        stepping.cancel()
        assert (verdict.cause, verdict.status) == ("unavailable", 503)
        assert steps > 5
        waiting = asyncio.ensure_future(policy.decide_scope_async(scope, "bob", 1))
        waiting.cancel()
        await asyncio.sleep(0.01)
        assert waiting.cancelled()

    asyncio.run(run())


def test_who_goes_away_while_the_server_is_asked_has_reserved_nothing(redis: Redis) -> None:
    policy = Policy(RULES, redis=redis.url)
    scope = {"type": "http", "method": "GET", "path": "/", "headers": []}

    async def run() -> None:
        assert await policy.decide_scope_async(scope, "dave", 1)  # connected
        redis.process.send_signal(signal.SIGSTOP)
        waiting = asyncio.ensure_future(policy.decide_scope_async(scope, "carol", 400))
        await asyncio.sleep(0)
        waiting.cancel()
        redis.process.send_signal(signal.SIGCONT)
        # The server has charged it, and the answer comes to a loop where nobody wants it.
        while policy.peek(user="carol", llm_tokens=0).standings[0].remaining != 1:
            await asyncio.sleep(0.001)
        left = lambda: policy.peek(user="carol", llm_tokens=0).standings[1].remaining  # noqa: E731
        while left() != 1_000:
            await asyncio.sleep(0.001)

    asyncio.run(asyncio.wait_for(run(), 30))


def test_the_asgi_middleware_takes_such_a_policy(redis: Redis) -> None:
    sent: list[int] = []

    async def app(scope: object, receive: object, send: object) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})  # type: ignore[operator]

    async def send(message: dict[str, object]) -> None:
        if message["type"] == "http.response.start":
            sent.append(message["status"])  # type: ignore[arg-type]

    limited = RateLimitMiddleware(
        app,  # type: ignore[arg-type]
        Policy(RULES, redis=redis.url),
        user=lambda scope: "alice",
        llm_tokens=lambda scope: 1,
    )
    scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
    for _ in range(4):
        asyncio.run(limited(dict(scope), None, send))  # type: ignore[arg-type]
    assert sent == [200, 200, 200, 429]
