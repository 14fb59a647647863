"""The storage for the package `limits`, beside the suite of its own that `conformance` runs."""

import asyncio
import pathlib

import limits
import limits.aio
import pytest
from limits.errors import ConfigurationError, StorageError
from limits.storage import storage_from_string
from limits.strategies import (
    FixedWindowRateLimiter,
    MovingWindowRateLimiter,
    SlidingWindowCounterRateLimiter,
)

from tidegate import FakeClock
from tidegate.limits import AsyncTidegateStorage, TidegateStorage

FIVE = limits.parse("5/minute")


def test_a_fixed_window_begins_with_its_first_hit(clock: FakeClock) -> None:
    clock.advance(31)
    limiter = FixedWindowRateLimiter(TidegateStorage(clock=clock))
    assert [limiter.hit(FIVE, "alice") for _ in range(6)] == [True] * 5 + [False]
    assert limiter.get_window_stats(FIVE, "alice").reset_time == 1_700_000_091
    clock.advance(59.9)
    assert not limiter.hit(FIVE, "alice")
    clock.advance(0.1)
    assert limiter.hit(FIVE, "alice", cost=5)
    assert limiter.get_window_stats(FIVE, "bob") == (clock.now, 5)


@pytest.mark.parametrize("amount", [5, 128, 129, 100_000])
def test_a_moving_window_is_exact(amount: int, clock: FakeClock) -> None:
    limiter = MovingWindowRateLimiter(TidegateStorage(clock=clock))
    item = limits.RateLimitItemPerMinute(amount)
    assert limiter.hit(item, "alice", cost=2)
    clock.advance(20)
    assert limiter.hit(item, "alice", cost=amount - 2)
    assert not limiter.hit(item, "alice")
    stats = limiter.get_window_stats(item, "alice")
    assert (stats.reset_time, stats.remaining) == (1_700_000_060, 0)
    clock.advance(39.999)
    assert not limiter.test(item, "alice")
    clock.advance(0.001)
    assert limiter.test(item, "alice", cost=2) and not limiter.test(item, "alice", cost=3)
    assert limiter.hit(item, "alice", cost=2)
    limiter.clear(item, "alice")
    assert limiter.hit(item, "alice", cost=amount)


def test_a_sliding_window_counter_weighs_the_window_before(clock: FakeClock) -> None:
    clock.set(1_700_000_040 - 1)  # a second before the end of a minute
    limiter = SlidingWindowCounterRateLimiter(TidegateStorage(clock=clock))
    assert limiter.hit(FIVE, "alice", cost=4)
    clock.advance(1)
    assert limiter.hit(FIVE, "alice") and not limiter.hit(FIVE, "alice"), "4 whole, and 1"
    clock.advance(15)
    assert limiter.get_window_stats(FIVE, "alice").remaining == 1, "3 of 4"
    assert limiter.hit(FIVE, "alice") and not limiter.hit(FIVE, "alice")
    limiter.clear(FIVE, "alice")
    assert limiter.get_window_stats(FIVE, "alice").remaining == 5


def test_strategies_do_not_share_their_hits(clock: FakeClock) -> None:
    storage = TidegateStorage(clock=clock)
    strategies = [FixedWindowRateLimiter, MovingWindowRateLimiter, SlidingWindowCounterRateLimiter]
    for strategy in strategies:
        assert strategy(storage).hit(FIVE, "alice", cost=5)
    assert storage.incr("LIMITER/alice/5/1/minute", 60, 2) == 7, "counts on above the limit"


def test_reset_forgets_everything_and_counts_it(clock: FakeClock) -> None:
    storage = TidegateStorage(clock=clock)
    for key in range(20):
        storage.incr(str(key), 60)
    storage.acquire_entry("a", 5, 60)
    assert storage.reset() == 20
    assert storage.get("3") == 0 and storage.get_moving_window("a", 5, 60)[1] == 0
    assert storage.reset() == 0


