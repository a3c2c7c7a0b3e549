import { createHash, randomBytes, timingSafeEqual } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import { isIP } from 'node:net';

/** How somebody who asks is known. */
export type Visitor =
  /** `who` appears in the events of what is ordered. */
  | { readonly kind: 'allowed'; readonly who: string }
  /** Has to give the password first. */
  | { readonly kind: 'stranger' }
  /** Came by a name that is not this machine's, as after DNS rebinding, or not through the proxy. */
  | { readonly kind: 'refused' };

const cookieName = 'llm-gateway-console';
const sessionMs = 12 * 3_600_000;
const maxSessions = 1000;
const maxWho = 100;
/** After a wrong password the next try counts only so much later. */
const triesPauseMs = 500;
const maxReturnPath = 2048;
const maxWaitingTries = 20;

/** Who may see the page, and who may act. */
export class Access {
  readonly #password: Buffer | null;
  readonly #header: string;
  /** Session ids are random, and held as digests. */
  readonly #sessions = new Map<string, number>();
  #nextTryMs = 0;

  constructor(settings: { readonly password: string; readonly identityHeader: string }) {
    this.#password = settings.password === '' ? null : digest(settings.password);
    this.#header = settings.identityHeader.toLowerCase();
  }

  get asksPassword(): boolean {
    return this.#password !== null;
  }

  visitor(request: IncomingMessage): Visitor {
    if (this.#header !== '') {
      const name = request.headers[this.#header];
      const who = typeof name === 'string' ? printable(name) : '';
      return who === '' ? { kind: 'refused' } : { kind: 'allowed', who };
    }
    if (this.#password !== null) {
      return this.#hasSession(request) || this.#hasBearer(request)
        ? { kind: 'allowed', who: 'console' }
        : { kind: 'stranger' };
    }
    // Without a password only this machine is let in, and a page elsewhere whose name leads here is
    // not this machine.
    return isLoopback(hostOf(request)) ? { kind: 'allowed', who: 'console' } : { kind: 'refused' };
  }

  /**
   * `nowMs` is monotonic. The cookie of a new session; null for a wrong password. Tries are taken
   * one after the other, slowly after a wrong one.
   */
  login(password: string, nowMs: number): string | null | 'later' {
    if (this.#password === null) return null;
    if (this.#nextTryMs - nowMs > maxWaitingTries * triesPauseMs || nowMs < this.#nextTryMs) return 'later';
    if (!timingSafeEqual(digest(password), this.#password)) {
      this.#nextTryMs = nowMs + triesPauseMs;
      return null;
    }
    for (const [id, untilMs] of this.#sessions) if (untilMs <= nowMs) this.#sessions.delete(id);
    if (this.#sessions.size >= maxSessions) this.#sessions.delete(this.#sessions.keys().next().value ?? '');
    const id = randomBytes(24).toString('base64url');
    this.#sessions.set(digest(id).toString('hex'), nowMs + sessionMs);
    return `${cookieName}=${id}; Path=/; HttpOnly; SameSite=Strict; Max-Age=${sessionMs / 1000}`;
  }

  logout(request: IncomingMessage): string {
    const id = cookieOf(request);
    if (id !== undefined) this.#sessions.delete(digest(id).toString('hex'));
    return `${cookieName}=; Path=/; HttpOnly; SameSite=Strict; Max-Age=0`;
  }

  #hasSession(request: IncomingMessage): boolean {
    const id = cookieOf(request);
    const untilMs = id === undefined ? undefined : this.#sessions.get(digest(id).toString('hex'));
    return untilMs !== undefined && untilMs > performance.now();
  }

  /** For programs, which have no cookies. */
  #hasBearer({ headers }: IncomingMessage): boolean {
    const [, given] = /^Bearer (.+)$/.exec(headers.authorization ?? '') ?? [];
    return given !== undefined && this.#password !== null && timingSafeEqual(digest(given), this.#password);
  }
}

/**
 * Whether a request that changes something comes from our own page, or from a program: browsers say
 * where a request comes from, and send our header across origins only after asking, which nobody
 * answers.
 */
export function isOwnAction({ headers }: IncomingMessage): boolean {
  const site = headers['sec-fetch-site'];
  if (site !== undefined && site !== 'same-origin') return false;
  if (headers.origin !== undefined && URL.parse(headers.origin)?.host !== headers.host) return false;
  return headers['x-console-action'] === '1';
}

/**
 * Whether another page makes the browser ask. It could not read the answer, but take the place of a
 * viewer, or have routers asked.
 */
export function isOtherPage({ headers }: IncomingMessage): boolean {
  const site = headers['sec-fetch-site'];
  return site === 'cross-site' || site === 'same-site';
}

/** The address of the page that asks for the password, and then returns to `path`. */
export function loginPath(path: string, outcome: '' | 'wrong' | 'later' = ''): string {
  const back = returnPath(path);
  const query = [outcome, back === '/' ? '' : `next=${encodeURIComponent(back)}`].filter((part) => part !== '');
  return query.length === 0 ? '/login' : `/login?${query.join('&')}`;
}

/**
 * Where somebody goes who gave the password: `path` if it is one of this console, otherwise `/`. A
 * browser takes `//` and `/\` for the start of another host, and leaves out tabs and line ends.
 */
export function returnPath(path: string | null): string {
  if (path === null || path.length > maxReturnPath || !/^\/(?![/\\])[\x21-\x7e]*$/.test(path)) return '/';
  return path.split('?', 1)[0] === '/login' ? '/' : path;
}

/** Whether a listener at this host, or a URL with it, stays on this machine. */
export function isLoopback(host: string): boolean {
  const bare = host.startsWith('[') && host.endsWith(']') ? host.slice(1, -1) : host;
  return bare === 'localhost' || bare === '::1' || (isIP(bare) === 4 && bare.startsWith('127.'));
}

function hostOf({ headers }: IncomingMessage): string {
  return URL.parse(`http://${headers.host ?? ''}`)?.hostname ?? '';
}

function cookieOf({ headers }: IncomingMessage): string | undefined {
  for (const pair of (headers.cookie ?? '').split(';')) {
    const [name, value] = pair.trim().split('=', 2);
    if (name === cookieName && value !== undefined && value !== '') return value;
  }
  return undefined;
}

function printable(name: string): string {
  return name
    .replaceAll(/[^\x20-\x7e]/g, '')
    .trim()
    .slice(0, maxWho);
}

function digest(text: string): Buffer {
  return createHash('sha256').update(text).digest();
}
