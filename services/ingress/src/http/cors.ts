import { HeaderLines, type RequestHead } from '@llm-gateway/http1';

/** The flags of `clientOptions` that say which pages of other origins may call the gateway. */
export interface CorsSettings {
  readonly corsAllowOrigin: string;
  readonly corsAllowMethods: string;
  readonly corsAllowHeaders: string;
  readonly corsMaxAgeS: number;
}

/** Names that an upstream's answer must not set where the gateway says who may read it. */
export const corsHeaderNames = [
  'access-control-allow-origin',
  'access-control-allow-credentials',
  'access-control-allow-headers',
  'access-control-allow-methods',
  'access-control-expose-headers',
  'access-control-max-age',
] as const;

const maxOrigins = 100;
const token = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/;
const origin = /^[a-z][a-z0-9+.-]*:\/\/[A-Za-z0-9._:[\]-]+$/;

/**
 * The Fetch standard's CORS protocol: browsers ask before they send what a plain form could not,
 * and read answers only where these say so. No cookies are part of it: credentials are keys that a
 * page sends itself.
 */
export class Cors {
  /** Null: every origin. */
  readonly #origins: ReadonlySet<string> | null;
  readonly #methods: string;
  /** Null: what was asked for. */
  readonly #headers: string | null;
  readonly #maxAgeS: number;

  private constructor({ corsAllowOrigin, corsAllowMethods, corsAllowHeaders, corsMaxAgeS }: CorsSettings) {
    this.#origins = corsAllowOrigin.trim() === '*' ? null : new Set(itemsOf(corsAllowOrigin));
    this.#methods = itemsOf(corsAllowMethods).join(', ');
    this.#headers = corsAllowHeaders.trim() === '*' ? null : itemsOf(corsAllowHeaders).join(', ');
    this.#maxAgeS = corsMaxAgeS;
  }

  /** Of flags without mistakes. Null when they allow no origin. */
  static of(settings: CorsSettings): Cors | null {
    return settings.corsAllowOrigin.trim() === '' ? null : new Cors(settings);
  }

  isPreflight(head: RequestHead): boolean {
    if (head.method !== 'OPTIONS' || head.noted('origin') === undefined) return false;
    return head.noted('access-control-request-method') !== undefined;
  }

  /** The answer to a preflight: what the origin may send, or no headers if it is not allowed. */
  preflight(head: RequestHead): HeaderLines {
    // With some origins `linesFor` says `Origin` itself.
    const origin = this.#origins === null ? 'Origin, ' : '';
    const headers = ['vary', `${origin}Access-Control-Request-Method, Access-Control-Request-Headers`];
    if (this.#allows(head.noted('origin'))) {
      // A wildcard would not hold for `authorization`.
      const allowed = this.#headers ?? head.noted('access-control-request-headers') ?? '';
      headers.push('access-control-allow-methods', this.#methods);
      if (allowed !== '') headers.push('access-control-allow-headers', allowed);
      headers.push('access-control-max-age', String(this.#maxAgeS));
    }
    return HeaderLines.of(headers);
  }

  /**
   * The lines of each answer to a request.
   * @param asking the request's `origin`; undefined without one
   */
  linesFor(asking: string | undefined): string {
    if (this.#origins === null) return asking === undefined ? '' : anyOrigin;
    // Caches must not show one origin's answer to another.
    if (asking === undefined || !this.#origins.has(asking)) return varyLine;
    return `access-control-allow-origin: ${asking}\r\n${exposeLine}${varyLine}`;
  }

  #allows(asking: string | undefined): boolean {
    return asking !== undefined && (this.#origins === null || this.#origins.has(asking));
  }
}

const exposeLine = 'access-control-expose-headers: *\r\n';
const varyLine = 'vary: Origin\r\n';
const anyOrigin = `access-control-allow-origin: *\r\n${exposeLine}`;

/** What is wrong with the flags, a line each. */
export function corsMistakes({ corsAllowOrigin, corsAllowMethods, corsAllowHeaders }: CorsSettings): string[] {
  const mistakes: string[] = [];
  const origins = corsAllowOrigin.trim() === '*' ? [] : itemsOf(corsAllowOrigin);
  if (origins.length > maxOrigins) {
    mistakes.push(`--cors-allow-origin: read ${origins.length} origins, allowed: at most ${maxOrigins}, or *`);
  }
  for (const item of origins.filter((one) => !origin.test(one)).slice(0, 5)) {
    mistakes.push(
      `--cors-allow-origin: read ${JSON.stringify(item)}, allowed: * alone, or origins such as https://app.example.com, without a path`,
    );
  }
  for (const [flag, list] of [
    ['methods', corsAllowMethods],
    ['headers', corsAllowHeaders],
  ] as const) {
    const wrong = itemsOf(list).find((item) => !token.test(item));
    if (wrong !== undefined)
      mistakes.push(`--cors-allow-${flag}: read ${JSON.stringify(wrong)}, allowed: names of ${flag}`);
  }
  return mistakes;
}

function itemsOf(list: string): string[] {
  return list.split(',').flatMap((item) => item.trim() || []);
}
