import { readFileSync } from 'node:fs';
import {
  filesOfRows,
  type RouteTable,
  readRoutes,
  routeChanges,
  routeConfigFile,
  routeTable,
  secretsOf,
} from '@llm-gateway/routing';
import { FollowedFile, type Metrics } from '@llm-gateway/runtime';

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
  /** Hides a value in the log from now on; `name` says whose it is. */
  readonly hide?: (name: string, value: string) => void;
  /** Is called with each table that a changed file holds. */
  readonly onChange: (table: RouteTable) => void;
}

export interface FollowedRoutes extends Disposable {
  /** As it was at the start. */
  readonly first: RouteTable;
}

/** Each row may name a file for its key. */
const maxConfigBytes = 4 * 1024 * 1024;

/**
 * Reads the route config, and follows its file, if it is in one, with the files of its keys. A file that cannot be used leaves
 * the last good table in effect. Throws `invalid_config` when it cannot be read now.
 */
export function followRoutes(
  settings: RouteSettings,
  { log, metrics, hide = () => {}, onChange }: Deps,
): FollowedRoutes {
  const path = routeConfigFile(settings.routeConfig);
  const texts = new Map<string, string>();
  const readFile = (name: string) => {
    const text = readFileSync(name, 'utf8');
    texts.set(name, text);
    return text;
  };
  const first = routeTable(settings, readFile, (line) => log.warn(line));
  const hideKeys = ({ endpoints }: RouteTable) => {
    for (const endpoint of endpoints) {
      for (const [field, value] of secretsOf(endpoint)) hide(`route-config[${endpoint.index}]${field}`, value);
    }
  };
  hideKeys(first);
  if (path === undefined) return { first, [Symbol.dispose]() {} };

  const text = texts.get(path) ?? '';
  texts.delete(path);
  let current = first;
  let warnings: readonly string[] = [];
  const file = new FollowedFile<RouteTable>({
    path,
    intervalMs: settings.configRefreshIntervalMs,
    maxBytes: maxConfigBytes,
    what: 'route config',
    metric: 'route_config',
    initial: first,
    initialFinding: { text, others: texts },
    others: filesOfRows,
    read(found, other) {
      const reading = readRoutes(settings, (name) => (name === path ? found : other(name)));
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
  return { first, [Symbol.dispose]: () => file[Symbol.dispose]() };
}
