import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { readFileSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { promisify } from 'node:util';
import { subjects } from '@llm-gateway/protocol';
import {
  createCertificates,
  type Engine,
  findBinary,
  type NatsServer,
  type RedisServer,
  type Service,
  startEngine,
  startNats,
  startRedis,
  startService,
  temporaryFolder,
  until,
} from '@llm-gateway/testing';
import { chat, post } from '../gateway.ts';
import { deployFolder } from './kustomize.ts';

const text = readFileSync(join(deployFolder, 'base/nats/users.conf'), 'utf8');
const group = 'gw';
const {
  routeDecide,
  routeLease,
  routerBeat,
  configHeld,
  prefixPlaced,
  prefixList,
  instancesList,
  instancesChanged,
  loadReport,
  outcomeReport,
  retryOffer,
  mirrorSend,
} = subjects;
const { responsesMade, retryAnnounce, mirrorAnnounce, mirrorPrimary, mirrorReport, mirrorOrder, mirrorPaused } =
  subjects;
const { statusQuery, statusReport, requestReport, instanceOrder, instanceOrders, routeExplain } = subjects;
const { engineReport } = subjects;
const { quotaLease, quotaRecount, limiterBeat, ingressBeat, queueReport, usageRecord } = subjects;

/** Who says what, and who hears it, by the catalogue of messages. */
const speakers = {
  ingress: [
    routeDecide,
    routeLease,
    configHeld,
    instancesList,
    loadReport,
    outcomeReport,
    responsesMade,
    retryOffer,
    mirrorSend,
    mirrorAnnounce,
    mirrorPrimary,
    quotaLease,
    ingressBeat,
    queueReport,
    statusReport,
    requestReport,
    usageRecord,
  ],
  router: [routerBeat, configHeld, instancesList, prefixPlaced, prefixList, statusReport],
  discovery: [instancesChanged, instanceOrders, mirrorPaused, engineReport, statusReport],
  'retry-worker': [retryAnnounce, configHeld, statusReport],
  'mirror-sender': [mirrorReport, statusReport],
  limiter: [quotaRecount, limiterBeat, statusReport],
  console: [statusQuery, statusReport, instanceOrder, instancesList, routeExplain, mirrorOrder],
  registrar: [engineReport, statusReport],
};
const listeners = {
  ingress: [
    routerBeat,
    configHeld,
    instancesChanged,
    responsesMade,
    retryAnnounce,
    mirrorReport,
    mirrorPaused,
    `${quotaRecount} ${group}`,
    limiterBeat,
    ingressBeat,
    queueReport,
    engineReport,
    statusQuery,
  ],
  router: [
    `${routeDecide} ${group}`,
    `${routeLease} ${group}`,
    `${routeExplain} ${group}`,
    `${prefixList} ${group}`,
    prefixPlaced,
    instancesChanged,
    loadReport,
    outcomeReport,
    engineReport,
    statusQuery,
  ],
  discovery: [
    `${instancesList} ${group}`,
    instancesChanged,
    `${instanceOrder} ${group}`,
    instanceOrders,
    `${mirrorOrder} ${group}`,
    mirrorPaused,
    engineReport,
    statusQuery,
  ],
  'retry-worker': [`${retryOffer} ${group}`, statusQuery],
  'mirror-sender': [`${mirrorSend} ${group}`, mirrorAnnounce, mirrorPrimary, statusQuery],
  limiter: [`${quotaLease} ${group}`, ingressBeat, statusQuery],
  console: [statusQuery, statusReport, requestReport, instancesChanged, engineReport],
  registrar: [statusQuery],
};
type User = keyof typeof speakers;
const services = Object.keys(speakers) as User[];

interface Permissions {
  readonly publish: readonly string[];
  readonly subscribe: readonly string[];
}

/** What users.conf says of each user. */
function permissions(): Map<string, Permissions> {
  const list = (block: string, key: string) => {
    const [, items = ''] = new RegExp(`${key}: \\[([^\\]]*)\\]`).exec(block) ?? [];
    return [...items.matchAll(/"([^"]+)"|([^\s,"]+)/g)].map(([, quoted, plain]) => quoted ?? plain ?? '');
  };
  const blocks = text.split(/\n\s+user: /).slice(1);
  return new Map(
    blocks.map((block) => [
      /^[\w-]+/.exec(block)?.[0] ?? '',
      { publish: list(block, 'publish'), subscribe: list(block, 'subscribe') },
    ]),
  );
}

