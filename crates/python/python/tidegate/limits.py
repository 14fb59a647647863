"""A storage for the package ``limits``, and so for slowapi, Flask-Limiter and all that is built on it.

    import tidegate.limits                            # registers the storage
    limiter = Limiter(key_func=..., storage_uri="tidegate://")

- ``tidegate://``: in memory of this process.
- ``tidegate:///var/lib/app/limits``: in a file. All processes that give one path share their limits
  exactly, and what was spent is still spent after a restart.
- ``async+tidegate://...``: the same for ``limits.aio``.

Options, in the URI's query (``tidegate://?keys=100000``) or as keyword arguments:

- ``keys``: how many keys there is room for at a time, of each limit. By default 10,000. Beyond them, new
  keys are denied until others expire: no flood of keys takes memory, or makes a spent key fresh.

Fixed windows count from the first hit on, and expire up to 62.5 ms late. Moving windows in memory are
exact, and take up to 8 bytes per hit. In a file, whose room is taken beforehand, they are exact up to 128
hits; above that a hit can count a thirtieth of the window too long, never too short.
Sliding window counters weigh the window before as ``limits`` does; each is decided in one atomic step.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import limits.aio.storage as _aio
from limits.errors import ConfigurationError
from limits.storage import (
    MovingWindowSupport,
    SlidingWindowCounterSupport,
    Storage,
)
from limits.storage.base import TimestampedSlidingWindow

from . import FakeClock, _native

__all__ = ["AsyncTidegateStorage", "TidegateStorage"]


def _open(uri: str | None, options: dict[str, Any]) -> _native.Storage:
    parts = urlsplit(uri or "tidegate://")
    options = {**dict(parse_qsl(parts.query, keep_blank_values=True)), **options}
    keys, clock = options.pop("keys", 10_000), options.pop("clock", None)
    shared = options.pop("shared", None) or unquote(parts.netloc + parts.path) or None
    if options:
        raise ConfigurationError(
            f"{', '.join(map(repr, options))}: no such option of tidegate://; there are keys and shared"
        )
    try:
        return _native.Storage(keys=int(keys), shared=shared, clock=clock)
    except (ValueError, OverflowError) as error:
        raise ConfigurationError(f"{uri}: {error}") from error


class _State:
    """What both storages have: the options they were made with, so that they can be made anew."""

    _storage: _native.Storage

    def _begin(self, uri: str | None, options: dict[str, Any]) -> None:
        self._made_of = (uri, options)
        self._storage = _open(uri, options)

    def _reset(self) -> int:
        if self._storage.is_shared:
            raise NotImplementedError(
                "limits that processes share are reset by deleting their file while none of them runs"
            )
        keys = self._storage.live_keys()
        self._storage = _open(*self._made_of)
        return keys


class TidegateStorage(
    _State, Storage, MovingWindowSupport, SlidingWindowCounterSupport, TimestampedSlidingWindow
):
    """The storage of ``tidegate://``."""

    STORAGE_SCHEME = ["tidegate"]

    def __init__(
        self,
        uri: str | None = None,
        wrap_exceptions: bool = False,
        *,
        clock: FakeClock | None = None,
        **options: float | str | bool,
    ) -> None:
        super().__init__(uri, wrap_exceptions)
        self._begin(uri, {**options, "clock": clock})

    @property
    def base_exceptions(self) -> type[Exception] | tuple[type[Exception], ...]:
        return (OSError, ValueError)

    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        return self._storage.incr(key, expiry, amount)

    def get(self, key: str) -> int:
        return self._storage.get(key)

    def get_expiry(self, key: str) -> float:
        return self._storage.get_expiry(key)

    def check(self) -> bool:
        return True

    def reset(self) -> int | None:
        return self._reset()

    def clear(self, key: str) -> None:
        self._storage.clear(key)

    def acquire_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        return self._storage.acquire_entry(key, limit, expiry, amount)

    def get_moving_window(self, key: str, limit: int, expiry: int) -> tuple[float, int]:
        return self._storage.get_moving_window(key, limit, expiry)

    def acquire_sliding_window_entry(
        self, key: str, limit: int, expiry: int, amount: int = 1
    ) -> bool:
        return self._storage.acquire_sliding_window_entry(key, limit, expiry, amount)

    def get_sliding_window(self, key: str, expiry: int) -> tuple[int, float, int, float]:
        return self._storage.get_sliding_window(key, expiry)

    def clear_sliding_window(self, key: str, expiry: int) -> None:
        self._storage.clear_sliding_window(key, expiry)


class AsyncTidegateStorage(
    _State,
    _aio.Storage,
    _aio.MovingWindowSupport,
    _aio.SlidingWindowCounterSupport,
    TimestampedSlidingWindow,
):
    """The storage of ``async+tidegate://``. Nothing of it waits."""

    STORAGE_SCHEME = ["async+tidegate"]

    def __init__(
        self,
        uri: str | None = None,
        wrap_exceptions: bool = False,
        *,
        clock: FakeClock | None = None,
        **options: float | str | bool,
    ) -> None:
        super().__init__(uri, wrap_exceptions)
        self._begin(uri, {**options, "clock": clock})

    @property
    def base_exceptions(self) -> type[Exception] | tuple[type[Exception], ...]:
        return (OSError, ValueError)

    async def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        return self._storage.incr(key, expiry, amount)

    async def get(self, key: str) -> int:
        return self._storage.get(key)

    async def get_expiry(self, key: str) -> float:
        return self._storage.get_expiry(key)

    async def check(self) -> bool:
        return True

    async def reset(self) -> int | None:
        return self._reset()

    async def clear(self, key: str) -> None:
        self._storage.clear(key)

    async def acquire_entry(
        self, key: str, limit: int, expiry: int, amount: int = 1
    ) -> bool:
        return self._storage.acquire_entry(key, limit, expiry, amount)

    async def get_moving_window(
        self, key: str, limit: int, expiry: int
    ) -> tuple[float, int]:
        return self._storage.get_moving_window(key, limit, expiry)

    async def acquire_sliding_window_entry(
        self, key: str, limit: int, expiry: int, amount: int = 1
    ) -> bool:
        return self._storage.acquire_sliding_window_entry(key, limit, expiry, amount)

    async def get_sliding_window(self, key: str, expiry: int) -> tuple[int, float, int, float]:
        return self._storage.get_sliding_window(key, expiry)

    async def clear_sliding_window(self, key: str, expiry: int) -> None:
        self._storage.clear_sliding_window(key, expiry)
