export { readStaticEndpoints } from './endpoints.ts';
export { discoveryOptions, storeOptions } from './options.ts';
