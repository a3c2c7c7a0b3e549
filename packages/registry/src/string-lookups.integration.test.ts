import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { test } from 'node:test';
import { nodePath } from '@llm-gateway/testing';

/**
 * Prints whether V8 holds the methods of strings as an object, and not as a dictionary, after these
 * modules.
 */
function hasFastStrings(...modules: readonly string[]): string {
  const imports = modules.map((module) => `await import(${JSON.stringify(module)});`).join(' ');
  const script = `${imports} console.log(%HasFastProperties(String.prototype));`;
  const args = ['--allow-natives-syntax', '--input-type=module', '--eval', script];
  return execFileSync(nodePath, args, { encoding: 'utf8', cwd: import.meta.dirname }).trim();
}

test('the methods of strings stay fast to find in a process that knows Redis', () => {
  assert.equal(hasFastStrings('ioredis'), 'false', 'what this is about is still so');
  assert.equal(hasFastStrings('./redis.ts'), 'true');
});
