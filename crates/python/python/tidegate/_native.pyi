import os
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Final, Literal, TypeAlias, final

from typing_extensions import Self, disjoint_base

_Part: TypeAlias = str | bytes | int
_Key: TypeAlias = _Part | tuple[_Part, ...]
_Path: TypeAlias = str | os.PathLike[str]
_Algorithm: TypeAlias = Literal[
    "token-bucket", "fixed-window", "sliding-window-counter", "sliding-window-log"
]

__all__ = [
    "Decision",
    "FakeClock",
    "FileMismatch",
    "LimitExceeded",
    "Limiter",
    "Policy",
    "PolicyError",
    "RateLimiter",
    "Reservation",
    "ServerUnavailable",
    "Standing",
    "Storage",
    "TokenBudget",
    "TrustedProxies",
    "VERSION",
    "Verdict",
]

VERSION: Final[str]

class LimitExceeded(Exception):
    """A limit denied what was to be reserved. `decision` says how the limit stands, `name` which it is."""

    decision: Decision
    name: str

class FileMismatch(OSError):
    """A file is not one that limits can be shared by: of another kind or version, cut off, or damaged."""

class ServerUnavailable(ConnectionError):
    """The server that counts a limit does not answer, so it is not known whether the limit is spent."""

class PolicyError(ValueError):
    """A policy's text is no policy. The message says where and what would be right."""

@final
class Decision:
    """An answer: whether a key may spend a cost now, and what is left."""

    @property
    def allowed(self) -> bool: ...
    @property
    def remaining(self) -> int: ...
    @property
    def retry_after(self) -> float | None: ...
    @property
    def reset_after(self) -> float: ...
    @property
    def cause(self) -> str | None: ...
    def __bool__(self) -> bool: ...
    def __eq__(self, other: object, /) -> bool: ...
    def __ne__(self, other: object, /) -> bool: ...

@final
class Reservation:
    """An estimate that was charged, to be settled once it is known what the call really used."""

    @property
    def reserved(self) -> int: ...
    @property
    def is_open(self) -> bool: ...
    def settle(self, used: int, /) -> None: ...
    def cancel(self) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        trace: TracebackType | None = None,
        /,
    ) -> None: ...
    async def __aenter__(self) -> Self: ...
    async def __aexit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        trace: TracebackType | None = None,
        /,
    ) -> None: ...

@final
class FakeClock:
    """A clock that moves only when told to, for tests."""

    def __new__(cls, now: float = 0.0, /) -> Self: ...
    @property
    def now(self) -> float: ...
    def advance(self, seconds: float, /) -> None: ...
    def set(self, now: float, /) -> None: ...

@disjoint_base
class Limiter:
    """One limit per key: Limiter("20/minute").decide("alice")."""

    def __new__(
        cls,
        limit: str,
        /,
        *,
        name: str = "limiter",
        algorithm: _Algorithm | str | None = None,
        burst: int | None = None,
        epochs: int | None = None,
        time_zone: str | None = None,
        keys: int = 10_000,
        when_full: Literal["deny", "take-over"] = "deny",
        shared: _Path | None = None,
        reservation_expires: float = 3600.0,
        clock: FakeClock | None = None,
        redis: str | None = None,
        namespace: str = "default",
        when_down: str = "deny",
        lease: float = 0.0,
    ) -> Self: ...
    def is_allowed(self, key: _Key, cost: int = 1) -> bool: ...
    def decide(self, key: _Key, cost: int = 1) -> Decision: ...
    def peek(self, key: _Key, cost: int = 1) -> Decision: ...
    def remaining(self, key: _Key) -> int: ...
    def reserve(
        self, key: _Key, estimate: int, *, unsettled: Literal["keep", "cancel"] = "keep"
    ) -> Reservation: ...
    def return_expired(self) -> int: ...
    @property
    def name(self) -> str: ...
    @property
    def limit(self) -> str: ...
    @property
    def capacity(self) -> int: ...
    @property
    def denied_for_room(self) -> int: ...

class RateLimiter(Limiter):
    """At most so many requests per user in any window of so many seconds."""

    def __new__(
        cls,
        max_requests: int,
        window_seconds: float,
        *,
        name: str = "requests",
        algorithm: _Algorithm | str | None = None,
        keys: int = 10_000,
        when_full: Literal["deny", "take-over"] = "deny",
        shared: _Path | None = None,
        reservation_expires: float = 3600.0,
        clock: FakeClock | None = None,
        redis: str | None = None,
        namespace: str = "default",
        when_down: str = "deny",
        lease: float = 0.0,
    ) -> Self: ...

class TokenBudget(Limiter):
    """At most so many tokens per user and day."""

    def __new__(
        cls,
        daily_limit: int,
        *,
        name: str = "tokens",
        time_zone: str | None = None,
        keys: int = 10_000,
        shared: _Path | None = None,
        reservation_expires: float = 3600.0,
        clock: FakeClock | None = None,
        redis: str | None = None,
        namespace: str = "default",
        when_down: str = "deny",
        lease: float = 0.0,
    ) -> Self: ...
    def check_and_deduct(self, user: _Key, tokens: int) -> bool: ...

