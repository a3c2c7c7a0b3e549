import { createHash } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import {
  completion,
  discoveryRecord,
  type Engine,
  type RedisServer,
  respond,
  type Service,
  setRedis,
  startEngine,
  startRedis,
  temporaryFolder,
  until,
} from '@llm-gateway/testing';
import type { Page } from 'playwright-core';
import { startBrowser } from './browser.ts';
import { chat, type Gateway, post, startGateway } from './gateway.ts';

export const model = 'Qwen3-32B';

/** A gateway of processes with a store, a console, a browser, and clients that go on asking. */
export interface ConsoleScene extends AsyncDisposable {
  readonly gateway: Gateway;
  readonly redis: RedisServer;
  readonly engines: readonly Engine[];
  readonly console: Service;
  readonly url: string;
  /** Requests that the page made, and what it wrote to its console as an error. */
  readonly asked: string[];
  readonly troubles: string[];
  /** A page at the view, drawn. */
  open(view: string, size?: { readonly width: number; readonly height: number }, dark?: boolean): Promise<Page>;
}

export interface SceneOptions {
  readonly engines?: number;
  /** Of the console. */
  readonly flags?: readonly string[];
  readonly ingressFlags?: readonly string[];
  readonly with?: readonly ('retry-worker' | 'mirror-sender' | 'limiter')[];
  readonly routerFlags?: readonly string[];
  /** Called before the processes start. */
  prepare?(engines: readonly Engine[]): void;
  /** Names of clients that show keys, of which each may have 6,000 requests a minute. */
  readonly clients?: readonly string[];
  /** What the engine of this number, from 0, answers at `/metrics`, which discovery then reads. */
  metricsOf?(engine: number): string;
  /** What each request says. */
  readonly prompt?: string;
  /** Requests a second. */
  readonly rate?: number;
}

export async function startConsoleScene(options: SceneOptions = {}): Promise<ConsoleScene> {
  const {
    engines: count = 2,
    flags = [],
    ingressFlags = [],
    routerFlags = [],
    clients: names = [],
    prompt = 'Hello',
    rate = 20,
  } = options;
  await using stack = new AsyncDisposableStack();
  const redis = stack.use(await startRedis());
  const engines = await Promise.all(
    Array.from({ length: count }, async (_, at) => {
      const answer = completion({ delayMs: 20 + 5 * at, gapMs: 5 });
      const { metricsOf } = options;
      return stack.use(
        await startEngine(({ url }) => (url === '/metrics' && metricsOf ? respond(200, metricsOf(at)) : answer)),
      );
    }),
  );
  await setRedis(
    redis,
    Object.fromEntries(
      engines.map(({ port }, at) => [
        `llumnix:discovery:engine-${at + 1}`,
        discoveryRecord({
          podName: `engine-${at + 1}`,
          timestampMs: Date.now(),
          instances: [{ type: 'neutral', ip: '127.0.0.1', port, model }],
        }),
      ]),
    ),
  );
  options.prepare?.(engines);
  const store = ['--llm-backend-discovery', 'redis', '--discovery-redis-host', '127.0.0.1'];
  const gateway = stack.use(
    await startGateway({
      flags: {
        discovery: [
          ...store,
          '--discovery-redis-port',
          String(redis.port),
          '--discovery-redis-status-ttl-ms',
          '600000',
          ...(options.metricsOf ? ['--engine-metrics-interval-ms', '1000'] : []),
        ],
        ingress: ['--retry-max-count', '2', ...ingressFlags, ...keyFlags(names)],
        router: routerFlags,
        console: ['--console-actions', ...flags],
      },
      with: options.with ?? [],
    }),
  );
  const page = await gateway.start('console', { flags: ['--console-ingress', gateway.url] });
  const url = page.addresses.console ?? '';
  const browser = stack.adopt(await startBrowser(), (one) => one.close());
  const stop = new AbortController();
  const clients = ask(gateway.url, { rate, names, prompt, signal: stop.signal });
  stack.defer(async () => {
    stop.abort();
    await clients;
  });
  const asked: string[] = [];
  const troubles: string[] = [];
  await until(async () => ((await (await fetch(`${url}/api/requests`)).json()) as { total: number }).total > 0);
  const owned = stack.move();
  return {
    gateway,
    redis,
    engines,
    console: page,
    url,
    asked,
    troubles,
    async open(view, size = { width: 1280, height: 860 }, dark = false) {
      const context = await browser.newContext({
        viewport: size,
        colorScheme: dark ? 'dark' : 'light',
        bypassCSP: false,
      });
      const opened = await context.newPage();
      opened.on('request', (request) => asked.push(request.url()));
      opened.on('pageerror', (error) => troubles.push(error.message));
      opened.on('console', (message) => message.type() === 'error' && troubles.push(message.text()));
      await opened.goto(url + view);
      await opened.waitForSelector('.verdict p:not(:text("Listening…"))');
      return opened;
    },
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

/** The key of a client of the scene. */
export function keyOf(name: string): string {
  return `sk-gw-${name}-secret`;
}

function keyFlags(names: readonly string[]): string[] {
  if (names.length === 0) return [];
  const keys = names.map((name) => {
    const hash = createHash('sha256').update(keyOf(name)).digest('hex');
    return { name, hash: `sha256:${hash}`, rpm: 6000, tpm: 2_000_000, concurrent: 50 };
  });
  const file = join(temporaryFolder(), 'keys.json');
  writeFileSync(file, JSON.stringify({ keys }));
  return ['--client-keys', `@${file}`];
}

/**
 * Asks at a steady rate until told to stop; some streams, some not, some for a model that nobody
 * has.
 */
async function ask(
  url: string,
  { rate, names, prompt, signal }: { rate: number; names: readonly string[]; prompt: string; signal: AbortSignal },
): Promise<void> {
  const open = new Set<Promise<unknown>>();
  for (let n = 0; !signal.aborted; n++) {
    const body = chat({ model, stream: n % 3 !== 0, content: `${n % 24}: ${prompt}` });
    const name = names[n % names.length];
    const request = post(url, body, name === undefined ? {} : { headers: { 'x-api-key': keyOf(name) } })
      .then((response) => response.arrayBuffer())
      .catch(() => undefined)
      .finally(() => open.delete(request));
    open.add(request);
    await new Promise((resolve) => setTimeout(resolve, 1000 / rate));
  }
  await Promise.all(open);
}

/** Resolves when the text of the page has this. */
export async function waitForText(page: Page, what: RegExp, timeoutMs = 15_000): Promise<void> {
  await page.locator('body', { hasText: what }).waitFor({ timeout: timeoutMs });
}

/** What the one sentence says, with what is said beside it. */
export async function verdictOf(page: Page): Promise<string> {
  return await page.locator('.verdict').innerText();
}
