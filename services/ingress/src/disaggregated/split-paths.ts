/**
 * An API whose requests can be split over a prefill and a decode instance; each has a prefill form
 * of its own.
 */
export type SplitApi = 'openai' | 'anthropic';

const splitPaths: ReadonlyMap<string, SplitApi> = new Map([
  ['/v1/chat/completions', 'openai'],
  ['/v1/completions', 'openai'],
  ['/v1/messages', 'anthropic'],
]);

export const allSplitPaths = [...splitPaths.keys()].join();

/** Reads `--pd-paths`: comma-separated paths, with blanks or without. */
export function readSplitPaths(
  list: string,
): { readonly paths: ReadonlyMap<string, SplitApi> } | { readonly mistake: string } {
  const paths = new Map<string, SplitApi>();
  for (const item of list.split(',').map((path) => path.trim())) {
    if (item === '') continue;
    const api = splitPaths.get(item);
    if (api === undefined) return { mistake: `${JSON.stringify(item)} cannot be split; allowed: ${allSplitPaths}` };
    paths.set(item, api);
  }
  return { paths };
}
