import type { IncomingMessage } from 'node:http';
import type { ExplainQuery } from '@llm-gateway/protocol';
import type { Describe, InternalServerOptions, Logger } from '@llm-gateway/runtime';
import type { Watch } from '@llm-gateway/watch';
import { type Access, isOtherPage, isOwnAction, loginPath, returnPath } from './access.ts';
import { act } from './actions.ts';
import { type Asset, contentSecurityPolicy } from './assets.ts';
import { type Live, type Topic, topics } from './live.ts';
import { readObject, readText } from './posted-body.ts';
import type { Trials } from './trial.ts';

type App = Parameters<InternalServerOptions['routes']>[0];

interface RouteParts {
  readonly watch: Watch;
  readonly live: Live;
  readonly access: Access;
  readonly trials: Trials;
  readonly actions: boolean;
  readonly log: Pick<Logger, 'info' | 'warn'>;
  readonly assets: ReadonlyMap<string, Asset>;
  readonly describe: Describe;
}

/** Views have a path each, so that they can be linked; the page is one. */
const views = ['/', '/engines', '/requests', '/routes', '/clients', '/mirror', '/processes', '/events', '/try'];
/** What somebody sees who has not given the password. */
const open: ReadonlySet<string> = new Set(['/login', '/style.css']);
const maxRows = 500;
const maxEvents = 5000;

const securityHeaders: Readonly<Record<string, string>> = {
  'content-security-policy': contentSecurityPolicy,
  'x-content-type-options': 'nosniff',
  'referrer-policy': 'no-referrer',
  'cross-origin-opener-policy': 'same-origin',
  'cross-origin-resource-policy': 'same-origin',
  'x-frame-options': 'DENY',
};

