import type { Checked } from '@llm-gateway/runtime';

/** A service: its module runs it for as long as it lives. */
interface ServiceEntry {
  readonly summary: string;
  load(): Promise<{ main(argv: readonly string[]): Promise<void> }>;
  /** Its flags, without what runs it. */
  options(): Promise<{ readonly options: Checked<never> }>;
}

/** What only one process in ten runs is imported by it alone. */
export const services: ReadonlyMap<string, ServiceEntry> = new Map<string, ServiceEntry>([
  [
    'standalone',
    {
      summary: 'all of the gateway in one process',
      load: () => import('@llm-gateway/standalone/main'),
      options: () => import('@llm-gateway/standalone/options'),
    },
  ],
  [
    'ingress',
    {
      summary: "holds the clients' connections",
      load: () => import('@llm-gateway/ingress/main'),
      options: () => import('@llm-gateway/ingress/options'),
    },
  ],
  [
    'router',
    {
      summary: 'decides where requests go',
      load: () => import('@llm-gateway/router/main'),
      options: () => import('@llm-gateway/router/options'),
    },
  ],
  [
    'discovery',
    {
      summary: 'knows which instances live',
      load: () => import('@llm-gateway/discovery/main'),
      options: () => import('@llm-gateway/discovery/options'),
    },
  ],
  [
    'retry-worker',
    {
      summary: 'waits out 429s of fallbacks',
      load: () => import('@llm-gateway/retry-worker/main'),
      options: () => import('@llm-gateway/retry-worker/options'),
    },
  ],
  [
    'mirror-sender',
    {
      summary: 'sends copies of requests',
      load: () => import('@llm-gateway/mirror-sender/main'),
      options: () => import('@llm-gateway/mirror-sender/options'),
    },
  ],
  [
    'limiter',
    {
      summary: 'keeps the limits of clients',
      load: () => import('@llm-gateway/limiter/main'),
      options: () => import('@llm-gateway/limiter/options'),
    },
  ],
  [
    'console',
    {
      summary: 'a live page of the whole gateway',
      load: () => import('@llm-gateway/console/main'),
      options: () => import('@llm-gateway/console/options'),
    },
  ],
  [
    'registrar',
    {
      summary: "keeps one pod's record",
      load: () => import('@llm-gateway/registrar/main'),
      options: () => import('@llm-gateway/registrar/options'),
    },
  ],
  [
    'engine-simulator',
    {
      summary: 'an engine without a GPU',
      load: () => import('@llm-gateway/engine-simulator/main'),
      options: () => import('@llm-gateway/engine-simulator/options'),
    },
  ],
]);
