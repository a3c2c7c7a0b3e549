import { connectNats } from '@llm-gateway/bus';
import { run } from '@llm-gateway/runtime';
import { options } from './options.ts';
import { start } from './service.ts';

await run(options, async (values, parts) => {
  await using bus = connectNats(values, { name: 'ingress' });
  return await start(values, { ...parts, bus });
});
