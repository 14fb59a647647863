"""Servers of several workers: exactly the limit, whatever becomes of the workers."""

import asyncio
import collections
import contextlib
import importlib.util
import os
import pathlib
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator

import httpx
import pytest

EXAMPLES = pathlib.Path(__file__).parent.parent / "examples"


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@contextlib.contextmanager
def serving(app: str, folder: pathlib.Path, limits: pathlib.Path) -> Iterator[tuple[str, int]]:
    """A server of four workers. Its address and its process."""
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", app, "--port", str(port), "--workers", "4"]
    environment = {**os.environ, "LIMITS": str(limits)}
    server = subprocess.Popen([*command, "--log-level", "error"], cwd=folder, env=environment)
    try:
        yield f"http://127.0.0.1:{port}", server.pid
    finally:
        server.terminate()
        server.wait()


@contextlib.asynccontextmanager
async def client() -> AsyncIterator[httpx.AsyncClient]:
    # A connection for each call, so that all workers get some; one that dies is called again.
    limits = httpx.Limits(max_connections=16, max_keepalive_connections=0)
    async with httpx.AsyncClient(limits=limits, timeout=30) as calls:
        yield calls


async def get(calls: httpx.AsyncClient, url: str) -> int | None:
    """The status; None when the worker died."""
    try:
        return (await calls.get(url)).status_code
    except httpx.TransportError:
        return None


async def ready(calls: httpx.AsyncClient, url: str) -> None:
    while await get(calls, f"{url}/no-such-path") is None:
        await asyncio.sleep(0.05)


def workers_of(server: int) -> list[int]:
    """The processes that serve: not uvicorn's own, nor the one that looks after shared resources."""
    found = []
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            status, command = (process / "status").read_text(), (process / "cmdline").read_bytes()
            if f"\nPPid:\t{server}\n" in status and b"spawn_main" in command:
                found.append(int(process.name))
    return found


async def test_the_readmes_demo_lets_exactly_ten_pass(tmp_path: pathlib.Path) -> None:
    with serving("demo:app", EXAMPLES, tmp_path / "limits") as (url, _):
        async with client() as calls:
            await ready(calls, url)
            statuses = collections.Counter(
                await asyncio.gather(*(get(calls, url) for _ in range(200)))
            )
    assert statuses == {200: 10, 429: 190}


MANY = """
import os
from fastapi import Depends, FastAPI
from tidegate.fastapi import limit

app = FastAPI()
per_hour = limit("300/hour", key="ip", algorithm="sliding-window-log", shared=os.environ["LIMITS"])

@app.get("/", dependencies=[Depends(per_hour)])
async def hello(): ...
"""


@pytest.mark.skipif(sys.platform != "linux", reason="looks for workers in /proc")
async def test_workers_killed_under_load_and_a_restart_keep_the_limit(tmp_path: pathlib.Path) -> None:
    (tmp_path / "app.py").write_text(MANY)
    statuses: collections.Counter[int | None] = collections.Counter()

    async def load(calls: httpx.AsyncClient, url: str, requests: int) -> None:
        for _ in range(requests):
            statuses[await get(calls, url)] += 1

    for killed in [3, 0]:
        with serving("app:app", tmp_path, tmp_path / "limits") as (url, server):
            async with client() as calls:
                await ready(calls, url)
                loads = [asyncio.create_task(load(calls, url, 25)) for _ in range(16)]
                for kill in range(killed):
                    while sum(statuses.values()) < 50 * (kill + 1):
                        await asyncio.sleep(0.01)
                    os.kill(workers_of(server)[0], signal.SIGKILL)
                await asyncio.gather(*loads)
    # A call whose worker was killed may have been charged, and its answer lost.
    assert 300 - statuses[None] <= statuses[200] <= 300, statuses
    assert statuses[429] > 0


def test_the_example_application_keeps_its_three_layers(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fastapi.testclient import TestClient

    monkeypatch.setenv("LIMITS", str(tmp_path / "limits"))
    spec = importlib.util.spec_from_file_location("lesson", EXAMPLES / "lesson.py")
    assert spec and spec.loader
    lesson = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "lesson", lesson)
    spec.loader.exec_module(lesson)
    calls = TestClient(lesson.app, client=("192.0.2.1", 1))

    assert [calls.post("/login").status_code for _ in range(6)] == [200] * 5 + [429]
    alice, prompt = {"Authorization": "Bearer demo-alice"}, {"prompt": "one two", "max_tokens": 50}
    answer = calls.post("/chat", headers=alice, json=prompt)
    assert answer.text.endswith("data: [DONE] 8 tokens\n\n")
    assert '"budget";r=9943' in answer.headers["ratelimit"], "reserved: 7 bytes and 50 tokens"
    left = lesson.budget.policy.peek(user="alice", llm_tokens=0).standings[0].remaining
    assert left == 10_000 - 8, "settled"
    assert calls.post("/chat", json=prompt).status_code in (401, 403)
    codes = [calls.post("/chat", headers=alice, json=prompt).status_code for _ in range(20)]
    assert codes == [200] * 19 + [429]
    bob = {"Authorization": "Bearer demo-bob"}
    assert calls.post("/chat", headers=bob, json=prompt).status_code == 200
    assert "429" in calls.get("/openapi.json").json()["paths"]["/chat"]["post"]["responses"]
