import type { InstanceRow } from './instances.ts';
import type { ProcessRow } from './processes.ts';

export type Level = 'well' | 'notice' | 'warning' | 'critical';

/** What is wrong, in one sentence; more of it where there is more. */
export interface Verdict {
  readonly level: Level;
  readonly text: string;
  /** Further problems, worst first. */
  readonly others: readonly string[];
}

export interface Seen {
  readonly nowMs: number;
  readonly connected: boolean;
  /** When the bus was last there. */
  readonly connectedMs: number;
  /** When the watch began. */
  readonly startedMs: number;
  readonly instances: readonly InstanceRow[];
  readonly processes: readonly ProcessRow[];
  /** Since when nobody of a service is there; null: somebody is; undefined: there never was one. */
  awaySince(service: string): number | null | undefined;
  /** Shares of the last minute's requests. */
  readonly requestsPerSecond: number;
  readonly failedShare: number;
  readonly firstByteP95Ms: number | null;
}

interface Finding {
  readonly level: Level;
  readonly text: string;
}

/** Of more pools than so many that are not well only the worst are named. */
const maxNamed = 5;
const maxMistakeLength = 300;
/** Every process is asked twice a second: one that has not answered for so long is absent. */
const answerMs = 1000;
/** An ingress that runs for less than this is starting, and so is what it waits for. */
const startMs = 5000;
const order: readonly Level[] = ['critical', 'warning', 'notice', 'well'];

/** The verdict as an operator would word it. */
export function verdict(seen: Seen): Verdict {
  const findings = [
    ...ofBus(seen),
    ...ofServing(seen),
    ...ofProcesses(seen),
    ...ofInstances(seen),
    ...ofConfig(seen),
    ...ofFiles(seen),
    ...ofErrors(seen),
  ];
  findings.sort((a, b) => order.indexOf(a.level) - order.indexOf(b.level));
  const [first, ...others] = findings;
  if (first === undefined) return { level: 'well', text: well(seen), others: [] };
  return { ...first, others: others.slice(0, maxNamed).map(({ text }) => text) };
}

function* ofBus({ connected, connectedMs }: Seen): Generator<Finding> {
  if (connected) return;
  const since = connectedMs === 0 ? '' : ` since ${clock(connectedMs)}`;
  yield {
    level: 'critical',
    text: `The console has no connection to NATS${since}: what it shows is old. Clients are served as long as engines answer.`,
  };
}

/** Why no request can be served, in one sentence with all of its causes. */
function* ofServing(seen: Seen): Generator<Finding> {
  const causes = causesOfNoService(seen);
  if (causes.length === 0) return;
  const answered = seen.awaySince('ingress') === null ? ': every request gets 503' : '';
  yield { level: 'critical', text: `${capital(causes.join('; '))}${answered}.` };
}

/** Empty while requests can be served, and while the gateway or the watch starts. */
function causesOfNoService(seen: Seen): string[] {
  if (!seen.connected || !isSettled(seen)) return [];
  const discovery = seen.awaySince('discovery');
  const isWithoutEngines = !hasEngines(seen) && !hasEndpoints(seen);
  const isWithoutIngress = hasNoReadyIngress(seen);
  if (!isWithoutEngines && !isWithoutIngress) return [];
  const causes: string[] = [];
  if (discovery === undefined) causes.push('no discovery answers');
  else if (discovery !== null) causes.push(`no discovery is there since ${clock(discovery)}`);
  else if (isWithoutEngines) causes.push('no engines are registered');
  if (isWithoutIngress) causes.push('no ingress is ready');
  return causes;
}

/** Whether who is absent had the time to start and to answer. */
function isSettled({ nowMs, startedMs, connectedMs, processes }: Seen): boolean {
  if (nowMs - Math.max(startedMs, connectedMs) < answerMs) return false;
  const there = processes.filter(isThere);
  const ingresses = there.filter(({ service }) => service === 'ingress');
  const elders = ingresses.length > 0 ? ingresses : there;
  return elders.length === 0 || elders.some(({ upMs, heardMs }) => upMs + nowMs - heardMs >= startMs);
}

