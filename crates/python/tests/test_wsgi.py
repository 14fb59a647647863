"""The middleware for WSGI, around Flask."""

import pytest
from flask import Flask, request

from tidegate import Policy
from tidegate.wsgi import RateLimitMiddleware, reservation_of

POLICY = """
[[rule]]
name = "ip"
limit = "3 per hour"
key = "ip"
match = { path = "/café" }

[[rule]]
name = "budget"
limit = "1_000 per day"
algorithm = "fixed-window"
key = "user"
cost = "llm-tokens"
match = { authenticated = true }
"""


def test_requests_are_limited_and_answers_get_the_fields() -> None:
    policy, app = Policy(POLICY, trusted_proxies=["127.0.0.0/8"]), Flask(__name__)

    @app.get("/café")
    def hello() -> str:
        reservation = reservation_of(request.environ)
        if reservation:
            reservation.settle(1)
        return "hello"

    app.wsgi_app = RateLimitMiddleware(  # type: ignore[method-assign]
        app.wsgi_app,
        policy,
        user=lambda environ: environ.get("HTTP_X_USER"),
        llm_tokens=lambda _: 600,
    )
    calls = app.test_client()
    forwarded = {"X-Forwarded-For": "203.0.113.9"}
    answers = [calls.get("/caf%C3%A9", headers=forwarded | {"X-User": "alice"}) for _ in range(4)]
    assert [answer.status for answer in answers] == ["200 OK"] * 3 + ["429 Too Many Requests"]
    assert answers[0].headers["RateLimit"].startswith('"ip";r=2')
    assert answers[3].json and answers[3].json["violated-policies"] == ["ip"]
    assert int(answers[3].headers["Retry-After"]) > 3_500
    assert calls.get("/café").status_code == 200, "another client"
    assert calls.get("/missing").status_code == 404
    assert policy.peek(user="alice", llm_tokens=0).standings[0].remaining == 997


def test_rules_see_the_fields_that_have_no_prefix() -> None:
    rule = """
[[rule]]
name = "json"
limit = "1 per hour"
key = "global"
match = { header = { content-type = "application/json" } }
"""
    app = Flask(__name__)
    app.add_url_rule("/", view_func=lambda: "hello", methods=["POST"])
    app.wsgi_app = RateLimitMiddleware(app.wsgi_app, Policy(rule))  # type: ignore[method-assign]
    calls = app.test_client()
    assert [calls.post("/", json={}).status_code for _ in range(2)] == [200, 429]
    assert calls.post("/", data="x").status_code == 200


def test_concurrent_requests_are_for_asgi() -> None:
    policy = Policy('[[rule]]\nname = "one"\nlimit = "1 concurrent"\nkey = "global"')
    with pytest.raises(ValueError, match=r"tidegate\.asgi"):
        RateLimitMiddleware(Flask(__name__).wsgi_app, policy)
