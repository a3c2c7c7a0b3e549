/**
 * What a file of variables says, as Docker and Compose read it: `NAME=value` in each line, `#`
 * begins a comment.
 */
export function readEnvFile(text: string): { readonly env: Record<string, string>; readonly mistakes: string[] } {
  const env: Record<string, string> = {};
  const mistakes: string[] = [];
  for (const [at, line] of text.split(/\r?\n/).entries()) {
    if (/^\s*(#|$)/.test(line)) continue;
    const [, name, value = ''] = /^\s*(?:export\s+)?([A-Za-z_]\w*)=(.*)$/.exec(line) ?? [];
    // The line may hold a secret.
    if (name === undefined) mistakes.push(`line ${at + 1}: read no NAME=value`);
    else env[name] = /^(["']).*\1$/.test(value) ? value.slice(1, -1) : value;
  }
  return { env, mistakes };
}