const ownedOrAny: readonly string[] = [instancesList, routeDecide, routeExplain, prefixList];

/**
 * Subjects that one replica, or those of one route config, answer have its id at the end; leases
 * are asked of one replica only.
 */
function withReplicas(list: readonly string[]): string[] {
  return list.flatMap((entry) => {
    const [subject = '', queue] = entry.split(' ');
    const owned = `${subject}.*${queue === undefined ? '' : ` ${queue}`}`;
    if ([routeLease, quotaLease, quotaRecount].includes(subject as typeof routeLease)) return [owned];
    return ownedOrAny.includes(subject) ? [entry, owned] : [entry];
  });
}

describe('the configurations of NATS', () => {
  for (const file of ['base/nats/nats.conf', 'compose/nats.conf', 'components/nats-tls/tls.conf']) {
    it(`${file} is one that nats-server takes`, async () => {
      const folder = temporaryFolder();
      const certificates = await createCertificates();
      const paths = { crt: certificates.server.cert, key: certificates.server.key };
      const put = (name: string, from: string) => {
        const text = readFileSync(join(deployFolder, from), 'utf8');
        const local = text
          .replaceAll(/\/etc\/nats-tls\/tls\.(crt|key)/g, (_, kind: 'crt' | 'key') => paths[kind])
          .replaceAll('/etc/nats-tls/ca.crt', certificates.ca);
        writeFileSync(join(folder, name), local);
      };
      put('users.conf', 'base/nats/users.conf');
      put('nats.conf', 'base/nats/nats.conf');
      put('tested.conf', file);
      const passwords = [...text.matchAll(/\$(NATS_\w+)/g)].map(([, name = '']) => [name, 'secret']);
      const env = { ...process.env, ...Object.fromEntries(passwords), POD_NAME: 'nats-0' };
      await promisify(execFile)(await findBinary('nats-server'), ['-t', '-c', join(folder, 'tested.conf')], { env });
    });
  }
});