/** Adds the page and its API to the server. */
export function routes(app: App, parts: RouteParts): void {
  const { watch, live, access, trials, actions, assets } = parts;
  const people = new WeakMap<IncomingMessage, string>();

  app.addHook('onRequest', async (request, reply) => {
    for (const [name, value] of Object.entries(securityHeaders)) {
      reply.header(name, value);
      // What is sent past fastify has them as well.
      reply.raw.setHeader(name, value);
    }
    const path = request.url.split('?', 1)[0] ?? '';
    if (path.startsWith('/api/') && isOtherPage(request.raw)) return reply.code(403).send({ status: 'refused' });
    const visitor = access.visitor(request.raw);
    if (visitor.kind === 'allowed') people.set(request.raw, visitor.who);
    else if (visitor.kind === 'refused') return reply.code(403).send({ status: 'refused' });
    else if (!open.has(path)) {
      return path.startsWith('/api/') || request.method !== 'GET'
        ? reply.code(401).send({ status: 'unauthorized' })
        : reply.code(303).header('location', loginPath(request.url)).send();
    }
    return undefined;
  });

  const file = (url: string, name: string) => {
    const asset = assets.get(name);
    if (asset === undefined) throw new Error(`the page has no ${name}`);
    app.get(url, (request, reply) => {
      reply
        .header('etag', asset.etag)
        .header('cache-control', 'no-cache')
        .header('vary', 'accept-encoding')
        .type(asset.type);
      if (request.headers['if-none-match'] === asset.etag) return reply.code(304).send();
      const encodings = String(request.headers['accept-encoding'] ?? '');
      if (/\bbr\b/.test(encodings)) return reply.header('content-encoding', 'br').send(asset.br);
      if (/\bgzip\b/.test(encodings)) return reply.header('content-encoding', 'gzip').send(asset.gzip);
      return reply.send(asset.plain);
    });
  };
  for (const view of views) file(view, '/');
  for (const path of assets.keys()) if (!views.includes(path)) file(path, path);

  const json = (path: string, make: (query: URLSearchParams) => unknown) => {
    app.get(path, (request, reply) => {
      const found = make(new URLSearchParams(request.url.split('?', 2)[1] ?? ''));
      reply.header('cache-control', 'no-store');
      return found === undefined ? reply.code(404).send({ status: 'not_found' }) : reply.send(found);
    });
  };
  app.get('/api/me', (request, reply) => {
    const { version, upMs } = parts.describe();
    const who = people.get(request.raw) ?? '';
    return reply.header('cache-control', 'no-store').send({
      who,
      actions,
      trials: trials.on,
      ingressPort: trials.port,
      password: access.asksPassword,
      version,
      upMs,
    });
  });
  json('/api/state', () => live.state());
  json('/api/series', (query) =>
    query.get('span') === 'day' ? watch.minutes.columns(Date.now()) : watch.seconds.columns(Date.now()),
  );
  json('/api/requests', (query) => ({
    total: watch.requests.total,
    rows: watch.requests.latest(countOf(query.get('limit'), 100, maxRows), { text: query.get('q') ?? '' }),
  }));
  json('/api/request', (query) => watch.requests.get(query.get('id') ?? ''));
  json('/api/events', (query) => watch.events.latest(countOf(query.get('limit'), 200, maxEvents)));

  app.get('/api/explain', async (request, reply) => {
    reply.header('cache-control', 'no-store');
    const asked = readExplain(new URLSearchParams(request.url.split('?', 2)[1] ?? ''));
    if (asked === null) return reply.code(400).send({ status: 'invalid' });
    try {
      return reply.send(await watch.explain(asked));
    } catch {
      return reply.code(503).send({ status: 'no_router' });
    }
  });

  app.get('/api/live', (request, reply) => {
    if (live.isFull) return reply.code(503).send({ status: 'too_many_viewers' });
    const query = new URLSearchParams(request.url.split('?', 2)[1] ?? '');
    const wanted = new Set((query.get('topics') ?? '').split(',').filter(isTopic));
    // The server waits for the end of the request, however short it is.
    request.raw.resume();
    reply.hijack();
    live.add(reply.raw, { topics: wanted, filter: query.get('q') ?? '' });
    return reply;
  });

  app.post('/api/actions', async (request, reply) => {
    if (!isOwnAction(request.raw)) return reply.code(403).send({ result: 'refused', message: 'Not from this page.' });
    if (!actions) {
      const message = 'This console only shows. It acts when it was started with --console-actions.';
      return reply.code(403).send({ result: 'read_only', message });
    }
    const asked = readObject(await readText(request.raw));
    if (asked === null) return reply.code(400).send({ result: 'invalid', message: 'The body is not a JSON object.' });
    const { status, body } = await act(watch, asked, people.get(request.raw) ?? 'console');
    return reply.code(status).send(body);
  });

  app.post('/api/try', async (request, reply) => {
    if (!isOwnAction(request.raw) || !trials.on) {
      return reply.code(403).send({ result: 'read_only', message: 'This console sends no requests.' });
    }
    const asked = readObject(await readText(request.raw));
    if (asked === null) return reply.code(400).send({ result: 'invalid', message: 'The body is not a JSON object.' });
    reply.hijack();
    await trials.run(asked, reply.raw);
    return reply;
  });

  app.post('/login', async (request, reply) => {
    const form = new URLSearchParams((await readText(request.raw)) ?? '');
    // The form posts to the address of its page.
    const next = returnPath(new URLSearchParams(request.url.split('?', 2)[1] ?? '').get('next'));
    const cookie = access.login(form.get('password') ?? '', performance.now());
    if (cookie === null || cookie === 'later') {
      return reply
        .code(303)
        .header('location', loginPath(next, cookie ?? 'wrong'))
        .send();
    }
    return reply.code(303).header('set-cookie', cookie).header('location', next).send();
  });
  app.post('/logout', (request, reply) =>
    isOwnAction(request.raw)
      ? reply.code(204).header('set-cookie', access.logout(request.raw)).send()
      : reply.code(403).send({ status: 'refused' }),
  );
}

const maxModel = 1024;
const maxPath = 200;
const maxPromptBytes = 2 ** 30;
const maxCandidates = 1000;

/** What is asked of a router; null: not what one understands. */
function readExplain(query: URLSearchParams): ExplainQuery | null {
  const model = query.get('model') ?? '';
  const path = query.get('path') ?? '/v1/chat/completions';
  const bytes = countOf(query.get('bytes'), 0, maxPromptBytes);
  if (model.length > maxModel || path.length > maxPath || !path.startsWith('/')) return null;
  return {
    model: model === '' ? null : model,
    path,
    max: countOf(query.get('max'), 50, maxCandidates),
    ...(bytes > 0 && { prompt: { bytes } }),
  };
}

function isTopic(word: string): word is Topic {
  return topics.some((topic) => topic === word);
}

function countOf(text: string | null, usual: number, max: number): number {
  const count = Number(text ?? usual);
  return Number.isInteger(count) && count > 0 ? Math.min(count, max) : usual;
}
