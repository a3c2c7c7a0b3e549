import { busMistakes, busOptions } from '@llm-gateway/bus';
import { defineService } from '@llm-gateway/runtime';
import { tracingMistakes, tracingOptions, tracingRemarks } from '@llm-gateway/tracing';
import { upstreamOptions } from '@llm-gateway/upstream';
import { targetsMistake } from './allowed-targets.ts';

export const mirrorSenderOptions = {
  'mirror-max-concurrency': {
    type: 'integer',
    default: 64,
    min: 1,
    max: 10_000,
    description: 'Maximum mirror copies sent at once',
  },
  'mirror-queue-size': {
    type: 'integer',
    default: 1000,
    min: 0,
    max: 20_000,
    description: 'Maximum mirror copies that wait to be sent; further ones are dropped',
  },
  'mirror-max-held-bytes': {
    type: 'integer',
    default: 268_435_456,
    min: 0,
    description: 'Maximum bytes of mirror copy bodies held, waiting or being sent; further copies are dropped',
  },
  'mirror-allowed-targets': {
    type: 'string',
    list: 'words',
    default: '',
    description:
      'Comma-separated mirror targets allowed for copies, as scheme://host:port; copies for others are dropped; empty: any',
    validate: targetsMistake,
  },
  'mirror-compare-wait-ms': {
    type: 'integer',
    default: 900_000,
    min: 1,
    max: 86_400_000,
    description: 'Time for which the answer of a copy waits for the answer of the client, to compare them',
  },
  'mirror-compare-log-percent': {
    type: 'number',
    default: 10,
    min: 0,
    max: 100,
    description: 'Comparisons to log, in percent',
  },
} as const;

export const options = defineService({
  name: 'mirror-sender',
  description: 'Sends the copies of mirrored requests to the mirror target',
  example: 'llm-gateway mirror-sender --nats-servers nats://nats:4222 # sends the copies of mirrored requests',
  main: ['nats-servers', 'mirror-allowed-targets', 'mirror-max-concurrency', 'config', 'log-level', 'admin-port'],
  groups: [mirrorSenderOptions, upstreamOptions, tracingOptions, busOptions],
  check: [busMistakes, tracingMistakes],
  remarks: tracingRemarks,
});
