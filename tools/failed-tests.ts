import { relative } from 'node:path';
import type { TestEvent } from 'node:test/reporters';

/** The last line of a run that came to its end. */
export const endOfRun = 'END';

/**
 * A reporter for `node --test`: a line `FILE<tab>NAME` for each failed test; a file that did not
 * start or end has its own name. The last line is `END`: without it the process broke off, and what
 * it did not come to is unknown.
 */
// biome-ignore lint/style/noDefaultExport: the test runner takes a reporter as the default export
export default async function* failedTests(events: AsyncIterable<TestEvent>): AsyncGenerator<string> {
  for await (const event of events) {
    if (event.type !== 'test:fail' || event.data.file === undefined) continue;
    yield `${relative(process.cwd(), event.data.file)}\t${event.data.name.replaceAll(/\s+/g, ' ')}\n`;
  }
  yield `${endOfRun}\n`;
}
