/**
 * How near a limit in tokens comes to itself: `npm --workspace bench run token-limit`. Two
 * ingresses and a limiter hold one client, who asks for more all the time, to 60,000 tokens a
 * minute. Half of the requests are streams, and one in ten is left by its client. The engines say
 * what was really computed. Writes `results/token-limit.json`; exits with 1 when the tokens of the
 * minutes counted differ by more than 2 % from the limit.
 */
import { createHash } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { startNats, startService, temporaryFolder, until } from '@llm-gateway/testing';
import { commit, watchMachine } from './machine.ts';

const tokensPerMinute = 60_000;
const minutes = Number(process.env.MINUTES ?? 10);
const clients = 12;
const key = 'sk-gw-measured';

const keyFile = join(temporaryFolder(), 'keys.json');
const hash = `sha256:${createHash('sha256').update(key).digest('hex')}`;
writeFileSync(keyFile, JSON.stringify({ keys: [{ name: 'measured', hash, tpm: tokensPerMinute }] }));

const machine = watchMachine();
await using nats = await startNats();
await using stack = new AsyncDisposableStack();
const engine = stack.use(await startService('engine-simulator', ['--time-to-first-token-ms', '20']));
const start = async (name: string, flags: readonly string[] = []) =>
  stack.use(await startService(name, ['--nats-servers', nats.url, ...flags]));
const address = engine.url.slice('http://'.length);
await start('discovery', ['--llm-backend-discovery', 'endpoints', '--llm-backend-endpoints', address]);
await start('router');
await start('limiter');
const flags = ['--client-keys', `@${keyFile}`, '--usage-streams', 'continuous', '--log-level', 'info'];
const ingresses = [await start('ingress', flags), await start('ingress', flags)];
for (const ingress of ingresses) {
  await until(async () => (await ingress.metrics()).value('llm_gateway_quota_degraded') === 0, { timeoutMs: 20_000 });
}

interface Tally {
  readonly promptTokens: number;
  readonly completionTokens: number;
}
/** Tokens that the engine has computed, also for requests that were given up. */
const computed = async () => {
  const response = await fetch(`${engine.url}/simulator/state`);
  const { totals } = (await response.json()) as { totals: { finished: Tally; unfinished: Tally }[] };
  return totals
    .flatMap(({ finished, unfinished }) => [finished, unfinished])
    .reduce((sum, { promptTokens, completionTokens }) => sum + promptTokens + completionTokens, 0);
};

let isOver = false;
const ends = { answered: 0, left: 0, limited: 0, other: 0 };

async function ask(n: number): Promise<void> {
  const stream = n % 2 === 0;
  const leaves = n % 10 === 0;
  const body = {
    model: 'simulated',
    stream,
    max_tokens: 20 + (n % 7) * 30,
    messages: [{ role: 'user', content: 'Go' }],
  };
  const response = await fetch(`${ingresses[n % ingresses.length]?.url}/v1/chat/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', authorization: `Bearer ${key}` },
    body: JSON.stringify(body),
    ...(leaves && { signal: AbortSignal.timeout(150) }),
  });
  await response.arrayBuffer();
  if (response.status === 429) {
    ends.limited++;
    await delay(250);
  } else if (response.ok) ends.answered++;
  else ends.other++;
}

async function client(at: number): Promise<void> {
  for (let n = at; !isOver; n += clients) {
    try {
      await ask(n);
    } catch {
      ends.left++;
    }
  }
}

const running = Array.from({ length: clients }, (_, at) => client(at));
// The first window may be taken at once; from then on each token waits for one that left it.
await delay(60_000);
const before = await computed();
const perMinute: number[] = [];
for (let minute = 0, last = before; minute < minutes; minute++) {
  await delay(60_000);
  const now = await computed();
  perMinute.push(now - last);
  last = now;
}
const tokens = perMinute.reduce((sum, each) => sum + each, 0);
isOver = true;
await Promise.all(running);

const share = tokens / (tokensPerMinute * minutes);
const result = { commit: commit(), machine: machine(), tokensPerMinute, minutes, tokens, share, perMinute, ends };
writeFileSync(join(import.meta.dirname, '../results/token-limit.json'), `${JSON.stringify(result, null, 2)}\n`);
console.log(`${tokens} tokens in ${minutes} minutes: ${(share * 100).toFixed(2)} % of the limit`);
process.exitCode = Math.abs(share - 1) <= 0.02 ? 0 : 1;
