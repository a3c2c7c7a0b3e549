import type { StreamScript } from './engine.ts';
import { type TargetName, targetNames } from './targets/catalogue.ts';

/** How much is measured. Times are for each measurement; each is taken once a round. */
export interface Plan {
  readonly name: string;
  readonly warmUpSeconds: number;
  readonly unary: { readonly rounds: number; readonly seconds: number; readonly clients: readonly number[] };
  readonly stream: StreamPlan;
  readonly rest: { readonly rounds: number; readonly settleMs: number; readonly seconds: number };
  readonly memory: {
    readonly rounds: number;
    readonly targets: readonly TargetName[];
    readonly streams: readonly number[];
    readonly settleMs: number;
  };
  readonly growth: {
    readonly rounds: number;
    readonly seconds: number;
    /**
     * The targets beside which the growth of the services is seen, where others have something to
     * compare.
     */
    readonly compared: readonly TargetName[];
    readonly instances: readonly number[];
    readonly streams: readonly number[];
    readonly bodyBytes: readonly number[];
    readonly ingresses: readonly number[];
    readonly mirrorPercents: readonly number[];
  };
}

export interface StreamPlan {
  readonly rounds: number;
  readonly seconds: number;
  readonly streams: number;
  readonly chunks: number;
  readonly gapMs: number;
  readonly phases: readonly StreamScript['phase'][];
}

const streams = { streams: 64, chunks: 100, gapMs: 25 };

export const fullPlan: Plan = {
  name: 'full',
  warmUpSeconds: 3,
  unary: { rounds: 5, seconds: 2, clients: [1, 8, 32, 128] },
  stream: { rounds: 5, seconds: 3, phases: ['spread', 'step'], ...streams },
  // Longer than anything looks at the load that was.
  rest: { rounds: 3, settleMs: 12_000, seconds: 10 },
  memory: {
    rounds: 3,
    // With its defaults smg refuses some of 5,000 streams, and LiteLLM takes minutes to open them.
    targets: targetNames.filter((name) => !['direct', 'standalone, warn', 'smg', 'litellm'].includes(name)),
    streams: [1000, 5000],
    settleMs: 2000,
  },
  growth: {
    rounds: 3,
    seconds: 2,
    compared: ['nginx', 'standalone', 'services'],
    instances: [2, 100, 1000],
    streams: [10, 100, 1000, 5000],
    bodyBytes: [1000, 100_000, 5_000_000],
    ingresses: [1, 2, 3],
    mirrorPercents: [0, 10, 100],
  },
};

/**
 * Enough for each figure, at the ends of each growth: for a look while working, not for a verdict.
 */
export const quickPlan: Plan = {
  name: 'quick',
  warmUpSeconds: 1,
  unary: { rounds: 2, seconds: 1, clients: [1, 32, 128] },
  stream: { rounds: 1, seconds: 2, phases: ['spread'], ...streams },
  rest: { rounds: 1, settleMs: 12_000, seconds: 5 },
  memory: { rounds: 1, targets: ['nginx', 'services'], streams: [5000], settleMs: 1000 },
  growth: {
    rounds: 1,
    seconds: 1,
    compared: ['services'],
    instances: [2, 1000],
    streams: [10, 1000],
    bodyBytes: [1000, 5_000_000],
    ingresses: [1, 3],
    mirrorPercents: [0, 100],
  },
};
