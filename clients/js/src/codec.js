/** Frames as JSON text, the subprotocol `budao.v1.json`, and what users see of them. */

export const JSON_CODEC = {
  subprotocol: 'budao.v1.json',
  encode: (frame) => JSON.stringify(frame),
  decode: (raw) => JSON.parse(raw),
};

const utf8 = new TextEncoder();

/** How many bytes a frame has. */
export const sizeOf = (raw) => (typeof raw === 'string' ? utf8.encode(raw).length : raw.byteLength);

function toBase64(bytes) {
  let text = '';
  for (const byte of bytes) text += String.fromCharCode(byte);
  return btoa(text);
}

/** A hello as it stands in a URL. */
export const helloQuery = (hello) =>
  toBase64(utf8.encode(JSON.stringify(hello))).replace(/[+/=]/g, (sign) => ({ '+': '-', '/': '_' })[sign] ?? '');

/** The part of a `pub` frame that is the data: bytes as base64, anything else as JSON. */
export function dataOf(data) {
  if (data instanceof ArrayBuffer) return { data64: toBase64(new Uint8Array(data)) };
  if (ArrayBuffer.isView(data)) return { data64: toBase64(new Uint8Array(data.buffer, data.byteOffset, data.byteLength)) };
  return { data };
}

/** What a reader gets of a `msg` or `gap` frame. */
export function itemOf(frame) {
  const { type, channel, epoch, seq, data64, data, after, upto, why, at, id, trace } = frame;
  if (type === 'gap') return { type, channel, after, upto, why };
  const value = typeof data64 === 'string' ? Uint8Array.from(atob(data64), (sign) => sign.charCodeAt(0)) : data;
  return { type: 'message', channel, position: { epoch, seq }, data: value, at, id, trace };
}