@final
class TrustedProxies:
    """Finds the client's address behind proxies: the first from the right that is not a trusted proxy's."""

    def __new__(cls, networks: list[str] = ..., /) -> Self: ...
    def client(self, peer: str, forwarded_for: list[str] = [], *, ipv6_prefix: int = 64) -> str: ...

@final
class Standing:
    """How a rule stands with a request's key."""

    @property
    def name(self) -> str: ...
    @property
    def capacity(self) -> int: ...
    @property
    def remaining(self) -> int: ...
    @property
    def reset_after(self) -> float: ...

@final
class Verdict:
    """A policy's answer to a request: true where a truth value is wanted if it may go on."""

    @property
    def allowed(self) -> bool: ...
    @property
    def rule(self) -> str | None: ...
    @property
    def cause(self) -> str | None: ...
    @property
    def retry_after(self) -> float | None: ...
    @property
    def standings(self) -> list[Standing]: ...
    @property
    def status(self) -> int: ...
    @property
    def headers(self) -> list[tuple[bytes, bytes]]: ...
    @property
    def detail(self) -> str: ...
    @property
    def body(self) -> bytes: ...
    @property
    def reservation(self) -> Reservation | None: ...
    @property
    def place(self) -> Reservation | None: ...
    def cancel(self) -> None: ...
    def __bool__(self) -> bool: ...

@final
class Policy:
    """Layers of rules that a request must pass, all or nothing, from a policy file's text."""

    def __new__(
        cls,
        text: str,
        /,
        *,
        shared: _Path | None = None,
        redis: str | None = None,
        namespace: str = "default",
        trusted_proxies: list[str] = ...,
        fields: Literal["ietf", "x-ratelimit", "none"] = "ietf",
        source: str = "policy",
        clock: FakeClock | None = None,
    ) -> Self: ...
    @staticmethod
    def from_file(
        path: _Path,
        /,
        *,
        shared: _Path | None = None,
        redis: str | None = None,
        namespace: str = "default",
        trusted_proxies: list[str] = ...,
        fields: Literal["ietf", "x-ratelimit", "none"] = "ietf",
        clock: FakeClock | None = None,
    ) -> Policy: ...
    @staticmethod
    def layer(
        limit: str,
        /,
        *,
        name: str,
        key: str,
        cost: int | None = ...,
        algorithm: _Algorithm | str | None = None,
        burst: int | None = None,
        epochs: int | None = None,
        time_zone: str | None = None,
        keys: int = 10_000,
        when_full: Literal["deny", "take-over"] = "deny",
        missing_key: Literal["deny", "share", "skip"] = "deny",
        ipv6_prefix: int = ...,
        reservation_expires: float = 3600.0,
        shared: _Path | None = None,
        trusted_proxies: list[str] = ...,
        fields: Literal["ietf", "x-ratelimit", "none"] = "ietf",
        clock: FakeClock | None = None,
    ) -> Policy: ...
    def decide(
        self,
        method: str = "GET",
        path: str = "/",
        *,
        ip: str | None = None,
        user: str | None = None,
        headers: dict[str, str] | None = None,
        llm_tokens: int | None = None,
    ) -> Verdict: ...
    def peek(
        self,
        method: str = "GET",
        path: str = "/",
        *,
        ip: str | None = None,
        user: str | None = None,
        headers: dict[str, str] | None = None,
        llm_tokens: int | None = None,
    ) -> Verdict: ...
    def decide_scope(
        self, scope: Mapping[str, Any], /, user: str | None = None, llm_tokens: int | None = None
    ) -> Verdict: ...
    async def decide_scope_async(
        self, scope: Mapping[str, Any], /, user: str | None = None, llm_tokens: int | None = None
    ) -> Verdict: ...
    @property
    def is_remote(self) -> bool: ...
    def finish(self) -> None: ...
    def return_expired(self) -> int: ...
    def renew_reservations(self) -> int: ...
    @property
    def is_concurrent(self) -> bool: ...
    @property
    def rules(self) -> list[str]: ...

@final
class Storage:
    """The state of a storage for `limits`: counters, and a table for each moving window."""

    def __new__(
        cls, *, keys: int = 10_000, shared: _Path | None = None, clock: FakeClock | None = None
    ) -> Self: ...
    def incr(self, key: str, expiry: int, amount: int = 1) -> int: ...
    def get(self, key: str) -> int: ...
    def get_expiry(self, key: str) -> float: ...
    def clear(self, key: str) -> None: ...
    def live_keys(self) -> int: ...
    @property
    def is_shared(self) -> bool: ...
    def acquire_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool: ...
    def get_moving_window(self, key: str, limit: int, expiry: int) -> tuple[float, int]: ...
    def acquire_sliding_window_entry(
        self, key: str, limit: int, expiry: int, amount: int = 1
    ) -> bool: ...
    def get_sliding_window(self, key: str, expiry: int) -> tuple[int, float, int, float]: ...
    def clear_sliding_window(self, key: str, expiry: int) -> None: ...