describe('the users of NATS', () => {
  let stack: AsyncDisposableStack;
  let nats: NatsServer;
  let running: Service[];
  before(async () => {
    stack = new AsyncDisposableStack();
    nats = stack.use(await startNats({ config: text.replaceAll(/\$NATS_\w+/g, 'secret') }));
    const engine = stack.use(await startEngine());
    const redis = stack.use(await startRedis());
    const mirrorConfig = join(temporaryFolder(), 'mirror.json');
    writeFileSync(mirrorConfig, JSON.stringify({ Enable: true, Target: engine.url, Ratio: 100 }));
    const keys = join(temporaryFolder(), 'keys.json');
    const hash = createHash('sha256').update('sk-gw-example').digest('hex');
    writeFileSync(keys, JSON.stringify({ keys: [{ name: 'example', hash: `sha256:${hash}`, rpm: 100 }] }));
    const own: Partial<Record<User, string[]>> = {
      ingress: [
        '--fallback-retry-queue-enabled',
        '--mirror-config',
        mirrorConfig,
        '--client-keys',
        `@${keys}`,
        ...['--instance-max-requests', '8', '--queue-max-requests', '8'],
        '--quota-timeout-ms',
        '2000',
        '--scheduling-policy',
        'cache-aware',
      ],
      router: ['--scheduling-policy', 'cache-aware'],
      discovery: [
        ...['--llm-backend-discovery', 'endpoints', '--llm-backend-endpoints', engine.address],
        ...['--engine-metrics-interval-ms', '1000'],
      ],
      registrar: registrarFlags(engine, redis),
    };
    const login = (user: User) => ['--nats-servers', nats.url, '--nats-user', user, '--drain-delay-ms', '0'];
    const env = { LLM_GATEWAY_NATS_PASSWORD: 'secret' };
    running = await Promise.all(
      services.map(async (user) =>
        stack.use(await startService(user, [...login(user), ...(own[user] ?? [])], { env })),
      ),
    );
  });
  after(() => stack.disposeAsync());

  it('may say and hear what the catalogue of messages has for their service, and nothing else', () => {
    const found = permissions();
    assert.deepEqual([...found.keys()], [...services, 'operator']);
    for (const service of services) {
      const { publish, subscribe } = found.get(service) ?? { publish: [], subscribe: [] };
      assert.deepEqual([...publish].sort(), withReplicas(speakers[service]).sort(), service);
      // A registrar is not listed among the services.
      const listed = service === 'registrar' ? [] : ['$SRV.>'];
      const expected = [...withReplicas(listeners[service]), `_INBOX.${service}.>`, ...listed];
      assert.deepEqual([...subscribe].sort(), expected.sort(), service);
    }
    const heard = new Set(services.flatMap((service) => listeners[service]).map((entry) => entry.split(' ')[0]));
    const said = new Set(services.flatMap((service) => speakers[service]));
    // Usage is for a stream of JetStream or a program of the operator's.
    assert.deepEqual([...heard, usageRecord].sort(), Object.values(subjects).sort());
    assert.deepEqual([...said].sort(), Object.values(subjects).sort());
  });

  it('are enough: the services subscribe to just these subjects, and nothing of theirs is refused', async () => {
    const ingress = running[services.indexOf('ingress')];
    const degraded = async () => (await ingress?.metrics())?.value('llm_gateway_quota_degraded');
    await until(async () => (await degraded()) === 0);
    const headers = { 'x-api-key': 'sk-gw-example' };
    assert.equal((await post(ingress?.url ?? '', chat(), { headers })).status, 200);
    assert.equal(await degraded(), 0);
    // An ingress has two connections: the subscriptions of a user are those of all of its connections.
    const subscribed = async () => {
      const response = await fetch(`${nats.monitorUrl}/connz?subs=detail&auth=1`);
      const { connections } = (await response.json()) as { connections: Connection[] };
      return Map.groupBy(connections, ({ authorized_user: user }) => user);
    };
    const connected = (users: Map<string, Connection[]>) =>
      services.every((user) => users.get(user)?.length === (user === 'ingress' ? 2 : 1));
    await until(async () => connected(await subscribed()));
    for (const [user, connections] of await subscribed()) {
      const list = connections.flatMap(({ subscriptions_list_detail: detail }) => detail ?? []);
      const entries = list.map(({ subject, qgroup }) => (qgroup ? `${subject} ${qgroup}` : subject));
      const bus = entries
        .filter((entry) => entry.startsWith('gw.'))
        .map((entry) => entry.replace(/\.(?:\w+-\w{8}|[0-9a-f]{16})/, '.*'));
      // One subject may have several owners: a router itself, and its generation.
      assert.deepEqual([...new Set(bus)].sort(), withReplicas(listeners[user as User]).sort(), user);
      const others = entries.filter((entry) => !entry.startsWith('gw.'));
      assert.ok(
        others.every((entry) => entry.startsWith(`_INBOX.${user}.`) || entry.startsWith('$SRV.')),
        `${others}`,
      );
    }
    const refusals = running
      .flatMap((service) => service.logs())
      .filter(({ msg }) => String(msg).startsWith('NATS refused'));
    assert.deepEqual(refusals, []);
  });

  for (const user of services) {
    it(`keep ${user} from what is not its business`, async () => {
      const { publish, subscribe } = permissions().get(user) ?? { publish: [], subscribe: [] };
      const all = withReplicas(Object.values(subjects)).map((subject) => subject.replace('*', 'x'));
      const notSaid = all.filter((subject) => !publish.includes(subject.replace(/\.x$/, '.*')));
      // As a member of the queue group it may; plain, it would overhear others.
      const notHeard = all.filter((subject) => !subscribe.includes(subject.replace(/\.x$/, '.*')));
      const inboxes = services.filter((other) => other !== user).map((other) => `_INBOX.${other}.>`);
      const commands = [
        ...[...notSaid, '_INBOX.router.x', '_INBOX.ingress.x', '$SYS.REQ.SERVER.PING'].map(
          (subject) => `PUB ${subject} 0\r\n`,
        ),
        ...[...notHeard, ...inboxes, '>', 'gw.>', '$SYS.>'].map((subject, at) => `SUB ${subject} ${at + 1}`),
      ];
      const refused = await violations(nats.port, user, commands);
      assert.equal(refused.length, commands.length, refused.join('\n'));
    });
  }

  it('let an operator see the services', async () => {
    const commands = ['SUB _INBOX.operator.1 1', 'PUB $SRV.PING _INBOX.operator.1 0\r\n', `PUB ${routeExplain} 0\r\n`];
    assert.deepEqual(await violations(nats.port, 'operator', commands), []);
    assert.equal(
      (await violations(nats.port, 'operator', [`SUB ${routeDecide} 1`, `PUB ${mirrorSend} 0\r\n`])).length,
      2,
    );
  });
});

