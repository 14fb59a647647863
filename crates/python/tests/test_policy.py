"""Policies: layers from a file's text, all or nothing."""

import pathlib

import pytest

from tidegate import FakeClock, FileMismatch, Policy, PolicyError, TrustedProxies

LAYERS = """
[[rule]]
name = "ip"
limit = "100 per minute"
key = "ip"

[[rule]]
name = "user"
limit = "2 per minute"
algorithm = "sliding-window-log"
key = "user"
match = { authenticated = true, path = "/v1/*" }

[[rule]]
name = "budget"
limit = "1_000 per day"
algorithm = "fixed-window"
key = "user"
cost = "llm-tokens"
match = { authenticated = true, path = "/v1/*", method = "POST" }
"""


def test_a_call_passes_all_layers_or_is_charged_by_none(clock: FakeClock) -> None:
    policy = Policy(LAYERS, clock=clock)
    assert policy.rules == ["ip", "user", "budget"]

    def chat(tokens: int) -> object:
        return policy.decide("POST", "/v1/chat", ip="192.0.2.1", user="alice", llm_tokens=tokens)

    first = policy.decide("POST", "/v1/chat", ip="192.0.2.1", user="alice", llm_tokens=900)
    assert first and first.status == 200 and first.reservation is not None
    assert [(s.name, s.remaining, s.capacity) for s in first.standings] == [
        ("ip", 99, 100),
        ("user", 1, 2),
        ("budget", 100, 1_000),
    ]
    denied = policy.decide("POST", "//v1/./chat", ip="192.0.2.1", user="alice", llm_tokens=101)
    assert not denied
    assert (denied.rule, denied.cause, denied.status) == ("budget", "exhausted", 429)
    assert denied.retry_after is not None and denied.reservation is None
    assert "`budget` of 1000 per day is spent: 100 left" in denied.detail
    first.reservation.settle(100)
    assert chat(900)
    assert not chat(0), "two a minute"
    assert policy.peek("GET", "/", ip="192.0.2.1").standings[0].remaining == 97


def test_a_call_that_somebody_else_refuses_is_charged_nowhere(clock: FakeClock) -> None:
    policy = Policy(LAYERS, clock=clock)
    for _ in range(5):
        verdict = policy.decide("POST", "/v1/chat", ip="192.0.2.1", user="alice", llm_tokens=900)
        assert verdict
        verdict.cancel()
        verdict.cancel()
    peek = policy.peek("POST", "/v1/chat", ip="192.0.2.1", user="alice", llm_tokens=0)
    peek.cancel()
    assert [standing.remaining for standing in peek.standings] == [99, 1, 1_000]


def test_headers_are_looked_up_by_rules() -> None:
    policy = Policy('[[rule]]\nname = "key"\nlimit = "1 per hour"\nkey = "header:x-api-key"')
    assert policy.decide(headers={"X-Api-Key": "one"})
    assert not policy.decide(headers={"x-api-key": "one"})
    assert policy.decide(headers={"x-api-key": "two"})
    assert policy.decide().cause == "missing-key"


def test_the_state_of_a_policy_can_be_in_a_file(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "policy.toml"
    file.write_text(LAYERS)
    for left in [99, 98, 97]:
        policy = Policy.from_file(file, shared=tmp_path / "limits")
        assert policy.decide(ip="192.0.2.1").standings[0].remaining == left
    with pytest.raises(ValueError, match="leave out clock="):
        Policy(LAYERS, shared=tmp_path / "limits", clock=FakeClock())
    with pytest.raises(FileMismatch):
        Policy(LAYERS, shared=file)


def test_a_text_that_is_no_policy_says_where_and_what_would_be_right(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "policy.toml"
    file.write_text('[[rule]]\nname = "ip"\nlimit = "many per minute"\nkey = "ip"')
    with pytest.raises(PolicyError, match=r"policy\.toml:3:9.*limit.*write it as in") as refused:
        Policy.from_file(file)
    assert isinstance(refused.value, ValueError)
    with pytest.raises(PolicyError, match="limits nothing"):
        Policy("")
    with pytest.raises(FileNotFoundError):
        Policy.from_file(tmp_path / "missing.toml")
    with pytest.raises(ValueError, match='use "ietf", "x-ratelimit" or "none"'):
        Policy(LAYERS, fields="draft-7")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="write it as in `192.0.2.1`"):
        Policy(LAYERS).decide(ip="localhost")


def test_other_dialects_of_the_fields() -> None:
    policy = Policy(LAYERS, fields="x-ratelimit")
    fields = dict(policy.decide(ip="192.0.2.1").headers)
    assert fields[b"x-ratelimit-limit"] == b"100" and fields[b"x-ratelimit-remaining"] == b"99"
    assert Policy(LAYERS, fields="none").decide(ip="192.0.2.1").headers == []


def test_addresses_count_from_the_right() -> None:
    proxies = TrustedProxies(["10.0.0.0/8", "192.0.2.7"])
    assert proxies.client("10.0.0.1", ["1.1.1.1, 203.0.113.9", "192.0.2.7"]) == "203.0.113.9"
    assert proxies.client("203.0.113.9", ["1.1.1.1"]) == "203.0.113.9"
    assert proxies.client("::ffff:10.0.0.1", ["2001:db8:1:2:3::4"]) == "2001:db8:1:2::"
    assert proxies.client("2001:db8::1", ipv6_prefix=128) == "2001:db8::1"
    with pytest.raises(ValueError, match="`here` is not a network"):
        TrustedProxies(["here"])
    with pytest.raises(ValueError, match="`unix:` is not an address"):
        proxies.client("unix:")
