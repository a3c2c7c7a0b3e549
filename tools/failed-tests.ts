import { relative } from 'node:path';
import type { TestEvent } from 'node:test/reporters';

/**
 * A reporter for `node --test`: a line `FILE<tab>NAME` for each failed test; a file that did not
 * start or end has its own name.
 */
// biome-ignore lint/style/noDefaultExport: the test runner takes a reporter as the default export
export default async function* failedTests(events: AsyncIterable<TestEvent>): AsyncGenerator<string> {
  for await (const event of events) {
    if (event.type !== 'test:fail' || event.data.file === undefined) continue;
    yield `${relative(process.cwd(), event.data.file)}\t${event.data.name.replaceAll(/\s+/g, ' ')}\n`;
  }
}
