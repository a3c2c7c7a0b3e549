import { type Codec, GatewayError } from '@llm-gateway/protocol';

/**
 * A job on the wire: 4 bytes (big endian) with the length of its fields, the fields, then its body
 * as it is.
 */
const lengthBytes = 4;

export function encodeJob<P>(codec: Codec<P>, payload: P, body: Uint8Array): Uint8Array {
  const fields = codec.encode(payload);
  const frame = new Uint8Array(lengthBytes + fields.length + body.length);
  new DataView(frame.buffer).setUint32(0, fields.length);
  frame.set(fields, lengthBytes);
  frame.set(body, lengthBytes + fields.length);
  return frame;
}

/** The body is a view of `frame`. @throws GatewayError `invalid_message` */
export function decodeJob<P>(codec: Codec<P>, frame: Uint8Array): { payload: P; body: Uint8Array } {
  if (frame.length < lengthBytes) throw new GatewayError('invalid_message', 'a job is shorter than its own header');
  const fieldBytes = new DataView(frame.buffer, frame.byteOffset, frame.byteLength).getUint32(0);
  const bodyStart = lengthBytes + fieldBytes;
  if (bodyStart > frame.length) throw new GatewayError('invalid_message', 'a job is cut off');
  return { payload: codec.decode(frame.subarray(lengthBytes, bodyStart)), body: frame.subarray(bodyStart) };
}
