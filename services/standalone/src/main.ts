import { run } from '@llm-gateway/runtime';
import { options } from './options.ts';
import { start } from './service.ts';

await run(options, start);
