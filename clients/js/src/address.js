/** Where a gateway is, and whether a token may travel there. */

const STREAM = '/v1/stream';
const LOOPBACK = /^(localhost|.*\.localhost|127\.\d+\.\d+\.\d+|\[::1\])$/;

/** The one URL of a gateway, however it was written; in a page it may be relative. Throws TypeError. */
export function addressOf(text) {
  let url;
  try {
    url = new URL(text, globalThis.location?.href);
  } catch {
    throw new TypeError('a gateway needs a URL'); // what was given could hold a secret, and is not repeated
  }
  const [scheme] = url.protocol.replace('http', 'ws').match(/^wss?(?=:)/) ?? [];
  if (!scheme || url.username || url.search || url.hash) {
    throw new TypeError(`${url.host}: a gateway is http(s) or ws(s), a host and a path; the token goes elsewhere`);
  }
  const path = url.pathname.replace(/\/+$/, '');
  return `${scheme}://${url.host}${path.endsWith(STREAM) ? path : path + STREAM}`;
}

export const isTls = (url) => url.startsWith('wss:');

/** Whether nobody can listen on the way: TLS, or this machine. */
export const isSafe = (url) => isTls(url) || LOOPBACK.test(new URL(url).hostname);
