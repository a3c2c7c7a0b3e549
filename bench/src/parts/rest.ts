import { setTimeout as sleep } from 'node:timers/promises';
import { watchCpu } from '../processes.ts';
import type { Row } from '../results.ts';
import { gather } from '../series.ts';
import type { Session } from '../session.ts';
import { targetNames } from '../targets/catalogue.ts';

/**
 * What all targets take while nothing is asked of them: all at the same time, because none of them
 * keeps another from its rest.
 */
export async function measureRest(session: Session): Promise<Row[]> {
  const { rounds, settleMs, seconds } = session.plan.rest;
  const targets = await session.targets(targetNames.filter((name) => name !== 'direct' && name !== 'standalone, warn'));
  await sleep(settleMs);
  const taken = targets.map(([subject]) => ({ subject, rounds: [] as Record<string, number>[] }));
  for (let round = 1; round <= rounds; round++) {
    const watches = targets.map(([, { pids }]) => watchCpu(pids));
    await sleep(seconds * 1000);
    for (const [at, end] of watches.entries()) {
      const { micros, totalMicros, seconds } = end();
      const msPerSecond = (each: number) => each / 1000 / seconds;
      taken[at]?.rounds.push({
        cpuMsPerSecond: msPerSecond(totalMicros),
        ...Object.fromEntries(
          Object.entries(micros).map(([name, each]) => [`cpuMsPerSecond.${name}`, msPerSecond(each)]),
        ),
      });
    }
  }
  return taken.map(({ subject, rounds }) => ({ part: 'rest', subject, variant: 'idle', values: gather(rounds) }));
}
