/** What `--mirror-allowed-targets` lists, trimmed. */
function entriesOf(list: string): string[] {
  return list
    .split(',')
    .map((entry) => entry.trim())
    .filter((entry) => entry !== '');
}

/** What is wrong with the list; undefined when nothing is. */
export function targetsMistake(list: string): string | undefined {
  const wrong = entriesOf(list).find((entry) => !isOrigin(entry));
  return wrong === undefined ? undefined : `${wrong} is not http://host:port or https://host:port`;
}

function isOrigin(entry: string): boolean {
  const url = URL.parse(entry);
  const isBare = /^https?:\/\/[^/?#@\\]+\/?$/.test(entry);
  return url !== null && isBare;
}

/**
 * Whether a copy may go to a URL: its scheme, host and port are one of the list's, or the list is
 * empty.
 */
export function allowedTargets(list: string): (url: string) => boolean {
  const origins = new Set(entriesOf(list).map((entry) => new URL(entry).origin));
  return (url) => origins.size === 0 || origins.has(URL.parse(url)?.origin ?? '');
}
