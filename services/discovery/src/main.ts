import { connectNats } from '@llm-gateway/bus';
import { run } from '@llm-gateway/runtime';
import { options } from './options.ts';
import { start } from './service.ts';

await run(options, async (values, parts) => {
  const bus = connectNats(values, { name: 'discovery' });
  const service = await start(values, { ...parts, bus });
  return {
    ...service,
    async [Symbol.asyncDispose]() {
      await service[Symbol.asyncDispose]();
      await bus[Symbol.asyncDispose]();
    },
  };
});
