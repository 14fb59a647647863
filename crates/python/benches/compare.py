"""Prints what a decision costs, beside the package `limits` in the same run.

    pip install limits fastapi slowapi
    python benches/compare.py

Each figure is the least of many short runs: what the call takes when nothing else gets in its way. Both
sides take turns, so that a machine that slows down slows both.
"""

import asyncio
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import limits
from limits.storage import MemoryStorage
from limits.strategies import (
    FixedWindowRateLimiter,
    MovingWindowRateLimiter,
    SlidingWindowCounterRateLimiter,
)

import tidegate.limits
from tidegate import Limiter, Policy, RateLimiter, TokenBudget

ROUNDS = 60


def least(calls: dict[str, Callable[[], object]], times: int) -> dict[str, float]:
    """Nanoseconds a call, of each. The loop's own are taken off."""
    calls = {"": lambda: None, **calls}
    best = dict.fromkeys(calls, float("inf"))
    for _ in range(ROUNDS):
        for name, call in calls.items():
            begin = time.perf_counter_ns()
            for _ in range(times):
                call()
            best[name] = min(best[name], (time.perf_counter_ns() - begin) / times)
    loop = best.pop("")
    return {name: ns - loop for name, ns in best.items()}


def row(*cells: object) -> None:
    print("| " + " | ".join(str(cell) for cell in cells) + " |")


def table(*heads: str) -> None:
    print()
    row(*heads)
    row(*("---" if at == 0 else "---:" for at in range(len(heads))))


def decisions() -> None:
    peers = {
        "limits, fixed window": FixedWindowRateLimiter,
        "limits, moving window": MovingWindowRateLimiter,
        "limits, sliding window counter": SlidingWindowCounterRateLimiter,
    }
    table("one decision", "limit", "cost", "ns", "x limits' fastest")
    for amount, cost in [(10, 1), (100, 1), (1_000_000, 1), (100, 50), (1_000_000, 10_000)]:
        item = limits.RateLimitItemPerDay(amount)
        calls: dict[str, Callable[[], object]] = {}
        for name, strategy in peers.items():
            if cost == 10_000 and strategy is MovingWindowRateLimiter:
                continue  # it keeps an entry for each unit, and would take minutes
            hit = strategy(MemoryStorage()).hit
            calls[name] = lambda hit=hit: hit(item, "alice", cost=cost)  # type: ignore[misc]
        with tempfile.TemporaryDirectory() as folder:
            allowed = RateLimiter(amount, 86_400).is_allowed
            shared = RateLimiter(amount, 86_400, shared=f"{folder}/limits").is_allowed
            deduct = TokenBudget(amount).check_and_deduct
            if cost == 1:
                calls["RateLimiter.is_allowed"] = lambda: allowed("alice")
                calls["the same, shared"] = lambda: shared("alice")
            else:
                calls["RateLimiter.is_allowed"] = lambda: allowed("alice", cost)
                calls["the same, shared"] = lambda: shared("alice", cost)
            calls["TokenBudget.check_and_deduct"] = lambda: deduct("alice", cost)
            figures = least(calls, 200)
        fastest = min(ns for name, ns in figures.items() if name in peers)
        for name, ns in figures.items():
            ratio = f"{fastest / ns:.1f}" if name not in peers else ""
            row(name, f"{amount:,}", f"{cost:,}", f"{ns:,.0f}", ratio)


def always_allowed() -> None:
    """Calls that are all allowed, which write."""
    table("one decision that charges", "ns", "x limits' fastest")
    item = limits.RateLimitItemPerSecond(400_000_000)
    hit = FixedWindowRateLimiter(MemoryStorage()).hit
    made = {
        "sliding-window-counter": RateLimiter(400_000_000, 60).is_allowed,
        "fixed-window": TokenBudget(10**12).check_and_deduct,
        "token-bucket": Limiter("10000000/second", algorithm="token-bucket").is_allowed,
    }
    calls: dict[str, Callable[[], object]] = {"limits, fixed window": lambda: hit(item, "alice")}
    for name, call in made.items():
        calls[name] = lambda call=call: call("alice", 1)  # type: ignore[misc]
    figures = least(calls, 200)
    fastest = figures["limits, fixed window"]
    for name, ns in figures.items():
        row(name, f"{ns:,.0f}", "" if name.startswith("limits") else f"{fastest / ns:.1f}")