def test_processes_that_give_one_path_share_it(tmp_path: pathlib.Path) -> None:
    uri = f"tidegate://{tmp_path}/limits?keys=1000"
    for spent in [2, 4, 5]:
        storage = storage_from_string(uri)
        assert storage.check()
        for strategy in [FixedWindowRateLimiter, MovingWindowRateLimiter, SlidingWindowCounterRateLimiter]:
            limiter = strategy(storage)
            hits = [limiter.hit(FIVE, "alice"), limiter.hit(FIVE, "alice")]
            assert hits == [True, spent < 5], strategy
    with pytest.raises(NotImplementedError, match="deleting their file"):
        storage.reset()


def test_what_is_no_storage_is_refused(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ConfigurationError, match="no such option"):
        storage_from_string("tidegate://?size=5")
    with pytest.raises(ConfigurationError, match="give at least 1"):
        storage_from_string("tidegate://?keys=0")
    with pytest.raises(ConfigurationError, match="invalid literal"):
        storage_from_string("tidegate://?keys=many")
    with pytest.raises(IsADirectoryError):
        storage_from_string(f"tidegate://{tmp_path}")
    storage = storage_from_string("tidegate://", wrap_exceptions=True)
    for limit in range(1, 65):
        assert storage.acquire_entry("a", limit, 60)
    with pytest.raises(StorageError) as refused:
        storage.acquire_entry("a", 65, 60)
    assert "64 different limits" in str(refused.value.storage_error)


def test_a_flood_of_keys_is_denied_and_forgets_nothing(clock: FakeClock) -> None:
    storage = TidegateStorage("tidegate://?keys=100", clock=clock)
    limiter = FixedWindowRateLimiter(storage)
    assert limiter.hit(FIVE, "alice", cost=5)
    passed = sum(limiter.hit(FIVE, str(key)) for key in range(20_000))
    assert 100 <= passed < 1_000
    assert not limiter.hit(FIVE, "alice")


async def test_the_asynchronous_storage_is_the_same(clock: FakeClock) -> None:
    storage = AsyncTidegateStorage(clock=clock)
    limiter = limits.aio.strategies.MovingWindowRateLimiter(storage)
    hits = await asyncio.gather(*(limiter.hit(FIVE, "alice") for _ in range(9)))
    assert sum(hits) == 5
    assert await storage.incr("a", 60) == 1 and await storage.get("a") == 1
    assert await storage.check() and await storage.reset() == 1


def test_slowapi_switches_by_one_string() -> None:
    from fastapi import FastAPI, Request
    from fastapi.testclient import TestClient
    from slowapi import Limiter, _rate_limit_exceeded_handler
    from slowapi.errors import RateLimitExceeded
    from slowapi.util import get_remote_address

    limiter = Limiter(key_func=get_remote_address, storage_uri="tidegate://", strategy="moving-window")
    app = FastAPI()
    app.state.limiter = limiter
    app.add_exception_handler(RateLimitExceeded, _rate_limit_exceeded_handler)  # type: ignore[arg-type]

    @app.get("/")
    @limiter.limit("3/minute")
    def hello(request: Request) -> str:
        return "hello"

    calls = TestClient(app)
    assert [calls.get("/").status_code for _ in range(5)] == [200, 200, 200, 429, 429]


def test_flask_limiter_switches_by_one_string(tmp_path: pathlib.Path) -> None:
    from flask import Flask
    from flask_limiter import Limiter
    from flask_limiter.util import get_remote_address

    for passed in [3, 0]:  # the second is another worker
        app = Flask(__name__)
        limiter = Limiter(get_remote_address, app=app, storage_uri=f"tidegate://{tmp_path}/limits")

        @app.get("/")
        @limiter.limit("3/minute")
        def hello() -> str:
            return "hello"

        codes = [app.test_client().get("/").status_code for _ in range(5)]
        assert codes == [200] * passed + [429] * (5 - passed)
