import { openBus } from '@llm-gateway/bus';
import { mainOf, type Parts } from '@llm-gateway/runtime';
import { openTracing } from '@llm-gateway/tracing';
import { type Options, options } from './options.ts';
import { start } from './service.ts';

export const main = mainOf(
  options,
  {
    tracing: openTracing,
    bus: openBus,
    mirrorBus: (values: Options, service: string, parts: Parts) =>
      openBus(values, service, parts, { connection: 'mirror' }),
  },
  start,
);

if (import.meta.main) await main();
