"""Walks the Python SDKs through the faults of an engine; prints what each call came to, as JSON."""

import asyncio
import json
import sys

from anthropic import AsyncAnthropic
from openai import AsyncOpenAI

url, rows = sys.argv[1], json.loads(sys.argv[2])
messages = [{"role": "user", "content": "Hi"}]


def options(fault):
    headers = {} if fault == "none" else {"x-fault": fault}
    return {"api_key": "k", "max_retries": 0, "default_headers": headers}


def model(fault):
    return "refused" if fault == "refused" else "m"


async def chat(fault, stream):
    async with AsyncOpenAI(base_url=f"{url}/v1", **options(fault)) as client:
        answer = await client.chat.completions.create(model=model(fault), messages=messages, stream=stream)
        if not stream:
            return answer.choices[0].message.content
        return "".join([chunk.choices[0].delta.content or "" async for chunk in answer])


async def responses(fault, stream):
    async with AsyncOpenAI(base_url=f"{url}/v1", **options(fault)) as client:
        answer = await client.responses.create(model=model(fault), input="Hi", stream=stream)
        if not stream:
            return answer.output_text
        text = ""
        async for event in answer:
            if event.type == "response.output_text.delta":
                text += event.delta
            elif event.type == "error":
                # An event as any other: this SDK raises only what has a member `error`.
                text += f" {event.message}"
        return text


async def anthropic(fault, stream):
    async with AsyncAnthropic(base_url=url, **options(fault)) as client:
        answer = await client.messages.create(model=model(fault), max_tokens=10, messages=messages, stream=stream)
        if not stream:
            return answer.content[0].text
        return "".join([event.delta.text async for event in answer if event.type == "content_block_delta"])


async def seen(call, row):
    try:
        return {**row, "text": await call(row["fault"], row["stream"])}
    except Exception as error:
        return {**row, "error": type(error).__name__, "status": getattr(error, "status_code", None)}


async def main():
    calls = {"chat": chat, "responses": responses, "messages": anthropic}
    results = {api: await asyncio.gather(*(seen(call, row) for row in rows)) for api, call in calls.items()}
    print(json.dumps(results))


asyncio.run(main())
