"""The official `anthropic` client."""

import anthropic
import pytest
from conftest import KEY, RATE, UNPRICED, budget, script

ASK = [{"role": "user", "content": "When does the tide come in?"}]
MODEL = "claude-of-the-tests"


def client_of(stack, **options):
    return anthropic.Anthropic(**{"base_url": stack.url, "api_key": KEY, **options})


def ask(client, words="", **options):
    options = {"max_tokens": 300, **options}
    return client.messages.create(
        model=MODEL, messages=ASK, extra_headers=script(words), **options
    )


def test_messages_whole_and_streamed_are_settled_as_billed(stack):
    stack = stack()
    client = client_of(stack)
    whole = ask(client, "output=30, cached=7, cache-write=3, reasoning=5")
    assert (whole.usage.output_tokens, whole.usage.cache_read_input_tokens) == (35, 7)
    assert [block.type for block in whole.content] == ["thinking", "text"]
    assert stack.left() == 100_000 - stack.calls()[0]["total"]
    kinds = [event.type for event in ask(client, "output=30", stream=True)]
    assert (kinds[0], kinds[-1]) == ("message_start", "message_stop")
    options = {"model": MODEL, "max_tokens": 300, "messages": ASK}
    with client.messages.stream(extra_headers=script("output=30"), **options) as stream:
        text = "".join(stream.text_stream)
        assert stream.get_final_message().usage.output_tokens == 30
    assert text == whole.content[1].text
    assert stack.left() == 100_000 - sum(call["total"] for call in stack.calls())


def test_a_key_may_also_be_sent_as_a_token(stack):
    stack = stack()
    ask(client_of(stack, api_key=None, auth_token=KEY))
    assert len(stack.calls()) == 1


def test_a_short_wait_is_sat_out(stack):
    stack = stack(budget() + RATE)
    client = client_of(stack)
    ask(client)
    ask(client)
    assert (stack.count("denied"), len(stack.calls())) == (1, 2)
    assert stack.calls()[1]["retries"] == "1"


def test_a_spent_budget_is_not_tried_again(stack):
    stack = stack(budget(1_000))
    for options in [{}, {"stream": True}]:
        with pytest.raises(anthropic.RateLimitError) as error:
            ask(client_of(stack), max_tokens=5_000, **options)
        assert error.value.body["type"] == "error"
        assert error.value.body["error"]["type"] == "rate_limit_error"
        assert error.value.request_id.startswith("req_")
        assert error.value.request_id == error.value.body["request_id"]
    assert stack.count("denied") == 2, "no retries, though this client would wait an hour"
    assert stack.calls() == []


def test_other_refusals_are_the_errors_that_programs_expect(stack):
    stack = stack(UNPRICED)
    client = client_of(stack)
    with pytest.raises(anthropic.PermissionDeniedError, match="has no price here"):
        ask(client)
    with pytest.raises(anthropic.AuthenticationError):
        ask(client.with_options(api_key="wrong"))
    with pytest.raises(anthropic.BadRequestError, match="`max_tokens` must be a whole number"):
        ask(client, max_tokens=-1)
    assert stack.calls() == []


def test_an_error_of_the_provider_is_tried_again_and_costs_nothing(stack):
    stack = stack()
    ask(client_of(stack), "status=529, once=anthropic")
    overloaded, answered = stack.calls()
    assert overloaded["total"] == 0
    assert stack.left() == 100_000 - answered["total"]


def test_a_stream_that_is_cut_off_for_its_budget_raises(stack):
    stack = stack(budget(lines="debt = false"))
    words = "output=3000, ignores-ceiling, pace=1"
    with pytest.raises(anthropic.APIStatusError, match="budget that was reserved") as error:
        list(ask(client_of(stack), words, stream=True, max_tokens=20))
    assert error.value.body["error"]["type"] == "rate_limit_error"


def test_a_client_that_leaves_pays_what_was_said(stack):
    stack = stack(lines="[llm]\ndrain_s = 0")
    with ask(client_of(stack), "output=200, stall=9", stream=True) as stream:
        for event in stream:
            if event.type == "content_block_delta" and event.delta.text == "goes ":
                break
        held = stack.left()
    while (left := stack.left()) == held:
        pass
    (call,) = stack.calls()
    assert 100_000 - left >= call["total"] and call["output"] >= 6
