import { readFileSync } from 'node:fs';
import { cut, type Answer as EngineAnswer, refuse, respond, type Script, stall, stream } from '@llm-gateway/testing';

/** One row of the outcome table of `docs/failover.md`. */
export interface Row {
  readonly fault: string;
  readonly retried: boolean;
  readonly fallsBack: boolean;
  /** `broken`, `as it was`, `<status> without its body`, or status and code. */
  readonly answer: string;
}

/** The rows in their order. */
export const rows = outcomeTable();

function outcomeTable(): Row[] {
  const text = readFileSync(new URL('../../docs/failover.md', import.meta.url), 'utf8');
  const [, table = ''] = text.split('## The outcome table');
  const lines = table.split('\n## ', 1)[0]?.match(/^\|.*\|$/gm) ?? [];
  return lines.slice(2).map((line) => {
    const [fault = '', retried, fallsBack, answer = ''] = line
      .split('|')
      .slice(1, -1)
      .map((cell) => cell.trim());
    return { fault, retried: retried === 'yes', fallsBack: fallsBack === 'yes', answer: answer.replaceAll('`', '') };
  });
}

/** What came before a cut. */
export const half = 'data: {"n":1}\n\n';
const role = 'data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}\n\n';
export const reported = { message: 'faulty event', type: 'InternalServerError', param: null, code: 500 };
const json = { 'content-type': 'application/json', 'content-length': '100' };

/** A call of such an upstream may be made once more, where its connection was a kept one. */
export const closed = 'closed before headers';

/**
 * What the faulty upstream does, by the name of the fault; the two that are no answers are brought
 * about otherwise.
 */
function faultyAnswer(fault: string, streamed: boolean): EngineAnswer {
  const headers = streamed ? {} : json;
  switch (fault) {
    case 'reset before headers':
      return cut('before-head', { how: 'reset' });
    case closed:
      return cut('before-head');
    case 'silence before headers':
      return stall('before-head');
    case 'headers, then silence':
      return stall('after-head', { headers });
    case 'cut before commit':
      return cut('after-head', { headers });
    case 'failed head, then dripping':
      return stream(new Array(600).fill(' '), { status: 500, gapMs: 100, headers: { 'retry-after': '7' } });
    case 'cut before content':
      return streamed ? cut({ afterBytes: role.length }, { body: role }) : cut('after-head', { headers });
    case 'error event before content':
      return streamed
        ? stream([role, `data: ${JSON.stringify({ error: reported })}\n\n`, 'data: [DONE]\n\n'], {
            headers: { 'retry-after': '7' },
          })
        : respond(500, { error: reported }, { headers: { 'retry-after': '7' } });
    case 'cut after commit':
      return cut({ afterBytes: half.length }, { headers, body: half });
    default:
      return refuse(Number(fault), { message: `faulty ${fault}`, retryAfter: 7 });
  }
}

/** Does what the header `x-fault` names. */
export const faultyScript: Script = (request) =>
  faultyAnswer(String(request.headers['x-fault']), isStream(request.body));

function isStream(body: Buffer): boolean {
  return JSON.parse(body.toString()).stream === true;
}
