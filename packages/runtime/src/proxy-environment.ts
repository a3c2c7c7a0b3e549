/** The proxies that the usual variables of the environment name; empty: none. */
export interface ProxyEnvironment {
  readonly httpProxy: string;
  readonly httpsProxy: string;
  /** Comma-separated hosts that are called directly. */
  readonly noProxy: string;
}

/**
 * Reads `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY`, whose names in small letters come first.
 * Without `HTTPS_PROXY` the other proxy takes all. Null when there is no proxy. A mistake repeats
 * no value, which may hold a password.
 */
export function readProxies(
  environment: Readonly<Record<string, string | undefined>>,
): { readonly proxies: ProxyEnvironment | null } | { readonly mistakes: readonly string[] } {
  const valueIn = (name: string) => environment[name.toLowerCase()] || environment[name] || '';
  const named = ['HTTP_PROXY', 'HTTPS_PROXY'].filter((name) => valueIn(name) !== '');
  const mistakes = named.filter((name) => !isProxyUrl(valueIn(name)));
  if (mistakes.length > 0) {
    return { mistakes: mistakes.map((name) => `${name} in the environment: allowed: an http or https URL`) };
  }
  if (named.length === 0) return { proxies: null };
  const httpProxy = valueIn('HTTP_PROXY');
  const noProxy = [valueIn('NO_PROXY'), ...loopback].filter((host) => host !== '').join();
  return { proxies: { httpProxy, httpsProxy: valueIn('HTTPS_PROXY') || httpProxy, noProxy } };
}

/** No proxy reaches this machine's own. */
const loopback = ['localhost', '127.0.0.1', '::1'];

function isProxyUrl(text: string): boolean {
  return /^https?:\/\/[^/]/i.test(text) && URL.canParse(text);
}
