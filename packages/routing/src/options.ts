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
      'Policy that splits requests over the endpoints of the route config: weight, prefix, or empty for none',
  },
  'route-config': {
    type: 'string',
    list: 'rows',
    default: '',
    secret: true,
    live: true,
    description:
      'Endpoints as a JSON array of {base_url, api_key, api_key_file, auth_header, headers, add_v1, timeout_ms, model, fallback, weight, prefix, forward_auth}, or @FILE with that array, which is reloaded when it changes',
  },
} as const;

export const rehearsalOptions = {
  'next-route-config': {
    type: 'string',
    default: '',
    description:
      '@FILE with a route config to rehearse: requests that it would route differently are counted, but not affected. Reloaded when it changes',
    validate: (value: string) => (value === '' || /^@./.test(value) ? undefined : 'allowed: @ and the path of a file'),
  },
} as const;

export const pdOptions = {
  'pd-disagg-protocol': {
    type: 'string',
    default: '',
    choices: ['', 'vllm-kvt', 'vllm-mooncake'],
    description:
      'Protocol by which prefill and decode engines hand over the KV cache; empty: engines serve whole requests',
  },
  'separate-pd-scheduling': {
    type: 'boolean',
    default: false,
    description:
      'Choose the decode instance after the prefill has ended (staged) instead of together with it (batched)',
  },
} as const;
