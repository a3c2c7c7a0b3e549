import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { join, posix } from 'node:path';
import { suite, test } from 'node:test';
import { codeRows, filesOf, type Manifest, root, textOf, type Workspace, workspaces } from './repository.ts';

const ours = '@llm-gateway/';

const all = workspaces();
const members = all.filter(({ folder }) => folder !== '.');

function declared({ dependencies, devDependencies }: Manifest): string[] {
  return Object.keys({ ...dependencies, ...devDependencies });
}

/** The folder's last part, as the page and the rules call a workspace. */
function nameOf({ folder }: Workspace): string {
  return folder === '.' ? 'root' : posix.basename(folder);
}

interface Import {
  readonly file: string;
  readonly from: string;
}

function importsOf(folder: string): Import[] {
  return filesOf(`${folder}/**/*.ts`).flatMap((file) =>
    [...textOf(file).matchAll(/(?:\bfrom|^import|\bimport\()\s*'([^'\n]+)'/gm)].map(([, from = '']) => ({
      file,
      from,
    })),
  );
}

function isTest(file: string): boolean {
  return file.endsWith('.test.ts');
}

/** `@scope/name` or `name` of a specifier. */
function packageOf(specifier: string): string {
  return specifier.split('/', specifier.startsWith('@') ? 2 : 1).join('/');
}

suite('docs/dependencies.md', () => {
  const rows = codeRows(textOf('docs/dependencies.md'));
  const foreign = new Set(all.flatMap(({ manifest }) => declared(manifest)).filter((name) => !name.startsWith(ours)));

  test('lists every dependency of every package.json, and no other', () => {
    assert.deepEqual(rows.map(([name]) => name).sort(), [...foreign].sort());
  });

  for (const [name = '', users, licence] of rows) {
    test(`tells who has ${name}, and its licence`, () => {
      const having = all.filter(({ manifest }) => declared(manifest).includes(name)).map(nameOf);
      assert.equal(users, having.sort().join(', '));
      const manifest: Manifest = JSON.parse(textOf(`node_modules/${name}/package.json`));
      assert.equal(licence, manifest.license);
    });
  }
});

suite('package.json', () => {
  for (const { folder, manifest } of all) {
    test(`of ${folder} pins exact versions`, () => {
      for (const [name, version] of Object.entries({ ...manifest.dependencies, ...manifest.devDependencies })) {
        assert.match(version, /^\d+\.\d+\.\d+(?:-[\w.]+)?$/, name);
      }
    });
  }

  interface Locked {
    readonly resolved?: string;
    readonly optional?: boolean;
    readonly engines?: { readonly node?: string };
    readonly optionalDependencies?: Readonly<Record<string, string>>;
  }
  const lock: { readonly packages: Readonly<Record<string, Locked>> } = JSON.parse(textOf('package-lock.json'));

  test('has a lock that names no host that packages came from', () => {
    const hosted = Object.values(lock.packages).filter(({ resolved }) => resolved?.includes('//'));
    assert.deepEqual(hosted, []);
  });

  // npm warns of a package, and leaves an optional one out, where the Node that npm itself runs on
  // does not suit it. All of them run on the Node that is installed here, so the lock asks for no
  // other: delete the `engines` that a new version brought.
  test('has a lock that npm installs whole and without a warning, whatever Node from 18 on it runs on', () => {
    const asking = Object.entries(lock.packages).filter(
      ([path, { engines }]) =>
        path.includes('node_modules/') && !/^(?:\*|>=\s*(?:\d|1[0-8])(?:\.[\dx.]+)?)$/.test(engines?.node ?? '*'),
    );
    assert.deepEqual(
      asking.map(([path, { engines }]) => `${path}: ${engines?.node}`),
      [],
    );
  });

  // npm leaves out what its registry does not have, and then `npm ci` refuses the lock wherever
  // that is missing or is there.
  test('has a lock with the packages of every platform', () => {
    const locked = Object.keys(lock.packages);
    const optional = Object.values(lock.packages).flatMap((one) => Object.keys(one.optionalDependencies ?? {}));
    assert.deepEqual(
      optional.filter((name) => !locked.some((path) => path.endsWith(`node_modules/${name}`))),
      [],
    );
  });
});

