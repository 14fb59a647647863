"""Requests that run: what they hold in a shared file is kept from expiring while they do."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from . import Policy, Reservation

_EVERY_SECONDS = 20.0
"""Three times in the minute after which a request of a process that says nothing is taken for ended."""


class Running:
    """The requests of one event loop that a policy lets run at a time."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._requests = 0
        self._timer: asyncio.TimerHandle | None = None

    @contextmanager
    def holding(self, place: Reservation) -> Iterator[None]:
        """While a request runs. Its place is free again when it ends, however it does."""
        self._requests += 1
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_EVERY_SECONDS, self._renew)
        try:
            with place:
                yield
        finally:
            self._requests -= 1
            if self._requests == 0 and self._timer is not None:
                self._timer.cancel()
                self._timer = None

    def _renew(self) -> None:
        self._policy.renew_reservations()
        self._timer = asyncio.get_running_loop().call_later(_EVERY_SECONDS, self._renew)
