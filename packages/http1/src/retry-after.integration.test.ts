import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { describe, it } from 'node:test';

const now = Date.UTC(2026, 10, 6, 8, 49, 30);
const dates = [
  'Fri, 06 Nov 2026 08:49:37 GMT',
  'Friday, 06-Nov-26 08:49:37 GMT',
  'Fri Nov  6 08:49:37 2026',
  'Fri, 06 Nov 2026 10:49:37 +0200',
];

describe('a date in Retry-After', () => {
  // What zone a process is in is settled when it starts.
  for (const zone of ['UTC', 'America/New_York', 'Asia/Kolkata']) {
    it(`means the same in each of its forms to a process in ${zone}`, () => {
      const program = `
        import { retryAfterMs } from ${JSON.stringify(new URL('retry-after.ts', import.meta.url).href)};
        const read = (date) => retryAfterMs(['retry-after', date], ${now});
        console.log(JSON.stringify(${JSON.stringify(dates)}.map(read)));`;
      const output = execFileSync(process.execPath, ['--input-type=module', '--eval', program], {
        env: { TZ: zone },
        encoding: 'utf8',
      });
      assert.deepEqual(JSON.parse(output), [7000, 7000, 7000, 7000]);
    });
  }
});
