/** What a person who started it by hand can try. */
export function welcome({
  url,
  page,
  simulatedModel,
}: {
  readonly url: string;
  /** Of the console; empty: there is none. */
  readonly page: string;
  readonly simulatedModel: string | undefined;
}): string {
  const model = simulatedModel ?? 'MODEL';
  const lines = [
    '',
    `llm-gateway listens on ${url}${simulatedModel ? ', in front of two simulated engines' : ''}. Try:`,
    '',
    `  curl ${url}/v1/chat/completions -H 'content-type: application/json' \\`,
    `    -d '{"model": "${model}", "messages": [{"role": "user", "content": "Hello"}]}'`,
    '',
    `  curl -N ${url}/v1/chat/completions -H 'content-type: application/json' \\`,
    `    -d '{"model": "${model}", "stream": true, "messages": [{"role": "user", "content": "Hello"}]}'`,
    '',
    ...(page === '' ? [] : [`Watch it live: ${page}`, '']),
  ];
  return lines.join('\n');
}
