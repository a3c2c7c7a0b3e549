import type { OptionGroup } from './option-table.ts';

/**
 * Flags of the services that other processes reach over HTTP. Only holders of a one-time token get
 * anything there.
 */
export const internalOptions = {
  'internal-host': {
    type: 'string',
    default: '::',
    description: 'Address to listen on for other services of the gateway; announced as --advertise-host if that is set',
  },
  'internal-port': {
    type: 'integer',
    default: 0,
    min: 0,
    max: 65535,
    description: 'Port to listen on for other services of the gateway; 0: any free port',
  },
} as const satisfies OptionGroup;
