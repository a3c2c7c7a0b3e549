/** Tells whoever started it by hand what to try; on stderr, beside the log. */
export function welcome(address: string, simulatedModel: string | undefined): void {
  const url = address.replace(/\/\/(0\.0\.0\.0|\[::\])/, '//localhost');
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
  ];
  process.stderr.write(`${lines.join('\n')}\n`);
}
