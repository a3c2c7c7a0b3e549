import { hostname } from 'node:os';
import type { Readiness } from './admin.ts';
import type { FileStanding } from './file-books.ts';

/** What a process can say of itself at any time, for people who look at it. */
export interface SelfDescription {
  readonly service: string;
  readonly host: string;
  readonly pid: number;
  readonly version: string;
  readonly upMs: number;
  readonly state: Readiness;
  /** Flags whose values differ from their defaults, by name. Secrets are hidden. */
  readonly flags: readonly (readonly [flag: string, value: string])[];
  readonly rssBytes: number;
  /** The files that it follows, such as the route config; no mistake holds a secret. */
  readonly files: readonly FileStanding[];
}

export type Describe = () => SelfDescription;

const maxValueLength = 300;

/** @param shown the values of flags that differ from their defaults, secrets already hidden */
export function describeSelf(facts: {
  readonly service: string;
  readonly version: string;
  readonly shown: readonly (readonly [flag: string, value: unknown])[];
  readiness(): Readiness;
  files?(): readonly FileStanding[];
}): Describe {
  const { service, version, readiness } = facts;
  const flags = facts.shown.map(([flag, value]) => [flag, String(value).slice(0, maxValueLength)] as const);
  const host = hostname();
  return () => ({
    service,
    host,
    pid: process.pid,
    version,
    upMs: Math.round(process.uptime() * 1000),
    state: readiness(),
    flags,
    rssBytes: process.memoryUsage.rss(),
    files: facts.files?.() ?? [],
  });
}
