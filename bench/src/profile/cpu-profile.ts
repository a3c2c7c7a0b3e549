/**
 * The parts of V8's `.cpuprofile` that are read here. Times are microseconds of the machine's
 * monotonic clock.
 */
export interface CpuProfile {
  readonly nodes: readonly {
    readonly id: number;
    readonly callFrame: { readonly functionName: string; readonly url: string; readonly lineNumber: number };
  }[];
  readonly startTime: number;
  /** The node that ran at each sample, and the time since the sample before. */
  readonly samples: readonly number[];
  readonly timeDeltas: readonly number[];
}

export interface Entry {
  readonly name: string;
  /**
   * File and line, or what it belongs to; empty for what is no function, such as the garbage
   * collector.
   */
  readonly where: string;
  readonly micros: number;
}

export interface Summary {
  /** Time in which the process was not idle. */
  readonly busyMicros: number;
  /** By function, those with the most time of their own first. */
  readonly functions: readonly Entry[];
  /** By package, folder of ours, or part of Node.js. */
  readonly origins: readonly Entry[];
}

/**
 * Self time between two moments: what came before the load, such as loading modules, is not the hot
 * path.
 */
export function summarize(
  profile: CpuProfile,
  { fromMicros, toMicros, root }: { fromMicros: number; toMicros: number; root: string },
): Summary {
  const self = new Map<number, number>();
  let at = profile.startTime;
  for (const [index, delta] of profile.timeDeltas.entries()) {
    at += delta;
    const node = profile.samples[index];
    if (node !== undefined && at >= fromMicros && at <= toMicros) self.set(node, (self.get(node) ?? 0) + delta);
  }
  const functions = new Map<string, Entry>();
  const origins = new Map<string, Entry>();
  let busyMicros = 0;
  for (const { id, callFrame } of profile.nodes) {
    const micros = self.get(id) ?? 0;
    if (micros === 0 || callFrame.functionName === '(idle)') continue;
    busyMicros += micros;
    const file = place(callFrame.url, root);
    const name = callFrame.functionName === '' ? '(anonymous)' : callFrame.functionName;
    add(functions, { name, where: file === '' ? '' : `${file}:${callFrame.lineNumber + 1}`, micros });
    add(origins, { name: origin(file, name), where: '', micros });
  }
  return { busyMicros, functions: sorted(functions), origins: sorted(origins) };
}

function add(entries: Map<string, Entry>, entry: Entry): void {
  const key = `${entry.name} ${entry.where}`;
  entries.set(key, { ...entry, micros: entry.micros + (entries.get(key)?.micros ?? 0) });
}

function sorted(entries: ReadonlyMap<string, Entry>): Entry[] {
  return [...entries.values()].toSorted((a, b) => b.micros - a.micros);
}

/** Relative to the repository; `node:…` as it is. */
function place(url: string, root: string): string {
  const path = url.startsWith('file://') ? decodeURIComponent(url.slice('file://'.length)) : url;
  return path.startsWith(`${root}/`) ? path.slice(root.length + 1) : path;
}

/**
 * The package of a file, ours or another one. Work of V8 itself has no file, but a name in
 * parentheses.
 */
function origin(file: string, name: string): string {
  if (file === '') return name.startsWith('(') && name !== '(anonymous)' ? name : 'native functions of Node.js';
  if (file.startsWith('wasm:')) return 'WebAssembly (the HTTP parser of undici)';
  const installed = file.lastIndexOf('node_modules/');
  if (installed >= 0) {
    const [scope = '', name = ''] = file.slice(installed + 'node_modules/'.length).split('/');
    return scope.startsWith('@') ? `${scope}/${name}` : scope;
  }
  return file.split('/').slice(0, 2).join('/');
}
