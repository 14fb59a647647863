"""The classes of the lesson, and the full model beside them."""

import asyncio
import enum
import threading
import uuid

import pytest

from tidegate import FakeClock, LimitExceeded, Limiter, RateLimiter, TokenBudget


def test_a_rate_limiter_admits_so_many_in_any_window(clock: FakeClock) -> None:
    limiter = RateLimiter(3, 60, clock=clock)
    assert [limiter.is_allowed("alice") for _ in range(4)] == [True, True, True, False]
    assert limiter.is_allowed("bob")
    clock.advance(59.999)
    assert not limiter.is_allowed("alice")
    clock.advance(0.001)
    assert limiter.is_allowed("alice")


@pytest.mark.parametrize("limit", [3, 128, 129, 5_000, 400_000_000])
def test_any_limit_holds_at_any_cost(limit: int, clock: FakeClock) -> None:
    limiter = RateLimiter(limit, 60, clock=clock)
    assert not limiter.is_allowed("alice", limit + 1)
    assert limiter.is_allowed("alice", limit - 1)
    assert not limiter.is_allowed("alice", 2)
    assert limiter.is_allowed("alice", 1)
    assert not limiter.is_allowed("alice")
    clock.advance(62)  # a thirtieth of the window too long, at most
    assert limiter.is_allowed("alice", limit)


def test_a_token_budget_is_for_a_day(clock: FakeClock) -> None:
    budget = TokenBudget(10_000, clock=clock)
    assert budget.check_and_deduct("alice", 9_000)
    assert not budget.check_and_deduct("alice", 1_001)
    assert budget.check_and_deduct("alice", 1_000)
    assert budget.remaining("alice") == 0
    clock.advance(86_400)
    assert budget.remaining("alice") == 10_000


def test_a_decision_tells_what_is_left_and_when_to_come_back(clock: FakeClock) -> None:
    limiter = Limiter("2/minute", clock=clock)
    first = limiter.decide("alice")
    assert first and first.allowed
    assert (first.remaining, first.retry_after, first.reset_after, first.cause) == (1, None, 60, None)
    assert limiter.peek("alice") == limiter.peek("alice"), "a peek charges nothing"
    clock.advance(15)
    limiter.decide("alice")
    denied = limiter.decide("alice")
    assert not denied
    assert (denied.remaining, denied.retry_after, denied.reset_after) == (0, 45, 60)
    assert denied.cause == "exhausted"
    oversized = limiter.decide("bob", 3)
    assert (oversized.cause, oversized.retry_after) == ("oversized", None)
    assert "exhausted" in repr(denied) and "retry_after=45" in repr(denied)


def test_waiting_for_retry_after_is_enough(clock: FakeClock) -> None:
    limiter = Limiter("7/3 seconds", algorithm="token-bucket", clock=clock)
    for _ in range(50):
        decision = limiter.decide("alice")
        if not decision:
            assert decision.retry_after is not None
            clock.advance(decision.retry_after)
            assert limiter.decide("alice")


@pytest.mark.parametrize(
    "keys",
    [
        ("1", b"1", 1),
        (1, -1, 2**63, 2**64 - 1),
        ("a", ("a",), ("a", "b"), ("b", "a"), ("ab",), ("a", b"b"), ("", "ab")),
        ("", b"", ("",), 0),
    ],
)
def test_keys_that_differ_have_limits_of_their_own(keys: tuple[object, ...]) -> None:
    limiter = RateLimiter(1, 60)
    assert all(limiter.is_allowed(key) for key in keys)  # type: ignore[arg-type]
    assert not any(limiter.is_allowed(key) for key in keys)  # type: ignore[arg-type]


def test_subclasses_of_keys_are_keys() -> None:
    class User(str):
        pass

    class Plan(enum.IntEnum):
        FREE = 7

    limiter = RateLimiter(1, 60)
    assert limiter.is_allowed("alice") and not limiter.is_allowed(User("alice"))
    assert limiter.is_allowed(7) and not limiter.is_allowed(Plan.FREE)


@pytest.mark.parametrize(
    ("key", "error", "says"),
    [
        (None, TypeError, "not unlimited"),
        (1.5, TypeError, "use str(key)"),
        (True, TypeError, "not bool"),
        (uuid.UUID(int=1), TypeError, "not UUID; use str(key)"),
        (["a"], TypeError, "not list"),
        (("a", None), TypeError, "not NoneType"),
        ((), TypeError, "at least one part"),
        ((("a",),), TypeError, "not tuple"),
        (2**64, OverflowError, "use str(key)"),
        ("\ud800", UnicodeEncodeError, "surrogates"),
    ],
)
def test_what_is_no_key_is_refused(key: object, error: type[Exception], says: str) -> None:
    limiter = RateLimiter(1, 60)
    with pytest.raises(error, match=says.replace("(", r"\(").replace(")", r"\)")):
        limiter.is_allowed(key)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("tokens", "error", "says"),
    [
        (-1, ValueError, "0 or more"),
        (1.5, TypeError, "round it up"),
        ("5", TypeError, "a cost is an int, not '5'"),
        (None, TypeError, "a cost is an int"),
        (2**64, ValueError, "above any limit"),
    ],
)
def test_what_is_no_cost_is_refused(tokens: object, error: type[Exception], says: str) -> None:
    budget = TokenBudget(100)
    with pytest.raises(error, match=says):
        budget.check_and_deduct("alice", tokens)  # type: ignore[arg-type]
    assert budget.remaining("alice") == 100, "nothing is charged by mistake"


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Limiter("20"), "write it as in `100 per minute`"),
        (lambda: Limiter("20/fortnight"), "use second, minute, hour, day, week or month"),
        (lambda: Limiter("0/minute"), "give at least 1"),
        (lambda: Limiter("1/month"), "fixed-window"),
        (lambda: Limiter("1/minute", algorithm="leaky"), "use one of `token-bucket`"),
        (lambda: Limiter("1/minute", burst=2), 'burst is for algorithm="token-bucket"'),
        (lambda: Limiter("1/day", time_zone="UTC"), 'algorithm="fixed-window"'),
        (lambda: Limiter("1/minute", keys=0), "give at least 1"),
        (lambda: Limiter("1/minute", keys=2**40), "fewer keys"),
        (lambda: Limiter("1/minute", when_full="drop"), 'use "deny" or "take-over"'),
        (lambda: RateLimiter(5, 0), "from 1"),
        (lambda: RateLimiter(5, 0.5), "whole number of seconds"),
        (lambda: RateLimiter(5, float("nan")), "whole number of seconds"),
        (lambda: TokenBudget(5, time_zone="Mars/Olympus"), "Europe/Berlin"),
        (lambda: TokenBudget(5, reservation_expires=0), "give the seconds"),
        (lambda: TokenBudget(5, reservation_expires=-1), "a number from 0 on"),
    ],
)
def test_what_is_no_limit_is_refused_with_what_to_write(make: object, says: str) -> None:
    with pytest.raises(ValueError) as refused:
        make()  # type: ignore[operator]
    assert says in str(refused.value)


