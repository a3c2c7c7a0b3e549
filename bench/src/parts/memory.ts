import { setTimeout as sleep } from 'node:timers/promises';
import { chatBody } from '../bodies.ts';
import { silent } from '../engine-process.ts';
import { drive } from '../load.ts';
import { OpenStreams } from '../open-streams.ts';
import type { Plan } from '../plan.ts';
import { rssBytes } from '../processes.ts';
import type { Row } from '../results.ts';
import { type Case, interleave } from '../rounds.ts';
import type { Session } from '../session.ts';
import { catalogue, startable, type TargetName } from '../targets/catalogue.ts';
import type { Setting } from '../targets/target.ts';

/**
 * A fresh process each time: what it holds at rest, and what each open stream that is silent adds
 * to it.
 */
export async function measureMemory(session: Session): Promise<Row[]> {
  const { setting, plan } = session;
  const cases = startable(plan.memory.targets, setting).map(
    (name): Case => ({ subject: name, variant: 'streams', measure: () => measureTarget(setting, name, plan) }),
  );
  return await interleave('memory', cases, session.rounds(plan.memory.rounds));
}

async function measureTarget(setting: Setting, name: TargetName, plan: Plan): Promise<Record<string, number>> {
  const { settleMs } = plan.memory;
  const { engine, place } = setting;
  await using target = await catalogue[name](setting);
  const rss = () => Object.entries(target.pids).map(([process, pid]) => [process, rssBytes(pid)] as const);
  // The one that holds the clients' connections is named first.
  const doorBytes = () => rss()[0]?.[1] ?? Number.NaN;

  const body = place.file('warm-up.json', chatBody());
  await drive({ url: target.url, headers: target.headers, body, clients: 1, seconds: 1 });
  await sleep(settleMs);
  const atRest = rss();
  const restBytes = doorBytes();
  const values: Record<string, number> = {
    restMb: atRest.reduce((sum, [, bytes]) => sum + bytes, 0) / 1e6,
    ...Object.fromEntries(atRest.map(([process, bytes]) => [`restMb.${process}`, bytes / 1e6])),
  };

  await engine.play(silent);
  using streams = new OpenStreams(target, chatBody({ stream: true }));
  for (const count of plan.memory.streams) {
    await streams.growTo(count);
    await sleep(settleMs);
    if (streams.count !== count) throw new Error(`${count - streams.count} of ${count} streams were closed`);
    values[`kbPerStream.${count}`] = (doorBytes() - restBytes) / 1000 / count;
  }
  place.emptyLogs();
  return values;
}
