import { busMistakes, busOptions } from '@llm-gateway/bus';
import { policyOptions, schedulingOptions } from '@llm-gateway/fleet';
import { checkRoutes, routeRemarks } from '@llm-gateway/route-config';
import { pdOptions, routeOptions } from '@llm-gateway/routing';
import { defineService, type OptionsOf } from '@llm-gateway/runtime';
import { tracingMistakes, tracingOptions, tracingRemarks } from '@llm-gateway/tracing';

export const options = defineService({
  name: 'router',
  description: 'Decides where requests go: applies the routing policy and chooses instances',
  example:
    'llm-gateway router --nats-servers nats://nats:4222 --scheduling-policy cache-aware # chooses by prompt caches',
  main: [
    'nats-servers',
    'scheduling-policy',
    'route-policy',
    'route-config',
    'pd-disagg-protocol',
    'config',
    'log-level',
    'admin-port',
  ],
  groups: [routeOptions, pdOptions, policyOptions, schedulingOptions, tracingOptions, busOptions],
  check: [busMistakes, tracingMistakes, ...checkRoutes],
  remarks: [routeRemarks, tracingRemarks],
});

export type Options = OptionsOf<typeof options>;
