/**
 * Flags of the guide; their names and defaults are fixed. `readRouteTable` checks what the two of a
 * route say together.
 */
export const routeOptions = {
  'route-policy': {
    type: 'string',
    default: '',
    choices: ['', 'weight', 'prefix'],
    live: true,
    description:
      'How requests are split over the endpoints of the route config: weight, prefix, or empty for no splitting',
  },
  'route-config': {
    type: 'string',
    list: 'rows',
    default: '',
    secret: true,
    live: true,
    description:
      'Endpoints as a JSON array of {base_url, api_key, api_key_file, auth_header, headers, add_v1, timeout_ms, model, fallback, weight, prefix, forward_auth}, or @FILE that holds it, which is followed while the service runs',
  },
} as const;

export const rehearsalOptions = {
  'next-route-config': {
    type: 'string',
    default: '',
    description:
      '@FILE with another route config, by which nothing is decided: what it would send elsewhere is counted. Followed while the service runs',
    validate: (value: string) => (value === '' || /^@./.test(value) ? undefined : 'allowed: @ and the path of a file'),
  },
} as const;

export const pdOptions = {
  'pd-disagg-protocol': {
    type: 'string',
    default: '',
    choices: ['', 'vllm-kvt', 'vllm-mooncake'],
    description: 'How prefill and decode engines hand over the KV cache; empty: engines serve whole requests',
  },
  'separate-pd-scheduling': {
    type: 'boolean',
    default: false,
    description: 'Choose the decode instance when the prefill has ended (staged) and not together with it (batched)',
  },
} as const;
