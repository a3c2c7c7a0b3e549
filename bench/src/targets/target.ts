import type { Engine } from '../engine-process.ts';
import type { Pids } from '../processes.ts';
import type { Workplace } from '../workplace.ts';

/**
 * Gateways that are measured where they are installed, by the names of their programs and of their
 * packages on PyPI.
 */
export const otherNames = ['vllm-router', 'smg', 'litellm'] as const;
export type OtherName = (typeof otherNames)[number];
/** Where their programs are; those that are not there are not measured. */
export type OtherPrograms = Readonly<Partial<Record<OtherName, string>>>;

/** Something that stands between client and engine. Disposing ends its processes. */
export interface Target extends AsyncDisposable {
  readonly url: string;
  /** `name: value`: what each request must carry. */
  readonly headers: readonly string[];
  /** The processes whose CPU the path costs. */
  readonly pids: Pids;
  /** Messages that processes have sent over the bus so far. */
  busMessages?(): Promise<number>;
}

export interface Setting {
  readonly place: Workplace;
  readonly engine: Engine;
  /** Further gateways that are on this machine. */
  readonly others: OtherPrograms;
}

export type StartTarget = (setting: Setting) => Promise<Target>;

/** Sent to all, so that all forward it. */
export const clientHeaders: readonly string[] = ['authorization: Bearer benchmark'];
