"""Exact rate limits and LLM budgets, per user, at native speed, shared by all workers without a server.

    from tidegate import RateLimiter, TokenBudget

    requests = RateLimiter(20, 60)      # at most 20 in any 60 seconds, for each user
    tokens = TokenBudget(10_000)        # at most 10,000 a day, for each user
    if requests.is_allowed("alice") and tokens.check_and_deduct("alice", 137):
        ...

With ``shared="path"``, all processes that give one path are one limiter, and what was spent is still
spent after a restart. With ``redis="redis://..."``, processes on many machines are. See ``tidegate.fastapi``, ``tidegate.asgi`` and ``tidegate.wsgi`` for web
applications, and ``tidegate.limits`` for slowapi, Flask-Limiter and others on the package ``limits``.
"""

from ._native import (
    VERSION as __version__,
)
from ._native import (
    Decision,
    FakeClock,
    FileMismatch,
    LimitExceeded,
    Limiter,
    Policy,
    PolicyError,
    RateLimiter,
    Reservation,
    ServerUnavailable,
    Standing,
    TokenBudget,
    TrustedProxies,
    Verdict,
)

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
    "TokenBudget",
    "TrustedProxies",
    "Verdict",
    "__version__",
]
