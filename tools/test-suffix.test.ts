import assert from 'node:assert/strict';
import { posix } from 'node:path';
import { suite, test } from 'node:test';
import { filesOf, textOf } from './repository.ts';

/** Tests that start a process: `npm run integration` runs them, `npm run check` does not. */
const suffix = '.integration.test.ts';

interface Import {
  readonly from: string;
  /** What is imported or exported again, without types. */
  readonly values: readonly string[];
}

const pattern = /^(?:import|export)\s+(type\s+)?(?:\{([^}]*)\}|\*\s+as\s+\w+|\w+)\s+from\s+'([^'\n]+)'/gm;

function importsOf(text: string): Import[] {
  return [...text.matchAll(pattern)].map(([, type, names, from = '']) => {
    const all = (names ?? '*').split(',').map((name) => name.trim());
    return { from, values: type ? [] : all.filter((name) => name !== '' && !name.startsWith('type ')) };
  });
}

const sources = new Map(
  filesOf('{packages/*,services/*,cli,bench}/src/**/*.ts').map((file) => [file, importsOf(textOf(file))]),
);
const kit = 'packages/testing/src/';

/** The files of ours that a file imports values from. */
function importedBy(file: string): string[] {
  return (sources.get(file) ?? [])
    .filter(({ from, values }) => from.startsWith('.') && values.length > 0)
    .map(({ from }) => posix.join(posix.dirname(file), from))
    .filter((one) => sources.has(one));
}

/** Whether a file or one that it imports matches; `within` says which imports are followed. */
function reaches(file: string, matches: (one: string) => boolean, within: (one: string) => boolean): boolean {
  const seen = new Set<string>();
  const visit = (one: string): boolean => {
    if (seen.has(one)) return false;
    seen.add(one);
    return matches(one) || importedBy(one).filter(within).some(visit);
  };
  return visit(file);
}

function spawns(file: string): boolean {
  return (sources.get(file) ?? []).some(({ from, values }) => from === 'node:child_process' && values.length > 0);
}

/** What `packages/testing` exports that starts a process. */
const starters = new Set(
  (sources.get(`${kit}index.ts`) ?? [])
    .filter(({ from }) => reaches(posix.join(kit, from), spawns, () => true))
    .flatMap(({ values }) => values),
);

function usesStarter(file: string): boolean {
  return (sources.get(file) ?? []).some(
    ({ from, values }) =>
      (from === '@llm-gateway/testing' || (file.startsWith(kit) && from.startsWith('.'))) &&
      values.some((name) => starters.has(name)),
  );
}

const usersOf = Map.groupBy(
  [...sources.keys()].flatMap((user) => importedBy(user).map((file) => ({ user, file }))),
  ({ file }) => file,
);

/**
 * A file next to the tests that nothing but tests imports, directly or through others of its kind.
 */
function isOnlyForTests(file: string): boolean {
  const users = (usersOf.get(file) ?? []).map(({ user }) => user);
  return users.length > 0 && users.every((one) => one.endsWith('.test.ts') || isOnlyForTests(one));
}

suite(`a test file ends in ${suffix}`, () => {
  test('and the parts of packages/testing that start processes are known', () => {
    for (const name of ['startNats', 'startRedis', 'startEtcd', 'startService', 'startProcess', 'createCertificates']) {
      assert.ok(starters.has(name), name);
    }
    for (const name of ['startEngine', 'startProxy', 'until', 'freePort']) assert.ok(!starters.has(name), name);
  });

  const tests = [...sources.keys()].filter((file) => file.endsWith('.test.ts'));
  const starting = tests.filter((file) => reaches(file, (one) => spawns(one) || usesStarter(one), isOnlyForTests));

  test('when it starts a process or a server of packages/testing', () => {
    assert.deepEqual(
      starting.filter((file) => !file.endsWith(suffix)),
      [],
    );
  });

  test('and only then', () => {
    assert.deepEqual(
      tests.filter((file) => file.endsWith(suffix) && !starting.includes(file)),
      [],
    );
  });
});
