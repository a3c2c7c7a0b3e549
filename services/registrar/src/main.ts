import { mainOf } from '@llm-gateway/runtime';
import { options } from './options.ts';
import { start } from './service.ts';

export const main = mainOf(options, {}, start);

if (import.meta.main) await main();
