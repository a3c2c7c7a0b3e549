import { openBus } from '@llm-gateway/bus';
import { run } from '@llm-gateway/runtime';
import { options } from './options.ts';
import { start } from './service.ts';

/** @param argv without node and the script */
export const main = (argv?: readonly string[]): Promise<void> =>
  run(options, (values, parts) => start(values, { ...parts, bus: openBus(values, 'console', parts) }), argv);

if (import.meta.main) await main();
