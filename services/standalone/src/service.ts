import { busObserver, inProcessBus } from '@llm-gateway/bus';
import { start as startConsole } from '@llm-gateway/console';
import { start as startDiscovery } from '@llm-gateway/discovery';
import { start as startIngress } from '@llm-gateway/ingress';
import { showsClients } from '@llm-gateway/ingress/options';
import { start as startLimiter } from '@llm-gateway/limiter';
import { start as startMirrorSender } from '@llm-gateway/mirror-sender';
import { start as startRetryWorker } from '@llm-gateway/retry-worker';
import { start as startRouter } from '@llm-gateway/router';
import type { Parts, Running } from '@llm-gateway/runtime';
import { openTracing } from '@llm-gateway/tracing';
import { type Options, usesSimulators } from './options.ts';
import { startSimulators } from './simulators.ts';
import { welcome } from './welcome.ts';

/** The whole gateway in one process: the same services, on a bus that is a function call. */
export async function start(values: Options, parts: Parts): Promise<Running> {
  await using stack = new AsyncDisposableStack();
  const simulators = usesSimulators(values) ? stack.use(await startSimulators(values, parts)) : undefined;
  const settings = simulators === undefined ? values : { ...values, llmBackendEndpoints: simulators.endpoints };
  const bus = stack.use(inProcessBus(busObserver(parts)));
  const tracing = await openTracing(values, 'standalone', parts);
  const deps = { ...parts, bus, tracing };

  // The ingress last: when it listens, everything that it asks is there.
  const discovery = stack.use(await startDiscovery(settings, deps));
  const router = stack.use(await startRouter(settings, deps));
  // There is no other sender or worker that could take over when the process is to end: they go on
  // until their drain.
  const untilDrained = { ...deps, shutdown: new AbortController().signal };
  const limiter = !showsClients(settings) ? undefined : stack.use(await startLimiter(settings, untilDrained));
  const mirrorSender = stack.use(await startMirrorSender(settings, untilDrained));
  // It listens for jobs of this process alone.
  const own = { internalHost: '127.0.0.1', internalPort: 0, advertiseHost: '' };
  const retryWorker = stack.use(await startRetryWorker({ ...settings, ...own }, untilDrained));
  const ingress = stack.use(await startIngress(settings, deps));

  const http = ingress.addresses.http ?? '';
  // It would not trust a certificate that is for the name of the outside.
  const consoleIngress = http.startsWith('http:') ? reachable(http) : '';
  const page = values.console ? stack.use(await startConsole({ ...values, consoleIngress }, deps)) : undefined;

  const banner = welcome({
    url: reachable(http),
    page: reachable(page?.addresses.console ?? ''),
    simulatedModel: simulators?.model,
  });
  const owned = stack.move();
  return {
    banner,
    addresses: { ...ingress.addresses, ...page?.addresses, ...simulators?.addresses },
    ready: () => ingress.ready() && router.ready() && discovery.ready() && (limiter?.ready() ?? true),
    async drain(signal) {
      // The ingress's requests may still need the others, so they come after it.
      await ingress.drain?.(signal);
      await Promise.all([retryWorker.drain?.(signal), mirrorSender.drain?.(signal)]);
    },
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

/** The address by which this machine reaches it. */
function reachable(address: string): string {
  return address.replace(/\/\/(0\.0\.0\.0|\[::\])/, '//localhost');
}