/** What docs/security.md says to do to users.conf for `--namespace acme`. */
function underNamespace(config: string): string {
  const [, command = ''] =
    /^sed -E '(.+)' /m.exec(readFileSync(join(deployFolder, '../docs/security.md'), 'utf8')) ?? [];
  const changes = command.split(';').map((change) => /^\s*s\/(.+)\/(.+)\/g$/.exec(change));
  assert.equal(changes.length, 3);
  return changes.reduce(
    (text, change) => text.replaceAll(new RegExp(change?.[1] ?? '', 'g'), (change?.[2] ?? '').replaceAll('\\1', '$1')),
    config,
  );
}

describe('the users of NATS under a namespace', () => {
  it('are enough for an installation with that namespace, and of no use to one without', async () => {
    await using stack = new AsyncDisposableStack();
    const config = underNamespace(text).replaceAll(/\$NATS_\w+/g, 'secret');
    const nats = stack.use(await startNats({ config }));
    const engine = stack.use(await startEngine());
    const redis = stack.use(await startRedis());
    const own: Partial<Record<User, string[]>> = {
      ingress: ['--fallback-retry-queue-enabled'],
      discovery: ['--llm-backend-discovery', 'endpoints', '--llm-backend-endpoints', engine.address],
      registrar: registrarFlags(engine, redis),
    };
    const env = { LLM_GATEWAY_NATS_PASSWORD: 'secret', LLM_GATEWAY_NAMESPACE: 'acme' };
    const login = (user: User) => ['--nats-servers', nats.url, '--nats-user', user, '--drain-delay-ms', '0'];
    const running = await Promise.all(
      services.map(async (user) =>
        stack.use(await startService(user, [...login(user), ...(own[user] ?? [])], { env })),
      ),
    );
    const ingress = running[services.indexOf('ingress')];
    assert.equal((await post(ingress?.url ?? '', chat())).status, 200);
    assert.equal((await ingress?.metrics())?.value('llm_gateway_degraded'), 0);
    const refusals = running
      .flatMap((service) => service.logs())
      .filter(({ msg }) => String(msg).startsWith('NATS refused'));
    assert.deepEqual(refusals, []);
    const commands = [`SUB ${instancesChanged} 1`, `PUB ${routeDecide} 0\r\n`];
    assert.equal((await violations(nats.port, 'router', commands)).length, 2);
  });
});

function registrarFlags(engine: Engine, redis: RedisServer): string[] {
  return [
    ...['--pod-name', 'pod-a', '--entrypoint-ip', engine.host, '--entrypoint-port', String(engine.port)],
    ...['--discovery-redis-host', '127.0.0.1', '--discovery-redis-port', String(redis.port)],
  ];
}

interface Connection {
  readonly authorized_user: string;
  readonly subscriptions_list_detail?: readonly { readonly subject: string; readonly qgroup?: string }[];
}

/** Logs in, sends commands of the NATS protocol, and returns what the server refused of them. */
async function violations(port: number, user: string, commands: readonly string[]): Promise<string[]> {
  const socket = connect(port, '127.0.0.1');
  try {
    await once(socket, 'connect');
    let received = '';
    socket.setEncoding('utf8');
    socket.on('data', (chunk: string) => {
      received += chunk;
    });
    const login = { user, pass: 'secret', verbose: false, pedantic: false, headers: true, protocol: 1 };
    socket.write(`CONNECT ${JSON.stringify(login)}\r\nPING\r\n`);
    await until(() => received.includes('PONG'));
    for (const command of commands) socket.write(`${command}\r\n`);
    received = '';
    socket.write('PING\r\n');
    await until(() => received.includes('PONG'));
    return received.split('\r\n').filter((line) => /^-ERR 'Permissions Violation/.test(line));
  } finally {
    socket.destroy();
  }
}
