/** One connection to a gateway, from its first frame to its last. */
import { adviceFor } from './backoff.js';
import { helloQuery } from './codec.js';

/** A longer hello is said as the first frame: not every proxy lets a longer request line pass. */
const HELLO_IN_URL_MAX = 3000;

/** Tells its owner of a welcome, of frames, and exactly once of its end. After `hangUp` it tells nothing more. */
export function open(number, url, WebSocket, codec, hello, token, owner) {
  const query = helloQuery(hello);
  const isLong = query.length > HELLO_IN_URL_MAX;
  // A browser cannot set headers, so the token is here. No message of ours repeats this URL.
  const parts = [!isLong && `hello=${query}`, token && `token=${encodeURIComponent(token)}`].filter(Boolean);
  const socket = new WebSocket(`${url}?${parts.join('&')}`, [codec.subprotocol]);
  let isOver = false;

  const link = {
    number,
    url,
    isStandby: hello.standby,
    liveness: null,
    /** The longest frame the gateway takes; 0 if it did not say. */
    bytesMax: 0,
    /** By channel: the subscription that gets what comes of it. */
    listening: new Map(),
    /** Sends a frame. One that cannot be sent is nobody's loss: what wants an answer is asked again elsewhere. */
    send: (frame) => link.sendRaw(codec.encode(frame)),
    sendRaw(raw) {
      if (socket.readyState === 1) socket.send(raw);
    },
    hangUp() {
      isOver = true;
      socket.close(1000);
    },
  };

  function end(code, advice, afterS, problem) {
    if (isOver) return;
    link.hangUp();
    owner.ended(link, { code, advice, afterS, problem });
  }

  function received(raw) {
    link.liveness?.heard(owner.now());
    let frame;
    try {
      frame = codec.decode(raw);
    } catch {
      // The same as if it said nothing that is a frame.
    }
    const type = frame?.type;
    if (!type) end(1002, null, 0, 'it said what cannot be read');
    else if (type === 'bye') {
      const { code = 1000, why = 'done', advice = 'never', after_s: afterS = 0, detail = '' } = frame;
      end(code, advice, afterS, `it said goodbye: ${why} ${detail}`);
    } else if (type === 'welcome') {
      link.bytesMax = frame.frame_bytes_max;
      owner.welcomed(link, frame);
    } else if (type !== 'ping') owner.received(link, frame);
    else if (frame.number) link.send({ type: 'pong', number: frame.number });
  }

  socket.binaryType = 'arraybuffer';
  socket.onopen = () => isLong && link.send(hello);
  socket.onmessage = ({ data }) => isOver || received(data);
  socket.onerror = () => {}; // the close that follows says all there is to know
  socket.onclose = ({ code, reason }) => end(code, adviceFor(code), 0, `it closed with ${code} ${reason}`);
  return link;
}
