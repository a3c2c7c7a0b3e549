import { openBus } from '@llm-gateway/bus';
import { mainOf } from '@llm-gateway/runtime';
import { openTracing } from '@llm-gateway/tracing';
import { options } from './options.ts';
import { start } from './service.ts';

export const main = mainOf(options, { tracing: openTracing, bus: openBus }, start);

if (import.meta.main) await main();
