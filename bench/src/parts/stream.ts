import { setTimeout as sleep } from 'node:timers/promises';
import { chatBody } from '../bodies.ts';
import type { StreamScript } from '../engine.ts';
import type { Engine } from '../engine-process.ts';
import { drive } from '../load.ts';
import type { StreamPlan } from '../plan.ts';
import { type Pids, perUnit, watchCpu } from '../processes.ts';
import type { Row } from '../results.ts';
import { type Case, interleave } from '../rounds.ts';
import type { Session } from '../session.ts';
import { type TargetName, targetNames } from '../targets/catalogue.ts';
import type { Setting, Target } from '../targets/target.ts';

/** Long enough for all clients to be connected and past their first chunks. */
const beginMs = 1000;

/** What makes no difference here, and what cannot keep up with so many chunks. */
const unpaced: readonly TargetName[] = ['direct', 'standalone, warn', 'litellm'];

/** Paced streams that all targets can keep up with: CPU per chunk. */
export async function measureStreams(session: Session): Promise<Row[]> {
  const { setting, plan } = session;
  const targets = await session.targets(targetNames.filter((name) => !unpaced.includes(name)));
  const body = setting.place.file('stream.json', chatBody({ stream: true }));
  await setting.engine.play({ chunks: 20, gapMs: 5, phase: 'spread' });
  for (const { url, headers } of targets.map(([, target]) => target)) {
    await drive({ url, headers, body, clients: 32, seconds: plan.warmUpSeconds });
  }
  const measure = (target: Target, phase: StreamScript['phase']) => async () => {
    await setting.engine.play({ ...plan.stream, phase });
    return await measureStream(setting, target, { body, plan: plan.stream });
  };
  const cases = plan.stream.phases.flatMap((phase) =>
    targets.map(([subject, target]): Case => ({ subject, variant: phase, measure: measure(target, phase) })),
  );
  return await interleave('stream', cases, session.rounds(plan.stream.rounds));
}

async function measureStream(
  { engine, place }: Setting,
  { url, headers, pids }: Target,
  { body, plan }: { body: string; plan: StreamPlan },
): Promise<Record<string, number>> {
  const tailSeconds = 1;
  const seconds = Math.ceil(beginMs / 1000 + plan.seconds + tailSeconds);
  const load = drive({ url, headers, body, clients: plan.streams, seconds });
  const measured = sleep(beginMs).then(() => countChunks(engine, pids, plan.seconds));
  const [{ errors }, values] = await Promise.all([load, measured]);
  place.emptyLogs();
  return { ...values, errors };
}

/** CPU per chunk that the engine wrote, over so many seconds of what is going on. */
export async function countChunks(engine: Engine, pids: Pids, seconds: number): Promise<Record<string, number>> {
  const before = await engine.counts();
  const cpu = watchCpu(pids);
  await sleep(seconds * 1000);
  const use = cpu();
  const after = await engine.counts();
  const chunks = after.chunks - before.chunks;
  if (chunks === 0) throw new Error('the engine wrote no chunk');
  const skipped = (after.skipped - before.skipped) / chunks;
  return { ...perUnit(use, chunks), chunksPerSecond: chunks / use.seconds, skipped };
}
