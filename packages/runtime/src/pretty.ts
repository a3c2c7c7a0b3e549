/** Makes of a JSON line of the log what is written. */
export type LineFormat = (line: string) => string;

/**
 * How lines are written; null: as they are. What makes them pretty is loaded only where it is
 * wanted.
 */
export async function lineFormat(wanted: 'auto' | 'json' | 'pretty'): Promise<LineFormat | null> {
  const isPretty = wanted === 'pretty' || (wanted === 'auto' && process.stdout.isTTY === true);
  if (!isPretty) return null;
  const { prettyFactory } = await import('pino-pretty');
  const pretty = prettyFactory({
    colorize: process.stdout.isTTY === true,
    // What a person does not look for in the first line: every flag.
    ignore: 'service,options,from',
    translateTime: 'SYS:HH:MM:ss',
    singleLine: true,
  });
  return (line) => pretty(line) ?? line;
}
