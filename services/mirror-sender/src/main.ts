import { openBus } from '@llm-gateway/bus';
import { run } from '@llm-gateway/runtime';
import { openTracing } from '@llm-gateway/tracing';
import { options } from './options.ts';
import { start } from './service.ts';

/** @param argv without node and the script */
export const main = (argv?: readonly string[]): Promise<void> =>
  run(
    options,
    async (values, parts) =>
      start(values, {
        ...parts,
        tracing: await openTracing(values, 'mirror-sender', parts),
        bus: openBus(values, 'mirror-sender', parts),
      }),
    argv,
  );

if (import.meta.main) await main();
