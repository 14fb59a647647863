"""The official `openai` client."""

import asyncio

import openai
import pytest
from conftest import KEY, RATE, UNPRICED, budget, script

ASK = [{"role": "user", "content": "When does the tide come in?"}]
MODEL = "gpt-5-mini"


def client_of(stack, **options):
    return openai.OpenAI(base_url=stack.url + "/v1", api_key=KEY, **options)


def ask(client, words="", **options):
    options = {"model": MODEL, "max_completion_tokens": 300, **options}
    return client.chat.completions.create(
        messages=ASK, extra_headers=script(words), **options
    )


def test_chat_whole_and_streamed_is_settled_as_billed(stack):
    stack = stack()
    client = client_of(stack)
    whole = ask(client, "output=30, cached=7, reasoning=5")
    assert whole.usage.completion_tokens == 35
    assert whole.usage.prompt_tokens_details.cached_tokens == 7
    assert stack.left() == 100_000 - whole.usage.total_tokens

    chunks = list(ask(client, "output=30", stream=True))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text == whole.choices[0].message.content
    assert all(chunk.usage is None and chunk.choices for chunk in chunks), "nobody asked for usage"
    spent = whole.usage.total_tokens + stack.calls()[1]["total"]
    assert stack.left() == 100_000 - spent

    usage = {"include_usage": True}
    *_, last = ask(client, "output=30", stream=True, stream_options=usage)
    assert (last.choices, last.usage.completion_tokens) == ([], 30)
    assert stack.left() == 100_000 - spent - last.usage.total_tokens


def test_choices_tools_and_embeddings(stack):
    stack = stack()
    client = client_of(stack)
    three = ask(client, "output=10", n=3)
    assert (len(three.choices), three.usage.completion_tokens) == (3, 30)
    tool = {"type": "function", "function": {"name": "tide", "parameters": {"type": "object"}}}
    called = ask(client, "output=4", tools=[tool]).choices[0].message.tool_calls[0]
    assert called.function.name == "tide"
    streamed = list(ask(client, "output=4", tools=[tool], stream=True))
    assert streamed[-1].choices[0].finish_reason == "tool_calls"
    client.embeddings.create(model="text-embedding-3-small", input="The tide.")
    assert stack.left() == 100_000 - sum(call["total"] for call in stack.calls())


def test_responses_whole_and_streamed(stack):
    stack = stack()
    client = client_of(stack)
    options = {"model": MODEL, "input": "When?", "max_output_tokens": 300}
    whole = client.responses.create(extra_headers=script("output=30, reasoning=5"), **options)
    assert whole.usage.output_tokens == 35
    assert stack.left() == 100_000 - whole.usage.total_tokens
    events = list(
        client.responses.create(stream=True, extra_headers=script("output=30"), **options)
    )
    assert events[-1].type == "response.completed"
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert text == whole.output_text
    spent = whole.usage.total_tokens + events[-1].response.usage.total_tokens
    assert stack.left() == 100_000 - spent


def test_a_short_wait_is_sat_out(stack):
    stack = stack(budget() + RATE)
    client = client_of(stack)
    ask(client)
    ask(client)
    assert (stack.count("denied"), len(stack.calls())) == (1, 2)
    assert stack.calls()[1]["retries"] == "1", "by the client itself, after the time it was told"


def test_a_spent_budget_is_not_tried_again(stack):
    stack = stack(budget(1_000))
    with pytest.raises(openai.RateLimitError) as error:
        ask(client_of(stack), max_completion_tokens=5_000)
    assert stack.count("denied") == 1, "no retries"
    assert error.value.status_code == 429
    assert (error.value.code, error.value.type) == ("insufficient_quota", "insufficient_quota")
    assert "budget" in error.value.body["message"]
    assert stack.calls() == []
    with pytest.raises(openai.RateLimitError):
        ask(client_of(stack), max_completion_tokens=5_000, stream=True)
    with pytest.raises(openai.RateLimitError):
        client_of(stack).responses.create(model=MODEL, input="?", max_output_tokens=5_000)
    assert stack.count("denied") == 3


def test_other_refusals_are_the_errors_that_programs_expect(stack):
    stack = stack(UNPRICED)
    client = client_of(stack)
    with pytest.raises(openai.PermissionDeniedError, match="has no price here"):
        ask(client)
    with pytest.raises(openai.AuthenticationError) as error:
        ask(client.with_options(api_key="wrong"))
    assert error.value.code == "invalid_api_key"
    with pytest.raises(openai.BadRequestError, match="`n` must be a whole number"):
        ask(client, n=0)
    assert stack.calls() == []


def test_an_error_of_the_provider_is_tried_again_and_costs_nothing(stack):
    stack = stack()
    answer = ask(client_of(stack), "status=503, once=openai")
    assert [call["total"] for call in stack.calls()] == [0, answer.usage.total_tokens]
    assert stack.left() == 100_000 - answer.usage.total_tokens
    with pytest.raises(openai.InternalServerError, match="fails, as it was told"):
        ask(client_of(stack, max_retries=0), "status=500")


def test_a_stream_that_is_cut_off_for_its_budget_raises(stack):
    stack = stack(budget(lines="debt = false"))
    client = client_of(stack)
    words = "output=3000, ignores-ceiling, pace=1"
    with pytest.raises(openai.APIError, match="budget that was reserved") as error:
        list(ask(client, words, stream=True, max_completion_tokens=20))
    assert error.value.code == "insufficient_quota"
    with pytest.raises(openai.APIError, match="budget that was reserved"):
        options = {"model": MODEL, "input": "?", "max_output_tokens": 20, "stream": True}
        list(client.responses.create(extra_headers=script(words), **options))


def test_a_client_that_leaves_pays_what_was_said(stack):
    stack = stack(lines="[llm]\ndrain_s = 0")
    options = {"model": "gpt-4.1-mini", "stream": True}
    with ask(client_of(stack), "output=200, stall=9", **options) as stream:
        for chunk in stream:
            if chunk.choices[0].delta.content == "goes ":
                break
        held = stack.left()
    while (left := stack.left()) == held:
        pass
    (call,) = stack.calls()
    assert 100_000 - left >= call["total"] and call["output"] >= 6


def test_many_at_a_time_pass_no_budget(stack):
    stack = stack(budget(5_000))

    async def storm():
        options = {"base_url": stack.url + "/v1", "api_key": KEY}
        async with openai.AsyncOpenAI(**options) as client:
            calls = [ask(client, "output=800", max_completion_tokens=800) for _ in range(40)]
            return await asyncio.gather(*calls, return_exceptions=True)

    answers = asyncio.run(storm())
    denied = [answer for answer in answers if isinstance(answer, openai.RateLimitError)]
    passed = [answer for answer in answers if not isinstance(answer, Exception)]
    assert len(denied) + len(passed) == 40
    assert 5 <= len(passed) <= 6
    spent = sum(call["total"] for call in stack.calls())
    assert spent <= 5_000 and stack.left() == 5_000 - spent
