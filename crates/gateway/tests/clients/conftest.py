"""A gateway in front of a provider, for the official clients; both are processes on loopback."""

import json
import os
import re
import signal
import subprocess
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[4]
DEBUG = Path(os.environ.get("TIDEGATE_TARGET", ROOT / "target" / "debug"))

KEY = "alice-key"

BUDGET = """
[[rule]]
name = "budget"
limit = "{units} per hour"
key = "user"
cost = "llm-tokens"
match = {{ authenticated = true }}
{lines}
"""


def budget(units=100_000, lines=""):
    """A budget in a sliding window, so that no test depends on the time of day."""
    return BUDGET.format(units=units, lines=lines)


def get(url):
    with urllib.request.urlopen(url, timeout=20) as answer:
        return answer.read().decode()


class Process:
    """A process that says in its output where it listens."""

    def __init__(self, *args, until, **environment):
        environment = {**os.environ, **environment}
        self.process = subprocess.Popen(args, stdout=subprocess.PIPE, text=True, env=environment)
        self.said = ""
        while until not in self.said:
            line = self.process.stdout.readline()
            assert line, f"{args[0]} ended: {self.said}"
            self.said += line

    def url(self, after=""):
        return re.search(re.escape(after) + r"(http://[0-9.:]+)", self.said).group(1)

    def stop(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.process.stdout.close()


class Stack:
    """A gateway in front of the provider."""

    def __init__(self, provider, folder, rules, lines):
        self.provider = provider
        self.calls_before = len(self.all_calls())
        config = folder / "tidegate.toml"
        config.write_text(
            f"{lines}\n[upstream]\nurl = \"{provider.url()}\"\napi_key_env = \"TIDEGATE_TEST_KEY\"\n"
            f'[auth]\nrequired = ["/*"]\n[[user]]\nname = "alice"\nkey = "{KEY}"\n{rules}'
        )
        here = "127.0.0.1:0"
        args = ["--config", config, "--listen", here, "--metrics", here, "--no-state"]
        self.gateway = Process(
            DEBUG / "tidegate", *args, until="Stop it:", TIDEGATE_TEST_KEY="upstream-secret"
        )
        self.url = self.gateway.url("listens on ")

    def all_calls(self):
        return json.loads(get(self.provider.url() + "/ledger"))

    def calls(self):
        """What the provider bills, call by call."""
        return self.all_calls()[self.calls_before :]

    def left(self, rule="budget"):
        """What is left of a rule's limit."""
        request = urllib.request.Request(
            self.url + "/v1/models", headers={"authorization": f"Bearer {KEY}"}
        )
        with urllib.request.urlopen(request, timeout=20) as answer:
            field = answer.headers["ratelimit"]
        return int(re.search(rf'"{rule}";r=(\d+)', field).group(1))

    def count(self, outcome):
        """How many calls have ended so, such as `denied`."""
        metrics = get(self.gateway.url("Metrics: ") + "/metrics")
        found = re.search(rf'tidegate_calls_total{{outcome="{outcome}"}} (\d+)', metrics)
        return int(found.group(1)) if found else 0


@pytest.fixture(scope="session")
def provider():
    process = Process(DEBUG / "examples" / "provider", until="http://")
    yield process
    process.stop()


@pytest.fixture
def stack(provider, tmp_path):
    """Makes a stack of these rules."""
    made = []

    def make(rules=None, lines=""):
        made.append(Stack(provider, tmp_path, budget() if rules is None else rules, lines))
        return made[-1]

    yield make
    for one in made:
        one.gateway.stop()


def script(words):
    """What the provider is to do, as clients send it along."""
    return {"x-script": words}


RATE = """
[[rule]]
name = "rate"
limit = "1 per 2 seconds"
key = "user"
match = { authenticated = true, method = "POST" }
"""

UNPRICED = """
[[rule]]
name = "money"
limit = "5.00 USD per hour"
key = "user"
cost = "money"
match = { authenticated = true, method = "POST" }
"""
