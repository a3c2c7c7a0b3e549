import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import { describe, it } from 'node:test';
import { completion, startEngine, startService } from '@llm-gateway/testing';
import { startBrowser } from '../browser.ts';

/** A page of an origin of its own. */
async function startPage() {
  const server = createServer((_, response) => {
    response.setHeader('content-type', 'text/html');
    response.end('<!doctype html><title>A page</title>');
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  assert.ok(typeof address === 'object' && address !== null);
  return {
    url: `http://127.0.0.1:${address.port}`,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

/**
 * Runs in the page: what the gateway answers to a streamed chat, and in how many pieces it came.
 */
const streamChat = async (url: string) => {
  const response = await fetch(`${url}/v1/chat/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', authorization: 'Bearer k' },
    body: JSON.stringify({ model: 'm', stream: true, messages: [{ role: 'user', content: 'Hi' }] }),
  });
  const reader = response.body?.pipeThrough(new TextDecoderStream()).getReader();
  const pieces: string[] = [];
  for (;;) {
    const { value, done } = (await reader?.read()) ?? { value: undefined, done: true };
    if (done) break;
    pieces.push(value ?? '');
  }
  return { status: response.status, id: response.headers.get('x-request-id'), pieces };
};

describe('a page in a browser', { timeout: 120_000 }, () => {
  it('streams a chat from another origin that lets it', async () => {
    await using stack = new AsyncDisposableStack();
    const page = stack.use(await startPage());
    const engine = stack.use(await startEngine(() => completion({ tokens: ['a', 'b', 'c'], gapMs: 100 })));
    const endpoints = ['--llm-backend-endpoints', engine.address];
    const [open, closed] = await Promise.all([
      startService('standalone', [...endpoints, '--cors-allow-origin', page.url]),
      startService('standalone', endpoints),
    ]);
    stack.use(open);
    stack.use(closed);
    const browser = stack.use(await startBrowser());
    const tab = await (await browser.newContext()).newPage();
    await tab.goto(page.url);
    const { status, id, pieces } = await tab.evaluate(streamChat, open.url);
    assert.equal(status, 200);
    assert.ok(id, 'its headers are shown');
    assert.ok(pieces.length > 2, 'it came in pieces');
    assert.match(pieces.join(''), /"content":"a"[\s\S]*"content":"c"[\s\S]*\[DONE\]/);
    const refused = await tab.evaluate(streamChat, closed.url).catch((error: Error) => error.message);
    assert.match(String(refused), /Failed to fetch/);
  });
});