/** Who alone may import what; `docs/dependencies.md` tells why. */
const soleImporters: readonly { readonly of: RegExp; readonly only: readonly string[] }[] = [
  { of: /^@nats-io\//, only: ['bus'] },
  { of: /^undici$/, only: ['upstream'] },
  { of: /^(?:ioredis|etcd3|@grpc\/grpc-js)$/, only: ['registry'] },
  { of: /^protobufjs$/, only: ['registry', 'testing'] },
  { of: /^@opentelemetry\//, only: ['tracing'] },
  { of: /^(?:pino|pino-pretty|prom-client)$/, only: ['runtime'] },
  { of: /^typebox$/, only: ['protocol', 'routing', 'ingress'] },
  { of: /^jose$/, only: ['ingress'] },
  { of: /^fastify$/, only: ['runtime'] },
];

suite('imports', () => {
  for (const workspace of members) {
    const { folder, manifest } = workspace;
    const imports = importsOf(folder);

    test(`of ${folder} are declared there, and tests alone use devDependencies`, () => {
      const production = Object.keys(manifest.dependencies ?? {});
      // `e2e`, `bench` and the scenarios of suites are for tests as a whole.
      const everything = declared(manifest);
      for (const { file, from } of imports) {
        if (from.startsWith('.') || from.startsWith('node:')) continue;
        const testing = isTest(file) || ['e2e', 'bench'].includes(folder) || isOnlyForTests(file, imports);
        const known = testing ? everything : production;
        assert.ok(known.includes(packageOf(from)), `${file} imports ${from}`);
      }
    });

    test(`of ${folder} do not reach into other folders`, () => {
      for (const { file, from } of imports) {
        if (!from.startsWith('.')) continue;
        const target = posix.join(posix.dirname(file), from);
        assert.ok(target.startsWith(`${folder}/`), `${file} imports ${from}`);
      }
    });

    test(`of ${folder} leave a library to its sole importer`, () => {
      const here = soleImporters.filter(({ only }) => !only.includes(nameOf(workspace)));
      for (const { file, from } of imports) {
        assert.ok(!here.some(({ of }) => of.test(packageOf(from))), `${file} imports ${from}`);
      }
    });
  }
});

/** A file beside the tests that nothing but them imports. */
function isOnlyForTests(file: string, imports: readonly Import[]): boolean {
  const importers = imports.filter(
    (one) => one.from.startsWith('.') && posix.join(posix.dirname(one.file), one.from) === file,
  );
  return importers.length > 0 && importers.every((one) => isTest(one.file));
}

const packages = members.filter(({ folder }) => folder.startsWith('packages/')).map(nameOf);
const services = members.filter(({ folder }) => folder.startsWith('services/')).map(nameOf);

/**
 * What of ours a workspace may depend on. Tiers point inwards: http1 ← protocol ← the other
 * packages ← fleet ← services ← standalone ← cli.
 */
function allowed(name: string): readonly string[] {
  if (['http1', 'runtime', 'testing'].includes(name)) return [];
  if (name === 'protocol') return ['http1'];
  if (name === 'fleet') return ['http1', 'protocol', 'bus', 'routing'];
  if (name === 'route-config') return ['http1', 'protocol', 'routing', 'runtime'];
  if (name === 'engine-metrics') return ['http1', 'protocol', 'bus', 'upstream'];
  if (name === 'watch') return ['protocol', 'bus', 'fleet'];
  if (packages.includes(name)) return ['http1', 'protocol'];
  const shipped = packages.filter((one) => one !== 'testing');
  if (name === 'standalone' || name === 'cli') return [...shipped, ...services];
  return services.includes(name) ? shipped : packages;
}

/**
 * The rooms in which a service's files stand, innermost first: folders of its `src`. What stands in
 * none of them is the service itself: its flags, its wiring, and in the ingress the story of a
 * request.
 */
const rooms: Readonly<Record<string, readonly string[]>> = {
  ingress: [
    'body',
    'http',
    'usage',
    'admission',
    'clients',
    'exchange',
    'failover',
    'responses',
    'decide',
    'mirror',
    'observe',
    'calls',
    'disaggregated',
    'answers',
  ],
};

suite('rooms', () => {
  for (const { folder } of members.filter((one) => one.folder.startsWith('services/'))) {
    const source = `${folder}/src`;
    const order = rooms[posix.basename(folder)] ?? [];
    const imports = importsOf(source).filter(({ from }) => from.startsWith('.'));
    const files = [...new Set(imports.map(({ file }) => file))];
    const roomOf = (file: string) => posix.relative(source, file).split('/')[0] ?? '';

    test(`of ${folder} are all in their order`, () => {
      const folders = files.map((file) => posix.relative(source, file)).filter((file) => file.includes('/'));
      const known = new Set(order);
      assert.deepEqual(
        folders.filter((file) => !known.has(file.split('/')[0] ?? '')),
        [],
      );
      for (const room of order) assert.ok(existsSync(join(root, source, room)), room);
    });

    test(`of ${folder}: a file imports from its own room and from rooms further in`, () => {
      for (const { file, from } of imports) {
        if (isTest(file) || isOnlyForTests(file, imports)) continue;
        const target = posix.join(posix.dirname(file), from);
        const [here, there] = [roomOf(file), roomOf(target)].map((room) => order.indexOf(room)) as [number, number];
        const inward = here === -1 || (there !== -1 && there <= here);
        assert.ok(inward, `${file} imports ${from}`);
      }
    });

    test(`of ${folder}: nobody imports main.ts, and only main.ts imports service.ts`, () => {
      for (const { file, from } of imports) {
        if (isTest(file)) continue;
        const target = posix.relative(source, posix.join(posix.dirname(file), from));
        assert.notEqual(target, 'main.ts', file);
        if (target === 'service.ts') assert.equal(posix.relative(source, file), 'main.ts');
      }
    });
  }
});

suite('circles', () => {
  for (const { folder } of members) {
    test(`${folder} has none: a file never comes back to itself, by types either`, () => {
      const importers = new Map<string, string[]>();
      for (const { file, from } of importsOf(folder)) {
        if (!from.startsWith('.')) continue;
        importers.set(file, [...(importers.get(file) ?? []), posix.join(posix.dirname(file), from)]);
      }
      assert.deepEqual(circleIn(importers), []);
    });
  }
});

/** The files of one circle in order, each of which imports the next; empty without one. */
function circleIn(imported: ReadonlyMap<string, readonly string[]>): readonly string[] {
  const done = new Set<string>();
  const visit = (file: string, path: readonly string[]): readonly string[] => {
    const start = path.indexOf(file);
    if (start !== -1) return path.slice(start);
    if (done.has(file)) return [];
    for (const next of imported.get(file) ?? []) {
      const circle = visit(next, [...path, file]);
      if (circle.length > 0) return circle;
    }
    done.add(file);
    return [];
  };
  for (const file of imported.keys()) {
    const circle = visit(file, []);
    if (circle.length > 0) return circle;
  }
  return [];
}

suite('layers', () => {
  for (const workspace of members) {
    const { folder, manifest } = workspace;
    const oursOf = (names: object = {}) =>
      Object.keys(names)
        .filter((name) => name.startsWith(ours))
        .map((name) => name.slice(ours.length));

    test(`${folder} depends on inner ones only`, () => {
      const outer = oursOf(manifest.dependencies).filter((name) => !allowed(nameOf(workspace)).includes(name));
      assert.deepEqual(outer, []);
    });

    test(`${folder} has no other package of ours for its tests than testing and what it may depend on`, () => {
      const outer = oursOf(manifest.devDependencies).filter(
        (name) => name !== 'testing' && !allowed(nameOf(workspace)).includes(name),
      );
      assert.deepEqual(outer, []);
    });
  }

  test('http1, protocol, quota and routing are pure: no module of Node but for hashing', () => {
    const pure = ['http1', 'protocol', 'quota', 'routing'];
    for (const { file, from } of pure.flatMap((name) => importsOf(`packages/${name}/src`))) {
      if (!isTest(file)) assert.ok(!from.startsWith('node:') || from === 'node:crypto', `${file} imports ${from}`);
    }
  });

  test('a package that others can import opens one door, a service three', () => {
    for (const { folder } of members) {
      if (!folder.includes('/')) continue;
      const { exports }: { exports: object } = JSON.parse(textOf(join(folder, 'package.json')));
      const doors = folder.startsWith('packages/') ? ['.'] : ['.', './main', './options'];
      assert.deepEqual(Object.keys(exports), doors, folder);
    }
  });
});
