"""The official `google-genai` client."""

import pytest
from conftest import KEY, RATE, UNPRICED, budget, script
from google import genai
from google.genai import errors, types

MODEL = "gemini-2.5-flash"
ASK = "When does the tide come in?"


def client_of(stack, key=KEY, **options):
    options = types.HttpOptions(base_url=stack.url, **options)
    return genai.Client(api_key=key, http_options=options)


def config(words="", **options):
    options = {"max_output_tokens": 300, **options}
    return types.GenerateContentConfig(
        http_options=types.HttpOptions(headers=script(words)), **options
    )


def ask(client, words="", **options):
    return client.models.generate_content(
        model=MODEL, contents=ASK, config=config(words, **options)
    )


def stream(client, words="", **options):
    return client.models.generate_content_stream(
        model=MODEL, contents=ASK, config=config(words, **options)
    )


def test_content_whole_and_streamed_is_settled_as_billed(stack):
    stack = stack()
    client = client_of(stack)
    whole = ask(client, "output=30, cached=7, reasoning=5")
    usage = whole.usage_metadata
    assert (usage.candidates_token_count, usage.thoughts_token_count) == (30, 5)
    assert stack.left() == 100_000 - usage.total_token_count
    parts = list(stream(client, "output=30, reasoning=5"))
    assert "".join(part.text for part in parts) == whole.text
    spent = usage.total_token_count + parts[-1].usage_metadata.total_token_count
    assert stack.left() == 100_000 - spent
    assert stack.left() == 100_000 - sum(call["total"] for call in stack.calls())


def test_a_short_wait_is_sat_out_where_retries_are_on(stack):
    stack = stack(budget() + RATE)
    retries = types.HttpRetryOptions(attempts=5, initial_delay=1.0)
    client = client_of(stack, retry_options=retries)
    ask(client)
    ask(client)
    assert stack.count("denied") >= 1
    assert len(stack.calls()) == 2


def test_a_spent_budget_is_a_client_error(stack):
    stack = stack(budget(1_000))
    client = client_of(stack)
    for call in [ask, lambda *args, **options: list(stream(*args, **options))]:
        with pytest.raises(errors.ClientError) as error:
            call(client, max_output_tokens=5_000)
        assert (error.value.code, error.value.status) == (429, "RESOURCE_EXHAUSTED")
        assert "budget" in error.value.message
        kinds = [detail["@type"] for detail in error.value.details["error"]["details"]]
        assert "type.googleapis.com/google.rpc.QuotaFailure" in kinds
    assert stack.count("denied") == 2
    assert stack.calls() == []


def test_other_refusals_are_the_errors_that_programs_expect(stack):
    stack = stack(UNPRICED)
    for client, code, status in [
        (client_of(stack), 403, "PERMISSION_DENIED"),
        (client_of(stack, key="wrong"), 401, "UNAUTHENTICATED"),
    ]:
        with pytest.raises(errors.ClientError) as error:
            ask(client)
        assert (error.value.code, error.value.status) == (code, status)
    assert stack.calls() == []


def test_an_error_of_the_provider_costs_nothing(stack):
    stack = stack()
    with pytest.raises(errors.ServerError) as error:
        ask(client_of(stack), "status=503")
    assert error.value.status == "UNAVAILABLE"
    assert stack.left() == 100_000


def test_a_stream_that_is_cut_off_for_its_budget_raises(stack):
    stack = stack(budget(lines="debt = false"))
    client = client_of(stack)
    words = "output=3000, ignores-ceiling, pace=1"
    with pytest.raises(errors.ClientError, match="budget that was reserved") as error:
        list(stream(client, words, max_output_tokens=20))
    assert (error.value.code, error.value.status) == (429, "RESOURCE_EXHAUSTED")