/** A draining ingress still serves for a while; its end is a finding of its own. */
function hasNoReadyIngress({ processes }: Seen): boolean {
  const states = processes.filter((row) => row.service === 'ingress' && isThere(row)).map(({ state }) => state);
  return states.some((state) => state !== 'draining') && !states.includes('ready');
}

/** Ingresses keep their list of engines while no discovery answers the watch. */
function hasEngines({ instances, processes }: Seen): boolean {
  return instances.length > 0 || processes.some((row) => isThere(row) && (row.ingress?.instances ?? 0) > 0);
}

/** Whether the route config names other endpoints than the engines. */
function hasEndpoints({ processes }: Seen): boolean {
  return processes.some((row) => isThere(row) && row.ingress?.routes.some(({ target }) => target !== 'local'));
}

function* ofProcesses(seen: Seen): Generator<Finding> {
  if (!seen.connected) return;
  const away = (service: string) => seen.awaySince(service);
  const ingress = away('ingress');
  if (ingress === undefined) yield { level: 'warning', text: 'No ingress was heard of yet.' };
  else if (ingress !== null)
    yield { level: 'critical', text: `No ingress is there since ${clock(ingress)}: no client is served.` };
  const router = away('router');
  if (router !== null && router !== undefined)
    yield {
      level: 'warning',
      text: `No router is there since ${clock(router)}: ingresses choose engines themselves, in turn. Clients are served.`,
    };
  const discovery = away('discovery');
  if (discovery !== null && (discovery !== undefined || isSettled(seen)) && causesOfNoService(seen).length === 0) {
    const text = discovery === undefined ? 'No discovery answers' : `No discovery is there since ${clock(discovery)}`;
    yield { level: 'warning', text: `${text}: the last list of engines is kept. Clients are served.` };
  }
  const stores = seen.processes.filter((row) => row.discovery !== undefined && isThere(row));
  const lost = stores.filter((row) => row.discovery?.storeUp === false);
  if (lost.length > 0) {
    const source = lost[0]?.discovery?.source ?? 'The store';
    const all = lost.length === stores.length;
    yield {
      level: all ? 'warning' : 'notice',
      text: `${capital(source)} does not answer ${all ? 'discovery' : `${lost.length} of ${stores.length} discovery processes`}: the last list of engines is kept. Clients are served.`,
    };
  }
  const gone = seen.processes.filter(({ state, sinceMs }) => state === 'gone' && seen.nowMs - sinceMs < 60_000);
  for (const { process, sinceMs, service } of gone.slice(0, 3)) {
    if (away(service) === null)
      yield { level: 'notice', text: `${process} is gone since ${clock(sinceMs)}; others of its kind are there.` };
  }
}

function* ofInstances(seen: Seen): Generator<Finding> {
  if (seen.instances.length === 0) {
    const isSaid = causesOfNoService(seen).length > 0;
    if (seen.awaySince('discovery') === null && !isSaid) yield { level: 'warning', text: 'No engine is listed.' };
    return;
  }
  const pools = Map.groupBy(seen.instances, ({ model }) => model);
  const feel = feeling(seen);
  let named = 0;
  for (const [model, rows] of pools) {
    const name = model === '' ? (pools.size === 1 ? '' : ' that serve any model') : ` of ${model}`;
    const bad = rows.filter(({ state }) => ['ejected', 'suspect', 'failing', 'probing'].includes(state));
    const out = rows.filter(({ state }) => state === 'draining' || state === 'out');
    if (named >= maxNamed) return;
    if (bad.length > 0) {
      named++;
      const since = clock(Math.min(...bad.map(({ sinceMs }) => sinceMs)));
      const failing = bad.every(({ state }) => state === 'failing');
      const word = failing ? (bad.length === 1 ? 'fails' : 'fail') : bad.length === 1 ? 'is ejected' : 'are ejected';
      const which = bad.length === 1 ? ` (${bad[0]?.id ?? ''})` : '';
      const all = bad.length === rows.length;
      yield {
        level: all ? 'critical' : 'warning',
        text: `${counted(bad.length, rows.length)}${name}${which} ${word} since ${since}; ${feel}.`,
      };
    }
    if (out.length > 0) {
      named++;
      const all = out.length === rows.length;
      yield {
        level: all ? 'critical' : 'notice',
        text: `${counted(out.length, rows.length)}${name} ${out.length === 1 ? 'is' : 'are'} taken out by hand${out.length === 1 ? ` (${out[0]?.id ?? ''})` : ''}.`,
      };
    }
  }
}

