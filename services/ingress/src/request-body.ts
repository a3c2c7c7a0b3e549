import type { IncomingMessage } from 'node:http';
import { GatewayError } from '@llm-gateway/protocol';
import { type Member, maxMembers, scanMembers } from './json-members.ts';

/** How many bytes of request bodies one ingress holds at once, over all its requests. */
export class BodyBudget {
  readonly #maxBytes: number;
  heldBytes = 0;

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  take(bytes: number): boolean {
    if (this.heldBytes + bytes > this.#maxBytes) return false;
    this.heldBytes += bytes;
    return true;
  }

  give(bytes: number): void {
    this.heldBytes -= bytes;
  }
}

export interface HeldBody {
  readonly bytes: Buffer;
  /** Gives its bytes back to the budget; call it once. */
  release(): void;
}

/**
 * Reads a request's body whole, at most `maxBytes` of it and within the budget.
 * Throws `GatewayError` `body_too_large`, `overloaded`, or `client_closed` when the client leaves before it ended.
 */
export function readBody(
  request: IncomingMessage,
  limits: { maxBytes: number; budget: BodyBudget },
): Promise<HeldBody> {
  const { maxBytes, budget } = limits;
  return new Promise((resolve, reject) => {
    const pieces = new Pieces();
    let bytes = 0;
    const release = () => budget.give(bytes);
    const refuse = (error: GatewayError) => {
      request.off('data', onData).off('end', onEnd).off('close', onClose);
      release();
      reject(error);
    };
    const tooLarge = () => new GatewayError('body_too_large', `the body is larger than ${maxBytes} bytes`);
    const onData = (chunk: Buffer) => {
      if (bytes + chunk.length > maxBytes) {
        refuse(tooLarge());
      } else if (!budget.take(chunk.length)) {
        refuse(new GatewayError('overloaded', 'the gateway holds too many request bodies at the moment'));
      } else {
        bytes += chunk.length;
        pieces.add(chunk);
      }
    };
    const onEnd = () => {
      request.off('close', onClose);
      resolve({ bytes: pieces.joined(), release });
    };
    const onClose = () => refuse(new GatewayError('client_closed', 'the client left before its request was whole'));
    if (Number(request.headers['content-length']) > maxBytes) {
      reject(tooLarge());
      return;
    }
    request.on('data', onData).on('end', onEnd).on('close', onClose);
  });
}

/** A piece that came alone in a smaller buffer is copied to others of its kind. */
const smallPieceBytes = 4096;
const blockBytes = 65_536;

/** The pieces of a body as they come: held in about as many bytes as they have, in however small pieces a client sends them. */
class Pieces {
  readonly #whole: Buffer[] = [];
  /** Takes small pieces; the last of `#whole` is its filled part. */
  #block: Buffer | undefined;
  #filled = 0;

  add(piece: Buffer): void {
    // Most bodies come in one piece.
    if (piece.length >= smallPieceBytes || this.#whole.length === 0) {
      this.#whole.push(piece);
      this.#block = undefined;
      return;
    }
    if (this.#block === undefined || this.#filled + piece.length > blockBytes) {
      this.#block = Buffer.allocUnsafeSlow(blockBytes);
      this.#filled = 0;
      this.#whole.push(this.#block);
    }
    piece.copy(this.#block, this.#filled);
    this.#filled += piece.length;
    this.#whole[this.#whole.length - 1] = this.#block.subarray(0, this.#filled);
  }

  joined(): Buffer {
    return this.#whole.length === 1 ? (this.#whole[0] as Buffer) : Buffer.concat(this.#whole);
  }
}

/** The few fields of an OpenAI request that the gateway reads. */
export interface RequestFields {
  /** Null when the request names none. */
  readonly model: string | null;
  readonly stream: boolean;
  /** Where all fields lie in the body; null when it was not needed to know. */
  readonly members: readonly Member[] | null;
}

/** A model's name goes into messages and log lines, which are to stay small. */
const maxModelLength = 1024;

/** Up to here a body is parsed whole, which finds every mistake; beyond, only its outline is read. */
const parsedWholeBytes = 16_384;

/** Throws `GatewayError` `invalid_body`, with `details.param` when one field is at fault. */
export function readFields(body: Buffer): RequestFields {
  const members = body.length <= parsedWholeBytes ? null : scanWhole(body);
  const fields = members === null ? parseFields(body) : pickFields(body, members);
  const { model = null, stream = null } = fields;
  if (model !== null && (typeof model !== 'string' || model.length > maxModelLength))
    throw invalidBody(`\`model\` must be a string of at most ${maxModelLength} characters`, 'model');
  if (stream !== null && typeof stream !== 'boolean') throw invalidBody('`stream` must be a boolean', 'stream');
  return { model, stream: stream ?? false, members };
}

function parseFields(body: Buffer): { model?: unknown; stream?: unknown } {
  let value: unknown;
  try {
    value = JSON.parse(body.toString());
  } catch {
    throw invalidBody('the body is not valid JSON');
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw invalidBody('the body must be a JSON object');
  return value;
}

function scanWhole(body: Buffer): Member[] {
  const members = scanMembers(body);
  if (members === null) throw invalidBody(`the body is not a valid JSON object of at most ${maxMembers} members`);
  return members;
}

function pickFields(body: Buffer, members: readonly Member[]): { model?: unknown; stream?: unknown } {
  const fields: { model?: unknown; stream?: unknown } = {};
  for (const { key, valueStart, valueEnd } of members) {
    if (key !== 'model' && key !== 'stream') continue;
    try {
      fields[key] = JSON.parse(body.toString('utf8', valueStart, valueEnd));
    } catch {
      throw invalidBody('the body is not valid JSON', key);
    }
  }
  return fields;
}

function invalidBody(message: string, param: string | null = null): GatewayError {
  return new GatewayError('invalid_body', message, { details: { param } });
}
