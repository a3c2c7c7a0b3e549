import {
  filesOfRows,
  type RouteTable,
  readRoutes,
  routeChanges,
  routeChecks,
  routeConfigFile,
  routeTable,
  secretsOf,
} from '@llm-gateway/routing';
import { FollowedFile, type LiveOptions, type Metrics, nearest, readRegularFile } from '@llm-gateway/runtime';

/** The flags that say what the routes are. */
export interface RouteSettings {
  readonly routePolicy: string;
  readonly routeConfig: string;
  readonly pdDisaggProtocol?: string;
  readonly separatePdScheduling?: boolean;
  readonly configRefreshIntervalMs: number;
}

interface Deps {
  readonly log: {
    info(fields: object, message: string): void;
    warn(message: string): void;
    error(fields: object, message: string): void;
  };
  readonly metrics: Metrics;
  /** Which of the files this is; that in effect when absent. */
  readonly isNext?: boolean;
  /** Hides a value in the log from now on; `name` says whose it is. */
  readonly hide?: (name: string, value: string) => void;
  /** Where flags may change while the process runs. */
  readonly options?: Pick<LiveOptions, 'onChange'> | null;
  /** Is called with each table that is to be used from now on. */
  readonly onChange: (table: RouteTable) => void;
}

export interface FollowedRoutes extends Disposable {
  /** As it was at the start. */
  readonly first: RouteTable;
}

/** Each row may name a file for its key. */
const maxConfigBytes = 4 * 1024 * 1024;

/**
 * The text of a route config, or of the file of a key. Throws when it cannot be read or is too
 * large.
 */
export function readRouteFile(path: string): string {
  return readRegularFile(path, maxConfigBytes);
}

/** What is wrong with the flags of the routes, for the `check` of a service. */
export const checkRoutes = routeChecks({ readFile: readRouteFile });

/** What of the route config is ignored, for `validate`. */
export function routeRemarks({ routePolicy, routeConfig }: { routePolicy: string; routeConfig: string }): string[] {
  const reading = readRoutes({ routePolicy, routeConfig }, { readFile: readRouteFile, nearest });
  return 'mistakes' in reading ? [] : [...reading.warnings];
}

/** The same for the flag of a rehearsal. */
export function checkNextRoutes({
  routePolicy,
  nextRouteConfig,
}: {
  routePolicy: string;
  nextRouteConfig: string;
}): string[] {
  if (nextRouteConfig === '') return [];
  const values = { routePolicy, routeConfig: nextRouteConfig };
  return checkRoutes
    .flatMap((check) => check(values))
    .map((mistake) => mistake.replaceAll('--route-config', '--next-route-config'));
}

/**
 * Reads the route config, and follows its file, if it is in one, with the files of its keys, and
 * the flags of the routes where they may change. What cannot be used leaves the last good table in
 * effect. Throws `invalid_config` when it cannot be read now.
 */
export function followRoutes(settings: RouteSettings, deps: Deps): FollowedRoutes {
  const { log, onChange, options } = deps;
  const change = (table: RouteTable) => {
    current = table;
    onChange(table);
  };
  let source = new RouteSource(settings, deps, change);
  const { first } = source;
  let current = first;
  const listening = options?.onChange((values) => {
    const { routePolicy, routeConfig } = { ...settings, ...strings(values) };
    if (routePolicy === source.settings.routePolicy && routeConfig === source.settings.routeConfig) return;
    try {
      const next = new RouteSource({ ...settings, routePolicy, routeConfig }, deps, change);
      source[Symbol.dispose]();
      source = next;
    } catch (error) {
      // It was checked a moment ago, so that its file changed since.
      const mistake = error instanceof Error ? error.message : String(error);
      log.error({ mistake }, 'route config cannot be used; keeping the one in effect');
      return;
    }
    const changes = routeChanges(current, source.first);
    log.info({ routes: source.first.generation, changes }, 'route config in effect');
    change(source.first);
  });
  return {
    first,
    [Symbol.dispose]() {
      listening?.[Symbol.dispose]();
      source[Symbol.dispose]();
    },
  };
}

function strings(
  values: Readonly<Record<string, unknown>>,
): Partial<Pick<RouteSettings, 'routePolicy' | 'routeConfig'>> {
  const { routePolicy, routeConfig } = values;
  return {
    ...(typeof routePolicy === 'string' && { routePolicy }),
    ...(typeof routeConfig === 'string' && { routeConfig }),
  };
}

/** One pair of flags, and the files that they name. */
class RouteSource implements Disposable {
  readonly settings: RouteSettings;
  /** As the files were when it was made. */
  readonly first: RouteTable;
  readonly #file: FollowedFile<RouteTable> | undefined;

  constructor(
    settings: RouteSettings,
    { log, metrics, isNext = false, hide = () => {} }: Deps,
    onChange: (table: RouteTable) => void,
  ) {
    this.settings = settings;
    const texts = new Map<string, string>();
    const readNoting = (name: string) => {
      const text = readRouteFile(name);
      texts.set(name, text);
      return text;
    };
    this.first = routeTable(settings, { readFile: readNoting, nearest }, (line) => log.warn(line));
    const hideKeys = ({ endpoints }: RouteTable) => {
      for (const endpoint of endpoints) {
        for (const [field, value] of secretsOf(endpoint))
          hide(`${isNext ? 'next-' : ''}route-config[${endpoint.index}]${field}`, value);
      }
    };
    hideKeys(this.first);
    const path = routeConfigFile(settings.routeConfig);
    if (path === undefined) return;

    const text = texts.get(path) ?? '';
    texts.delete(path);
    let current = this.first;
    let warnings: readonly string[] = [];
    this.#file = new FollowedFile<RouteTable>({
      path,
      intervalMs: settings.configRefreshIntervalMs,
      maxBytes: maxConfigBytes,
      what: isNext ? 'next route config' : 'route config',
      metric: isNext ? 'next_route_config' : 'route_config',
      initial: current,
      initialFinding: { text, others: texts },
      others: filesOfRows,
      read(found, other) {
        const reading = readRoutes(settings, {
          readFile: (name) => (name === path ? found : other(name)),
          nearest,
        });
        if ('mistakes' in reading) return { mistake: reading.mistakes.join('; ') };
        warnings = reading.warnings;
        return { value: reading.table };
      },
      shown: (table) => ({ routes: table.generation, changes: routeChanges(current, table) }),
      onChange(table) {
        current = table;
        hideKeys(table);
        for (const warning of warnings) log.warn(warning);
        onChange(table);
      },
      log,
      metrics,
    });
  }

  [Symbol.dispose](): void {
    this.#file?.[Symbol.dispose]();
  }
}
