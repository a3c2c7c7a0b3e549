import { Agent, request as httpRequest } from 'node:http';
import { setTimeout as delay } from 'node:timers/promises';
import { connectNats } from '@llm-gateway/bus';
import { requestReport, statusQuery, statusReport } from '@llm-gateway/protocol';
import { atRate, until } from '@llm-gateway/testing';
import { chatBody } from '../bodies.ts';
import { startEngine } from '../engine-process.ts';
import { drive } from '../load.ts';
import { watchCpu } from '../processes.ts';
import { series } from '../series.ts';
import { startGateway } from '../targets/gateway.ts';
import { Workplace } from '../workplace.ts';

const pacedPerSecond = 500;
const clients = 32;
/** So often the console asks. */
const askMs = 500;
/** After the last question an ingress reports for five more seconds. */
const forgetMs = 5500;

export interface ReportsCost {
  readonly perSecond: number;
  /** Of one core, by the ingress: while nobody looks, and how much more while a console does. */
  readonly quietShare: number;
  readonly moreShare: number;
  readonly moreShareRange: readonly [low: number, high: number];
  /** CPU of a request while somebody looks, divided by the same while nobody does. */
  readonly requestRatio: number;
  readonly kilobytesPerSecond: number;
}

/**
 * What it costs an ingress that a console looks: its CPU under the same load in turns with and
 * without one, at a steady pace and under as many requests as it can take.
 */
export async function measureReports({
  rounds,
  seconds,
}: {
  readonly rounds: number;
  readonly seconds: number;
}): Promise<{ readonly paced: ReportsCost; readonly full: ReportsCost }> {
  const place = new Workplace();
  await using stack = new AsyncDisposableStack();
  const engine = stack.use(await startEngine(place));
  const gateway = stack.use(await startGateway({ place, engine, others: {} }, { instances: 8 }));
  const bus = stack.use(connectNats({ natsServers: gateway.natsUrl }, { name: 'look' }));
  await until(() => bus.connected);
  let bytes = 0;
  const note = (message: object) => {
    bytes += JSON.stringify(message).length;
  };
  bus.subscribe(requestReport, note);
  bus.subscribe(statusReport, (report) => void (report.service === 'ingress' && note(report)));
  const { url, pid } = gateway.ingresses[0] ?? { url: '', pid: 0 };
  const text = chatBody();
  const body = place.file('request.json', text);

  const paced = async () => {
    await pace(url, { body: text, perSecond: pacedPerSecond, seconds });
    return pacedPerSecond * seconds;
  };
  const full = async () => (await drive({ url, headers: gateway.headers, body, clients, seconds })).requests;
  const look = () => {
    let asks = 0;
    const ask = () => bus.publish(statusQuery, { asker: 'bench', full: asks++ % 2 === 0, requests: true });
    ask();
    const timer = setInterval(ask, askMs);
    return { [Symbol.dispose]: () => clearInterval(timer) };
  };
  const measured = async (load: () => Promise<number>) => {
    const cpu = watchCpu({ ingress: pid });
    const bytesBefore = bytes;
    const requests = await load();
    const use = cpu();
    return {
      share: use.totalMicros / 1e6 / use.seconds,
      request: use.totalMicros / requests,
      perSecond: requests / use.seconds,
      kilobytesPerSecond: (bytes - bytesBefore) / 1024 / use.seconds,
    };
  };
  const cost = async (load: () => Promise<number>): Promise<ReportsCost> => {
    await load();
    const taken: { quiet: Awaited<ReturnType<typeof measured>>; looked: Awaited<ReturnType<typeof measured>> }[] = [];
    for (let round = 0; round < rounds; round++) {
      await delay(forgetMs);
      place.emptyLogs();
      const quiet = await measured(load);
      using _looking = look();
      await delay(2 * askMs);
      taken.push({ quiet, looked: await measured(load) });
    }
    const more = series(taken.map(({ quiet, looked }) => looked.share - quiet.share));
    const median = (of: (one: (typeof taken)[number]) => number) => series(taken.map(of)).median;
    return {
      perSecond: Math.round(median(({ looked }) => looked.perSecond)),
      quietShare: rounded(median(({ quiet }) => quiet.share)),
      moreShare: rounded(more.median),
      moreShareRange: [rounded(more.low), rounded(more.high)],
      requestRatio: rounded(median(({ quiet, looked }) => looked.request / quiet.request)),
      kilobytesPerSecond: rounded(Math.max(...taken.map(({ looked }) => looked.kilobytesPerSecond))),
    };
  };
  return { paced: await cost(paced), full: await cost(full) };
}

function rounded(value: number): number {
  return Math.round(value * 1e4) / 1e4;
}

/**
 * Asks so many times a second, whatever becomes of the earlier requests. Rejects when one failed.
 */
async function pace(
  url: string,
  { body, perSecond, seconds }: { readonly body: string; readonly perSecond: number; readonly seconds: number },
): Promise<void> {
  const agent = new Agent({ keepAlive: true, maxSockets: 64 });
  const open = new Set<Promise<void>>();
  const headers = { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) };
  const ask = () =>
    new Promise<void>((resolve, reject) => {
      const request = httpRequest(`${url}/v1/chat/completions`, { method: 'POST', agent, headers }, (response) => {
        response.resume().on('end', () => {
          if (response.statusCode === 200) resolve();
          else reject(new Error(`a request was answered by ${response.statusCode}`));
        });
      });
      request.on('error', reject).end(body);
    });
  let sent = 0;
  await atRate(
    perSecond,
    () => sent >= perSecond * seconds,
    () => {
      sent++;
      const asked = ask().finally(() => open.delete(asked));
      open.add(asked);
    },
  );
  await Promise.all(open);
  agent.destroy();
}
