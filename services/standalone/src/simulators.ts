import { start as startSimulator } from '@llm-gateway/engine-simulator';
import { models, options as simulatorOptions } from '@llm-gateway/engine-simulator/options';
import { type Parts, parseOptions, type Running } from '@llm-gateway/runtime';
import type { Options } from './options.ts';

export interface Simulators extends AsyncDisposable {
  /** As `--llm-backend-endpoints` takes them. */
  readonly endpoints: string;
  /** The model that both serve. */
  readonly model: string;
  readonly addresses: Readonly<Record<string, string>>;
}

const names = ['simulator-1', 'simulator-2'];
/**
 * A static endpoint's KV port follows from its port, so under a P/D protocol both must be free:
 * they are looked for from here on.
 */
const firstDisaggregatedPort = 18_091;
const portsTried = 1000;

/**
 * Two engines without a GPU, on the loopback interface; under a P/D protocol each plays both sides.
 */
export async function startSimulators(values: Options, parts: Parts): Promise<Simulators> {
  await using stack = new AsyncDisposableStack();
  const addresses: Record<string, string> = {};
  let model = '';
  for (const name of names) {
    const settings = ['--host', '127.0.0.1', '--name', name];
    const simulator =
      values.pdDisaggProtocol === ''
        ? await startOne([...settings, '--port', '0'], parts)
        : await startOnFreePorts([...settings, '--kv-connector', values.pdDisaggProtocol], parts);
    stack.use(simulator);
    model = simulator.model;
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

async function startOnFreePorts(flags: string[], parts: Parts): Promise<Running & { model: string }> {
  for (let port = firstDisaggregatedPort; ; port++) {
    try {
      return await startOne([...flags, '--port', String(port)], parts);
    } catch (error) {
      const taken = error instanceof Error && 'code' in error && error.code === 'EADDRINUSE';
      if (!taken || port === firstDisaggregatedPort + portsTried) throw error;
    }
  }
}

async function startOne(flags: string[], parts: Parts): Promise<Running & { model: string }> {
  const parsed = parseOptions(simulatorOptions, flags, {});
  if (!('values' in parsed)) throw new Error('the flags of the simulated engines are wrong');
  return { ...(await startSimulator(parsed.values, parts)), model: models(parsed.values)[0] ?? '' };
}
