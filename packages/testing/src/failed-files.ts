import type { TestEvent } from 'node:test/reporters';

/** A reporter for `node --test`: the path of each file with a failed test, a line for every failure. */
// biome-ignore lint/style/noDefaultExport: the test runner takes a reporter as the default export
export default async function* failedFiles(events: AsyncIterable<TestEvent>): AsyncGenerator<string> {
  for await (const event of events) {
    if (event.type === 'test:fail' && event.data.file !== undefined) yield `${event.data.file}\n`;
  }
}
