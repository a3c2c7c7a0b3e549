/** A chat request of about so many bytes. The engine looks for `stream` near the start. */
export function chatBody({ stream = false, bytes = 500 }: { stream?: boolean; bytes?: number } = {}): string {
  const body = (content: string) =>
    JSON.stringify({ model: 'bench', stream, temperature: 0.7, messages: [{ role: 'user', content }] });
  const sentence = 'How much does a gateway cost? ';
  const room = Math.max(0, bytes - body('').length);
  return body(sentence.repeat(Math.ceil(room / sentence.length)).slice(0, room));
}
