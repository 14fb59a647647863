"""The lesson as an application: three layers of limits in front of a chat that costs money.

    pip install tidegate[fastapi] uvicorn
    python examples/lesson.py                # 4 workers on http://127.0.0.1:8000

1. per client IP: 100 requests in any minute, on all endpoints, and 5 on /login;
2. per user: 20 requests in any minute, on /chat;
3. per user: 10,000 LLM tokens a UTC day, on /chat: reserved before the call, settled by what was used.

    curl -i -X POST localhost:8000/login -d 'name=alice'
    curl -i -N localhost:8000/chat -H 'Authorization: Bearer demo-alice' \\
      -H 'Content-Type: application/json' -d '{"prompt": "Hello", "max_tokens": 50}'
"""

import argparse
import asyncio
import os
import tempfile
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import StreamingResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel, Field

from tidegate import Reservation
from tidegate.fastapi import install, limit

# All workers share this file, and it outlives them: delete it to begin afresh.
LIMITS = os.environ.get("LIMITS", os.path.join(tempfile.gettempdir(), "tidegate-lesson"))
TOKENS = {"demo-alice": "alice", "demo-bob": "bob"}


class Prompt(BaseModel):
    prompt: str = Field(max_length=4_000)
    max_tokens: int = Field(default=100, ge=1, le=2_000)


async def require_auth(
    credentials: Annotated[HTTPAuthorizationCredentials, Depends(HTTPBearer())],
) -> str:
    user = TOKENS.get(credentials.credentials)
    if user is None:
        raise HTTPException(401, "Use one of the demo tokens.", {"WWW-Authenticate": "Bearer"})
    return user


async def most_tokens(body: Prompt) -> int:
    """What a call can cost at most: no token of input is shorter than a byte."""
    return len(body.prompt.encode()) + body.max_tokens


per_ip = limit("100/minute", key="ip", shared=LIMITS)
per_login = limit("5/minute", key="ip", name="login", shared=LIMITS)
per_user = limit("20/minute", key=require_auth, shared=LIMITS)
budget = limit(
    "10000/day",
    key=require_auth,
    cost=most_tokens,
    name="budget",
    algorithm="fixed-window",
    shared=LIMITS,
)

app = FastAPI(title="Three layers", dependencies=[Depends(per_ip)])
install(app)


@app.post("/login", dependencies=[Depends(per_login)])
async def login() -> dict[str, str]:
    return {"tokens": ", ".join(TOKENS)}


async def answer(body: Prompt, tokens: Reservation) -> AsyncIterator[str]:
    used = len(body.prompt.split())
    try:
        async for word in call_the_model(body):
            used += 1
            yield f"data: {word}\n\n"
        yield f"data: [DONE] {used} tokens\n\n"
    finally:
        # Also when the client hangs up: what was generated so far is what it cost.
        tokens.settle(used)


@app.post("/chat", dependencies=[Depends(per_user)])
async def chat(
    request: Request, body: Prompt, tokens: Annotated[Reservation, Depends(budget)]
) -> StreamingResponse:
    return StreamingResponse(answer(body, tokens), media_type="text/event-stream")


async def call_the_model(body: Prompt) -> AsyncIterator[str]:
    """A model that says the prompt again, until it has said enough."""
    words = body.prompt.split() or ["..."]
    for index in range(min(body.max_tokens, 3 * len(words))):
        await asyncio.sleep(0)
        yield words[index % len(words)]


if __name__ == "__main__":
    import uvicorn

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, default=8_000)
    parser.add_argument("--workers", type=int, default=4)
    options = parser.parse_args()
    print(f"Limits are kept in {LIMITS}; delete it to begin afresh.")
    folder = os.path.dirname(os.path.abspath(__file__))
    uvicorn.run(
        "lesson:app", app_dir=folder, port=options.port, workers=options.workers, log_level="warning"
    )
