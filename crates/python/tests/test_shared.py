"""A file that processes share: exact, and nothing is forgotten."""

import multiprocessing
import os
import pathlib
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable

import pytest

from tidegate import FileMismatch, LimitExceeded, Limiter, Policy, RateLimiter, TokenBudget

SPEND = """
import sys
import time
from tidegate import RateLimiter
limiter = RateLimiter(1_000, 3_600, shared=sys.argv[1])
print(sum(limiter.is_allowed("alice") for _ in range(400)))
"""


def in_child(run: Callable[[], object]) -> int:
    """Runs it in a forked child. Its process."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        run()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def ended_well(child: int) -> bool:
    return os.waitpid(child, 0)[1] == 0


def test_processes_together_are_admitted_exactly_the_limit(tmp_path: pathlib.Path) -> None:
    command = [sys.executable, "-c", SPEND, str(tmp_path / "limits")]
    workers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    admitted = [int(worker.communicate()[0]) for worker in workers]
    assert sum(admitted) == 1_000


def test_what_was_spent_is_still_spent_after_a_restart(tmp_path: pathlib.Path) -> None:
    for spent in [300, 600, 900]:
        budget = TokenBudget(1_000, shared=tmp_path / "limits")
        assert budget.check_and_deduct("alice", 300)
        assert budget.remaining("alice") == 1_000 - spent
        del budget
    assert not TokenBudget(1_000, shared=str(tmp_path / "limits")).check_and_deduct("alice", 300)
    assert TokenBudget(2_000, shared=tmp_path / "limits").remaining("alice") == 2_000, "another one"


def test_a_limiter_goes_on_in_children_that_are_forked(tmp_path: pathlib.Path) -> None:
    limiter = RateLimiter(100, 3_600, shared=tmp_path / "limits")
    memory = RateLimiter(100, 3_600)

    def spend() -> None:
        for _ in range(15):
            assert limiter.is_allowed("alice") and memory.is_allowed("alice")

    children = [in_child(spend) for _ in range(4)]
    assert all(map(ended_well, children))
    assert limiter.remaining("alice") == 40
    assert memory.remaining("alice") == 100, "each process has its own"


def test_children_that_are_forked_add_tables_at_the_same_time(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "limits"
    policies = [Policy.layer("5/hour", name=f"one-{n}", key="user", shared=path) for n in range(2)]
    start, go = os.pipe()

    def add(child: int) -> None:
        os.read(start, 1)  # until the parent closes its end
        for n in range(6):
            limiter = Limiter("5/hour", name=f"{child}-{n}", shared=path)
            assert limiter.is_allowed("alice", child % 5)

    def begin(child: int) -> None:
        os.close(go)
        add(child)

    children = [in_child(lambda child=child: begin(child)) for child in range(6)]
    os.close(go)
    assert all(map(ended_well, children))
    os.close(start)
    for child in range(6):
        for n in range(6):
            limiter = Limiter("5/hour", name=f"{child}-{n}", shared=path)
            assert limiter.remaining("alice") == 5 - child % 5, "no table lies over another"
    assert all(policy.decide(user="alice") for policy in policies)


def test_the_parents_reservations_are_its_own(tmp_path: pathlib.Path) -> None:
    budget = TokenBudget(1_000, shared=tmp_path / "limits")
    reservation = budget.reserve("alice", 600)

    def child() -> None:
        with pytest.raises(RuntimeError, match="parent"):
            reservation.settle(1)
        assert budget.remaining("alice") == 400

    def child_that_ends_by_itself() -> None:
        nonlocal reservation
        del reservation

    assert ended_well(in_child(child))
    assert ended_well(in_child(child_that_ends_by_itself))
    reservation.settle(100)
    assert budget.remaining("alice") == 900


def test_what_a_process_had_reserved_when_it_was_killed_comes_back(tmp_path: pathlib.Path) -> None:
    budget = TokenBudget(1_000, shared=tmp_path / "limits", reservation_expires=0.05)
    read, write = os.pipe()

    def reserve_and_hang() -> None:
        held = budget.reserve("alice", 1_000)
        os.write(write, b"!")
        signal.pause()
        held.cancel()

    child = in_child(reserve_and_hang)
    os.read(read, 1)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    # It has expired as soon as a reservation is granted again.
    for _ in range(10_000):
        try:
            budget.reserve("alice", 1_000).settle(10)
            break
        except LimitExceeded as denied:
            assert denied.decision.remaining == 0
            time.sleep(0.001)
    assert budget.remaining("alice") == 990


def test_workers_that_are_killed_under_load_lose_nothing(tmp_path: pathlib.Path) -> None:
    limiter = RateLimiter(20_000, 3_600, shared=tmp_path / "limits")

    def spend() -> None:
        while True:
            limiter.is_allowed("alice")

    for _ in range(10):
        child = in_child(spend)
        while (left := limiter.remaining("alice")) and left > limiter.capacity - 500:
            pass
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    left = limiter.remaining("alice")
    assert sum(limiter.is_allowed("alice") for _ in range(left + 100)) == left
    assert not RateLimiter(20_000, 3_600, shared=tmp_path / "limits").is_allowed("alice")


def test_processes_that_are_spawned_share_it_too(tmp_path: pathlib.Path) -> None:
    limiter = RateLimiter(10, 3_600, shared=tmp_path / "limits")
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(_spend, (str(tmp_path / "limits"),)) == 4
    assert limiter.remaining("alice") == 6


def _spend(path: str) -> int:
    limiter = RateLimiter(10, 3_600, shared=path)
    return sum(limiter.is_allowed("alice") for _ in range(4))


def test_a_file_that_is_none_is_refused_and_left_alone(tmp_path: pathlib.Path) -> None:
    foreign = tmp_path / "notes.txt"
    foreign.write_text("what I had for lunch" * 1_000)
    with pytest.raises(FileMismatch, match="give another path, or move it away") as refused:
        RateLimiter(1, 1, shared=foreign)
    assert isinstance(refused.value, OSError)
    assert foreign.read_text().startswith("what I had")

    with pytest.raises(IsADirectoryError, match="give the path of one"):
        RateLimiter(1, 1, shared=tmp_path)
    with pytest.raises(FileNotFoundError):
        RateLimiter(1, 1, shared=tmp_path / "missing" / "limits")

    cut = tmp_path / "cut"
    RateLimiter(1, 1, shared=cut)
    os.truncate(cut, 70_000)
    with pytest.raises(FileMismatch, match="was cut off"):
        RateLimiter(1, 1, shared=cut)


def test_what_a_file_cannot_hold_is_refused(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "limits"
    with pytest.raises(ValueError, match="1 to 64 bytes"):
        RateLimiter(1, 1, shared=path, name="n" * 65)
    with pytest.raises(ValueError, match="in memory"):
        RateLimiter(1, 1, shared=path, when_full="take-over")
