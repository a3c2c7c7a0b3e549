import { setTimeout as sleep } from 'node:timers/promises';
import { chatBody } from '../bodies.ts';
import { startEngine } from '../engine-process.ts';
import { drive } from '../load.ts';
import { OpenStreams } from '../open-streams.ts';
import { perUnit, watchCpu } from '../processes.ts';
import type { Row } from '../results.ts';
import { type Case, interleave } from '../rounds.ts';
import type { Session } from '../session.ts';
import { type Gateway, mirrorRefreshMs, startGateway } from '../targets/gateway.ts';
import type { Setting } from '../targets/target.ts';
import { countChunks } from './stream.ts';
import { driveTarget } from './unary.ts';

const clients = 32;
/** Bodies of megabytes from 32 clients would measure the memory of the load generator. */
const bodyClients = 8;

type Grow = (session: Session) => Promise<Row[]>;

/** What a unit costs while one thing grows. */
export const growths: Readonly<Record<string, Grow>> = {
  instances: growInstances,
  streams: growStreams,
  bodies: growBodies,
  ingresses: growIngresses,
  mirroring: growMirroring,
};

async function growInstances(session: Session): Promise<Row[]> {
  const { setting, plan } = session;
  const { rounds, seconds, instances } = plan.growth;
  const body = setting.place.file('instances.json', chatBody());
  await using stack = new AsyncDisposableStack();
  const cases: Case[] = [];
  for (const count of instances) {
    const gateway = stack.use(await startGateway(setting, { name: `instances-${count}`, instances: count }));
    const measure = async () => {
      // Connections to the instances have idled away since the last round: opening them again is
      // not what grows.
      await drive({ url: gateway.url, headers: gateway.headers, body, clients, seconds: plan.warmUpSeconds });
      return await driveTarget(setting, gateway, { body, clients, seconds });
    };
    cases.push({ subject: 'instances', variant: count, measure });
  }
  return await interleave('growth', cases, session.rounds(rounds));
}

/** The same number of chunks a second over more and more streams. */
const chunksPerSecond = 2000;

async function growStreams(session: Session): Promise<Row[]> {
  const { setting, plan } = session;
  const { rounds, seconds, streams } = plan.growth;
  const { engine } = setting;
  const targets = await session.targets(plan.growth.compared);
  const cases = streams.flatMap((count) =>
    targets.map(([name, target]): Case => {
      const measure = async () => {
        await engine.play({ chunks: 1_000_000, gapMs: (1000 * count) / chunksPerSecond, phase: 'spread' });
        using open = new OpenStreams(target, chatBody({ stream: true }));
        await open.growTo(count);
        await sleep(1000);
        const values = await countChunks(engine, target.pids, seconds);
        if (open.count !== count) throw new Error(`${count - open.count} of ${count} streams were closed`);
        return values;
      };
      return { subject: `streams, ${name}`, variant: count, measure };
    }),
  );
  return await interleave('growth', cases, session.rounds(rounds));
}

async function growBodies(session: Session): Promise<Row[]> {
  const { setting, plan } = session;
  const { rounds, seconds, bodyBytes } = plan.growth;
  const targets = await session.targets(plan.growth.compared);
  const cases = bodyBytes.flatMap((bytes) => {
    const body = setting.place.file(`body-${bytes}.json`, chatBody({ bytes }));
    return targets.map(
      ([name, target]): Case => ({
        subject: `bodies, ${name}`,
        variant: bytes,
        measure: () => driveTarget(setting, target, { body, clients: bodyClients, seconds }),
      }),
    );
  });
  for (const { measure } of cases) await measure();
  return await interleave('growth', cases, session.rounds(rounds));
}

/** As many clients for each ingress as there are for one. */
async function growIngresses(session: Session): Promise<Row[]> {
  const { setting, plan } = session;
  const { rounds, seconds, ingresses } = plan.growth;
  const body = setting.place.file('ingresses.json', chatBody());
  await using gateway = await startGateway(setting, { name: 'ingresses', ingresses: Math.max(...ingresses) });
  for (const { url } of gateway.ingresses) {
    await drive({ url, headers: gateway.headers, body, clients, seconds: plan.warmUpSeconds });
  }
  const cases = ingresses.map(
    (count): Case => ({
      subject: 'ingresses',
      variant: count,
      measure: () => driveSeveral(setting, gateway, { count, body, seconds }),
    }),
  );
  return await interleave('growth', cases, session.rounds(rounds));
}

async function driveSeveral(
  { place }: Setting,
  gateway: Gateway,
  { count, body, seconds }: { count: number; body: string; seconds: number },
): Promise<Record<string, number>> {
  const doors = gateway.ingresses.slice(0, count);
  const { router = 0, nats = 0 } = gateway.pids;
  const messagesBefore = await gateway.busMessages();
  const cpu = watchCpu({ router, nats, ...Object.fromEntries(doors.map(({ pid }, at) => [`ingress ${at + 1}`, pid])) });
  const load = { headers: gateway.headers, body, clients, seconds };
  const results = await Promise.all(doors.map(({ url }) => drive({ url, ...load })));
  const { micros, ...use } = cpu();
  const messages = (await gateway.busMessages()) - messagesBefore;
  place.emptyLogs();
  const requests = results.reduce((sum, result) => sum + result.requests, 0);
  const ingress = Object.entries(micros).reduce(
    (sum, [name, each]) => sum + (name.startsWith('ingress') ? each : 0),
    0,
  );
  return {
    ...perUnit({ ...use, micros: { ingress, router: micros.router ?? 0, nats: micros.nats ?? 0 } }, requests),
    requestsPerSecond: requests / seconds,
    busMessages: messages / requests,
    errors: results.reduce((sum, result) => sum + result.errors, 0),
  };
}

/** One gateway, whose mirror config changes under it as an operator would change it. */
async function growMirroring(session: Session): Promise<Row[]> {
  const { setting, plan } = session;
  const { rounds, seconds, mirrorPercents } = plan.growth;
  const { place } = setting;
  await using mirrored = await startEngine(place, 'mirror-target');
  const configure = (percent: number) =>
    place.file('mirror.json', JSON.stringify({ Enable: percent > 0, Target: mirrored.url, Ratio: percent }));
  const mirrorConfig = configure(0);
  await using gateway = await startGateway(setting, { name: 'mirroring', mirrorConfig });
  const body = place.file('mirrored.json', chatBody());
  const measure = (percent: number) => async () => {
    configure(percent);
    await sleep(4 * mirrorRefreshMs);
    const before = await mirrored.counts();
    const cpu = watchCpu({ sender: gateway.mirrorSender ?? 0 });
    const values = await driveTarget(setting, gateway, { body, clients, seconds });
    const requests = (values.requestsPerSecond ?? 0) * seconds;
    const copies = ((await mirrored.counts()).requests - before.requests) / requests;
    return { ...values, copies, 'cpuMicros.mirror sender': cpu().totalMicros / requests };
  };
  const cases = mirrorPercents.map(
    (percent): Case => ({ subject: 'mirroring', variant: percent, measure: measure(percent) }),
  );
  for (const { measure } of cases) await measure();
  return await interleave('growth', cases, session.rounds(rounds));
}
