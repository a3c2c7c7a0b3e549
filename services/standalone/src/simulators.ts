import { start as startSimulator } from '@llm-gateway/engine-simulator';
import { models, options as simulatorOptions } from '@llm-gateway/engine-simulator/options';
import { type Parts, parseOptions } from '@llm-gateway/runtime';
import type { Options } from './options.ts';

export interface Simulators extends AsyncDisposable {
  /** As `--llm-backend-endpoints` takes them. */
  readonly endpoints: string;
  /** The model that both serve. */
  readonly model: string;
  readonly addresses: Readonly<Record<string, string>>;
}

const names = ['simulator-1', 'simulator-2'];
/** Under a P/D protocol ports are fixed: a static endpoint's KV port follows from its port. */
const firstDisaggregatedPort = 18_091;

/** Two engines without a GPU, on the loopback interface; under a P/D protocol each plays both sides. */
export async function startSimulators(values: Options, parts: Parts): Promise<Simulators> {
  await using stack = new AsyncDisposableStack();
  const addresses: Record<string, string> = {};
  let model = '';
  for (const [index, name] of names.entries()) {
    const port = values.pdDisaggProtocol === '' ? 0 : firstDisaggregatedPort + index;
    const flags = ['--host', '127.0.0.1', '--port', String(port), '--name', name];
    if (values.pdDisaggProtocol !== '') flags.push('--kv-connector', values.pdDisaggProtocol);
    const parsed = parseOptions(simulatorOptions, flags, {});
    if (!('values' in parsed)) throw new Error('the flags of the simulated engines are wrong');
    const simulator = stack.use(await startSimulator(parsed.values, parts));
    model = models(parsed.values)[0] ?? '';
    addresses[name] = simulator.addresses.http ?? '';
  }
  const kept = stack.move();
  return {
    endpoints: Object.values(addresses)
      .map((address) => new URL(address).host)
      .join(','),
    model,
    addresses,
    [Symbol.asyncDispose]: () => kept.disposeAsync(),
  };
}
