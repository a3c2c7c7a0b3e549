import { openBus } from '@llm-gateway/bus';
import { run } from '@llm-gateway/runtime';
import { options } from './options.ts';
import { start } from './service.ts';

await run(options, (values, parts) =>
  start(values, {
    ...parts,
    bus: openBus(values, 'ingress', parts),
    mirrorBus: openBus(values, 'ingress', parts, { connection: 'mirror' }),
  }),
);
