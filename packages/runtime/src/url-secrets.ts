/** Names of parameters whose values are credentials, most likely. */
const credentialName = /key|token|secret|sig|auth|pass|cred/i;
/** Longer names are not parameters of secrets. */
const parameter = /([?&][^=&\s"]{1,64}=)([^&#\s",]*)/g;
const userinfo = /(?<=\/\/)[^/\s]*@|(?<![^\s/,@:"])[^\s/,@:"]+:[^\s/,@"]*@/g;

/** What a URL has for a query that is no parameter. */
const bareQuery = /(:\/\/[^\s"?#,]{1,2048}\?)[^=&\s"#,]+(?=[\s"#,]|$)/g;

/**
 * A text without the `user:password@`, with a scheme before it or without, and the values in
 * queries of its URLs.
 */
export function withoutUrlSecrets(text: string): string {
  // Most values hold none, and looking for one at each character of a long value takes long.
  const named = text.includes('@') ? text.replace(userinfo, '[redacted]@') : text;
  if (!named.includes('?')) return named;
  return named
    .replace(bareQuery, '$1[redacted]')
    .replace(parameter, (whole, name: string, value: string) => (value === '' ? whole : `${name}[redacted]`));
}

/**
 * The password of a URL and the credentials in its query, as they stand there and decoded; of any
 * other text none.
 */
export function secretsOfUrl(text: string): string[] {
  if (!text.includes('://')) return [];
  const url = URL.parse(text);
  if (url === null) return [];
  const inQuery = [...text.matchAll(parameter)].filter(([, name = '']) => credentialName.test(name));
  const written = [url.password, ...inQuery.map(([, , value = '']) => value)].filter((one) => one !== '');
  return [...new Set(written.flatMap((one) => [one, decoded(one)]))];
}

/** `Bearer%20x` as what it stands for; what is encoded wrongly stays as it is. */
function decoded(text: string): string {
  try {
    return decodeURIComponent(text.replaceAll('+', ' '));
  } catch {
    return text;
  }
}

/**
 * Variables of standards that hold credentials beside those of flags: of proxies, and of the
 * collector of traces.
 */
export function environmentSecrets(
  env: Readonly<Record<string, string | undefined>>,
): readonly (readonly [name: string, value: string])[] {
  const proxies = ['HTTP_PROXY', 'HTTPS_PROXY'].flatMap((name) =>
    [name, name.toLowerCase()].flatMap((one) => secretsOfUrl(env[one] ?? '').map((secret) => [one, secret] as const)),
  );
  const headers = ['OTEL_EXPORTER_OTLP_HEADERS', 'OTEL_EXPORTER_OTLP_TRACES_HEADERS'].flatMap((name) =>
    (env[name] ?? '').split(',').flatMap((pair, at) => {
      const value = decoded(pair.slice(pair.indexOf('=') + 1).trim());
      return value === '' ? [] : [[`${name}[${at}]`, value] as const];
    }),
  );
  return [...proxies, ...headers];
}
