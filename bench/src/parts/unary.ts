import { chatBody } from '../bodies.ts';
import { drive } from '../load.ts';
import { type Pids, perUnit, watchCpu } from '../processes.ts';
import type { Row } from '../results.ts';
import { type Case, interleave } from '../rounds.ts';
import type { Session } from '../session.ts';
import type { TargetName } from '../targets/catalogue.ts';
import type { Setting, Target } from '../targets/target.ts';

/**
 * One answer after the other to 1, 8, 32, 128 clients: CPU per request, latency, messages on the
 * bus.
 */
export async function measureUnary(session: Session): Promise<Row[]> {
  const { setting, plan } = session;
  const { rounds, seconds, clients } = plan.unary;
  const body = setting.place.file('unary.json', chatBody());
  const targets = await session.targets();
  for (const [, target] of targets) {
    await driveTarget(setting, target, { body, clients: 32, seconds: plan.warmUpSeconds });
  }
  const cases = clients.flatMap((clients) =>
    targets
      .filter(([name]) => canServe(name, clients))
      .map(
        ([subject, target]): Case => ({
          subject,
          variant: clients,
          measure: () => driveTarget(setting, target, { body, clients, seconds }),
        }),
      ),
  );
  return await interleave('unary', cases, session.rounds(rounds));
}

/**
 * LiteLLM computes for tens of milliseconds a request: of more clients than this none has an answer
 * after two seconds.
 */
const mostForLitellm = 32;

function canServe(name: TargetName, clients: number): boolean {
  return name !== 'litellm' || clients <= mostForLitellm;
}

/** The CPU of `pids` (the target's own when left out) counts. */
export async function driveTarget(
  { place }: Setting,
  target: Pick<Target, 'url' | 'headers' | 'pids' | 'busMessages'>,
  load: { body: string; clients: number; seconds: number; pids?: Pids },
): Promise<Record<string, number>> {
  const { pids = target.pids, ...rest } = load;
  const messagesBefore = await target.busMessages?.();
  const cpu = watchCpu(pids);
  const result = await drive({ url: target.url, headers: target.headers, ...rest });
  const use = cpu();
  const messages = await target.busMessages?.();
  place.emptyLogs();
  if (result.requests === 0) throw new Error(`no request was answered, ${result.errors} errors`);
  return {
    requestsPerSecond: result.requests / result.seconds,
    p50Ms: result.p50Ms,
    p99Ms: result.p99Ms,
    errors: result.errors,
    ...(Object.keys(pids).length > 0 && perUnit(use, result.requests)),
    ...(messages !== undefined && { busMessages: (messages - (messagesBefore ?? 0)) / result.requests }),
  };
}
