import { type BusSettings, busMistakes, busOptions } from '@llm-gateway/bus';
import { defineService, type OptionGroup, type OptionsOf, type OptionValues } from '@llm-gateway/runtime';
import { isLoopback } from './access.ts';

const maxHeaderLength = 100;

export const consoleOptions = {
  'console-host': {
    type: 'string',
    default: '127.0.0.1',
    description:
      'Address of the console page; any but loopback requires --console-password or --console-identity-header',
  },
  'console-port': {
    type: 'integer',
    default: 8088,
    min: 0,
    max: 65535,
    description: 'Port of the console page; 0: any free port, shown in the log',
  },
  'console-password': {
    type: 'string',
    default: '',
    secret: true,
    description: 'Password of the console page; empty: none, allowed on loopback only',
  },
  'console-identity-header': {
    type: 'string',
    default: '',
    description:
      'Header in which a proxy in front of the console names the user, such as x-forwarded-user; requests without it are rejected. Only that proxy must be able to reach the console',
    validate: (value) =>
      value === '' || (value.length <= maxHeaderLength && /^[A-Za-z0-9-]+$/.test(value))
        ? undefined
        : 'allowed: the name of a header',
  },
  'console-actions': {
    type: 'boolean',
    default: false,
    description: 'Allow drain, undrain, eject and readmit from the console; otherwise it is read-only',
  },
  'console-ingress': {
    type: 'string',
    default: '',
    description: 'Base URL of an ingress to which the page sends test requests; empty: it sends none',
    validate: (value) =>
      value === '' || isOrigin(value) ? undefined : 'allowed: http://host:port or https://host:port',
  },
} as const satisfies OptionGroup;

export type ConsoleValues = OptionValues<readonly [typeof consoleOptions]>;

/** What must hold between the flags. */
export function consoleMistakes(values: ConsoleValues): string[] {
  const { consoleHost, consolePassword, consoleIdentityHeader } = values;
  if (isLoopback(consoleHost) || consolePassword !== '' || consoleIdentityHeader !== '') return [];
  return [
    `--console-host: ${consoleHost} is not loopback; allowed with --console-password, --console-password-file or --console-identity-header`,
  ];
}

export const options = defineService({
  name: 'console',
  description: 'Live page of the whole gateway, and its API; not in the path of any request',
  example:
    'llm-gateway console --nats-servers nats://nats:4222 --console-ingress http://ingress:8089 # a page on 127.0.0.1:8088',
  main: [
    'nats-servers',
    'console-host',
    'console-port',
    'console-password',
    'console-identity-header',
    'console-actions',
    'console-ingress',
    'config',
    'log-level',
  ],
  groups: [consoleOptions, busOptions],
  check: (values) => [...consoleMistakes(values), ...busMistakes(values)],
});

/** The options that the service reads itself; its caller creates the bus. */
export type Settings = Omit<OptionsOf<typeof options>, Exclude<keyof BusSettings, 'namespace'>>;

function isOrigin(value: string): boolean {
  const url = URL.parse(value);
  return url !== null && ['http:', 'https:'].includes(url.protocol) && url.pathname === '/' && url.username === '';
}
