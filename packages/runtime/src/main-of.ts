import type { OptionGroup, ServiceOptions, ServiceValues } from './option-table.ts';
import { type Parts, type Running, run } from './run.ts';

/** Opens something that a service uses, such as its bus, and has `parts` own it. */
type Open<Values> = (values: Values, service: string, parts: Parts) => unknown;

type Opened<Openers> = {
  readonly [Name in keyof Openers]: Openers[Name] extends (...given: never) => infer Resource
    ? Awaited<Resource>
    : never;
};

/**
 * The `main` of a service: `run`, which opens what the service uses, in the order of `openers`,
 * before it calls `start` with it under the same names.
 * @returns takes the arguments without node and the script
 */
export function mainOf<
  const Groups extends readonly OptionGroup[],
  Openers extends Readonly<Record<string, Open<ServiceValues<Groups>>>>,
>(
  service: ServiceOptions<Groups>,
  openers: Openers,
  start: (values: ServiceValues<Groups>, parts: Parts & Opened<Openers>) => Promise<Running>,
): (argv?: readonly string[]) => Promise<void> {
  return (argv) =>
    run(
      service,
      async (values, parts) => {
        const opened: Record<string, unknown> = {};
        for (const [name, open] of Object.entries(openers)) opened[name] = await open(values, service.name, parts);
        return await start(values, { ...parts, ...(opened as Opened<Openers>) });
      },
      argv,
    );
}
