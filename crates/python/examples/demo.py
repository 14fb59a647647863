"""The README's demo: 10 a minute, however many workers.

    python examples/demo.py           # 4 workers, 200 requests: exactly 10 pass
"""

import asyncio
import collections
import os
import subprocess
import sys
import tempfile

import httpx
from fastapi import Depends, FastAPI

from tidegate.fastapi import limit

LIMITS = os.environ.get("LIMITS")
app = FastAPI()


@app.get("/", dependencies=[Depends(limit("10/minute", key="ip", shared=LIMITS))])
async def hello() -> dict[str, int]:
    return {"worker": os.getpid()}


async def load(url: str, requests: int) -> collections.Counter[int]:
    async with httpx.AsyncClient() as client:
        while True:
            try:
                # Not limited: there is no such path.
                await client.get(f"{url}/ready")
                break
            except httpx.TransportError:
                await asyncio.sleep(0.05)
        # A connection each, so that all workers get some.
        limits = httpx.Limits(max_connections=20, max_keepalive_connections=0)
        async with httpx.AsyncClient(limits=limits, timeout=30) as client:
            answers = await asyncio.gather(*(client.get(url) for _ in range(requests)))
    workers = {answer.json()["worker"] for answer in answers if answer.status_code == 200}
    print(f"{len(workers)} workers let requests through")
    return collections.Counter(answer.status_code for answer in answers)


def main(port: int = 8_010, workers: int = 4, requests: int = 200) -> collections.Counter[int]:
    with tempfile.TemporaryDirectory() as folder:
        server = subprocess.Popen(
            [sys.executable, "-m", "uvicorn", "demo:app", "--port", str(port)]
            + ["--workers", str(workers), "--log-level", "warning"],
            cwd=os.path.dirname(os.path.abspath(__file__)),
            env={**os.environ, "LIMITS": os.path.join(folder, "limits")},
        )
        try:
            return asyncio.run(load(f"http://127.0.0.1:{port}", requests))
        finally:
            server.terminate()
            server.wait()


if __name__ == "__main__":
    statuses = main()
    print(f"{statuses[200]} requests passed, {statuses[429]} were answered 429")