function* ofConfig({ processes }: Seen): Generator<Finding> {
  const generations = Map.groupBy(
    processes.filter((row) => row.generation !== undefined && isThere(row) && row.service !== 'retry-worker'),
    ({ generation }) => generation,
  );
  if (generations.size > 1)
    yield {
      level: 'warning',
      text: `Processes hold ${generations.size} different route configs: where they differ, ingresses choose engines themselves.`,
    };
}

/** A file that is not in effect: the processes that refuse it, with one of its mistakes. */
function* ofFiles({ processes }: Seen): Generator<Finding> {
  const refused = processes
    .filter(isThere)
    .flatMap(({ process, host, pid, files }) =>
      files.flatMap(({ what, mistake }) => (mistake ? [{ process, place: `${host} ${pid}`, what, ...mistake }] : [])),
    );
  for (const [what, all] of Map.groupBy(refused, (one) => one.what)) {
    const [first] = all;
    if (first === undefined) continue;
    const places = new Set(all.map(({ place }) => place));
    const who = places.size === 1 ? `${first.process} keeps its` : `${places.size} processes keep their`;
    const since = clock(Math.min(...all.map(({ sinceMs }) => sinceMs)));
    yield {
      level: 'warning',
      text: `${who} last good ${what} since ${since}: ${first.text.slice(0, maxMistakeLength)}`,
    };
  }
}

function* ofErrors(seen: Seen): Generator<Finding> {
  if (seen.requestsPerSecond * 60 < 10 || seen.failedShare < 0.01) return;
  yield {
    level: seen.failedShare >= 0.1 ? 'critical' : 'warning',
    text: `Clients see ${percent(seen.failedShare)} errors.`,
  };
}

function well({ instances, requestsPerSecond, firstByteP95Ms }: Seen): string {
  const models = new Set(instances.map(({ model }) => model));
  const of = models.size > 1 ? ` of ${models.size} models` : '';
  const rate = requestsPerSecond === 0 ? 'no requests' : `${short(requestsPerSecond)} requests a second`;
  const first = firstByteP95Ms === null ? '' : `, 95 % have their first byte within ${duration(firstByteP95Ms)}`;
  return `All is well: ${instances.length} ${instances.length === 1 ? 'engine' : 'engines'}${of}, ${rate}${first}.`;
}

function feeling({ requestsPerSecond, failedShare }: Seen): string {
  if (requestsPerSecond === 0) return 'there are no requests that could feel it';
  return failedShare === 0 ? 'clients feel nothing' : `clients see ${percent(failedShare)} errors`;
}

function counted(some: number, all: number): string {
  if (all === 1) return 'The only engine';
  return some === all ? `All ${all} engines` : `${some} of ${all} engines`;
}

function isThere({ state }: ProcessRow): boolean {
  return state !== 'gone' && state !== 'stopped';
}

function percent(share: number): string {
  const value = share * 100;
  return `${value >= 10 ? Math.round(value) : value >= 0.1 ? Math.round(value * 10) / 10 : 'less than 0.1'} %`;
}

function short(value: number): string {
  return value >= 10 ? String(Math.round(value)) : String(Math.round(value * 10) / 10);
}

function duration(ms: number): string {
  return ms >= 1000 ? `${Math.round(ms / 100) / 10} s` : `${Math.round(ms)} ms`;
}

function capital(word: string): string {
  return word.slice(0, 1).toUpperCase() + word.slice(1);
}

/** `{10:42}` is put into the reader's time zone where it is shown. */
function clock(ms: number): string {
  return `{${Math.round(ms)}}`;
}