def storages() -> None:
    table("the strategies of limits", "memory://, ns", "tidegate://, ns")
    item = limits.RateLimitItemPerDay(100)
    for strategy in [FixedWindowRateLimiter, MovingWindowRateLimiter, SlidingWindowCounterRateLimiter]:
        theirs, ours = strategy(MemoryStorage()).hit, strategy(tidegate.limits.TidegateStorage()).hit
        calls = {"theirs": lambda: theirs(item, "alice"), "ours": lambda: ours(item, "alice")}
        figures = least(calls, 200)
        row(strategy.__name__, f"{figures['theirs']:,.0f}", f"{figures['ours']:,.0f}")


def applications() -> dict[str, Any]:
    """The same endpoint with each way to limit it."""
    from fastapi import Depends, FastAPI, Request
    from slowapi import Limiter as SlowLimiter
    from slowapi.util import get_remote_address

    from tidegate.asgi import RateLimitMiddleware
    from tidegate.fastapi import limit

    apps: dict[str, Any] = {}

    def app(name: str, *dependencies: Any) -> FastAPI:
        made = FastAPI()

        @made.get("/", dependencies=list(dependencies))
        async def hello(request: Request) -> dict[str, int]:
            return {"hello": 1}

        apps[name] = made
        return made

    async def nothing() -> None: ...

    rule = '[[rule]]\nname = "ip"\nlimit = "400000000 per minute"\nkey = "ip"'
    app("without a limit")
    app("a dependency that does nothing", Depends(nothing))
    app("Depends(limit(...))", Depends(limit("400000000/minute")))
    limited = app("inside RateLimitMiddleware")
    apps["inside RateLimitMiddleware"] = RateLimitMiddleware(limited, Policy(rule))

    slow = SlowLimiter(key_func=get_remote_address)
    slowed = FastAPI()
    slowed.state.limiter = slow

    @slowed.get("/")
    @slow.limit("400000000/minute")
    async def hello(request: Request) -> dict[str, int]:
        return {"hello": 1}

    apps["slowapi's decorator"] = slowed
    return apps


async def requests() -> None:
    headers = [(b"host", b"localhost"), (b"user-agent", b"bench"), (b"accept", b"*/*")]

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(_: Any) -> None: ...

    async def run(app: Any, times: int) -> float:
        begin = time.perf_counter_ns()
        for _ in range(times):
            scope = {"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1"}
            scope |= {"method": "GET", "path": "/", "raw_path": b"/", "query_string": b"", "root_path": ""}
            scope |= {"scheme": "http", "headers": headers, "client": ("192.0.2.1", 1), "server": None}
            await app(scope, receive, send)
        return (time.perf_counter_ns() - begin) / times / 1_000

    apps = applications()
    best = dict.fromkeys(apps, float("inf"))
    for _ in range(ROUNDS):
        for name, app in apps.items():
            best[name] = min(best[name], await run(app, 30))
    table("one request, without a network", "us", "us more")
    plain = best["without a limit"]
    for name, us in best.items():
        row(name, f"{us:.1f}", f"{us - plain:+.1f}" if us != plain else "")


if __name__ == "__main__":
    print(f"CPython {platform.python_version()}, {platform.machine()}, tidegate {tidegate.__version__},", end=" ")
    print(f"limits {limits.__version__}")
    decisions()
    always_allowed()
    storages()
    asyncio.run(requests())
    sys.stdout.flush()