def test_a_reservation_is_settled_by_what_was_used() -> None:
    budget = TokenBudget(1_000)
    with budget.reserve("alice", 600) as reservation:
        assert (reservation.reserved, reservation.is_open) == (600, True)
        assert budget.remaining("alice") == 400
        reservation.settle(150)
    assert not reservation.is_open
    assert budget.remaining("alice") == 850
    with pytest.raises(RuntimeError, match="once"):
        reservation.settle(150)
    with pytest.raises(RuntimeError, match="once"):
        reservation.cancel()


def test_use_above_the_estimate_is_debt_that_is_paid_off(clock: FakeClock) -> None:
    budget = TokenBudget(1_000, clock=clock)
    budget.reserve("alice", 600).settle(1_700)
    clock.advance(86_400)
    assert budget.remaining("alice") == 300


def test_a_reservation_that_nobody_settles_keeps_its_charge_or_gives_it_back() -> None:
    budget = TokenBudget(1_000)
    with budget.reserve("alice", 100):
        pass
    with pytest.raises(KeyError), budget.reserve("alice", 100):
        raise KeyError
    budget.reserve("alice", 100)
    assert budget.remaining("alice") == 700, "the calls behind them may have been made"
    with budget.reserve("alice", 100, unsettled="cancel"):
        pass
    budget.reserve("alice", 100, unsettled="cancel")
    budget.reserve("alice", 100).cancel()
    assert budget.remaining("alice") == 700
    with pytest.raises(ValueError, match='use "keep" or "cancel"'):
        budget.reserve("alice", 1, unsettled="forget")  # type: ignore[arg-type]


def test_a_reservation_outlives_its_limiter() -> None:
    reservation = TokenBudget(10).reserve("alice", 5)
    reservation.settle(2)


def test_a_reservation_that_does_not_fit_says_what_is_left() -> None:
    budget = TokenBudget(1_000)
    budget.check_and_deduct("alice", 900)
    with pytest.raises(LimitExceeded, match="`tokens` of 1000 per day is spent: 100 left") as denied:
        budget.reserve("alice", 101)
    assert denied.value.name == "tokens"
    assert denied.value.decision.remaining == 100
    assert denied.value.decision.retry_after is not None
    assert budget.remaining("alice") == 100


async def test_a_reservation_is_an_asynchronous_context_too() -> None:
    budget = TokenBudget(1_000)
    async with budget.reserve("alice", 600) as reservation:
        await asyncio.sleep(0)
        reservation.settle(1)
    task = asyncio.create_task(asyncio.sleep(60))
    with pytest.raises(asyncio.CancelledError):
        async with budget.reserve("alice", 9):
            task.cancel()
            await task
    assert budget.remaining("alice") == 990


def test_threads_together_are_admitted_exactly_the_limit() -> None:
    limiter, admitted = RateLimiter(5_000, 3_600), []
    barrier = threading.Barrier(8)

    def spend() -> None:
        barrier.wait()
        admitted.append(sum(limiter.is_allowed("alice") for _ in range(2_000)))

    threads = [threading.Thread(target=spend) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(admitted) == 5_000


def test_a_flood_of_keys_takes_no_memory_and_is_denied() -> None:
    limiter = RateLimiter(1, 3_600, keys=100)
    assert limiter.is_allowed("alice")
    admitted = sum(limiter.is_allowed(key) for key in range(100_000))
    assert 100 <= admitted < 1_000
    assert limiter.denied_for_room >= 99_000
    assert not limiter.is_allowed("alice"), "a spent key stays spent"
    assert limiter.decide("newcomer").cause == "table-full"


def test_limiters_say_what_they_are() -> None:
    limiter = RateLimiter(20, 60)
    assert (limiter.name, limiter.capacity) == ("requests", 20)
    assert limiter.limit == "sliding-window-log, 20 per minute"
    assert repr(limiter) == '<tidegate limiter "requests": sliding-window-log, 20 per minute>'
    assert Limiter("20 per minute", algorithm="token-bucket", burst=5).capacity == 5

    class Mine(RateLimiter):
        pass

    assert Mine(1, 1).is_allowed("alice")
