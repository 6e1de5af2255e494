/** A client of Budao's push gateways, for browsers and Node. */
export { Client } from './client.js';
export { PushError } from './errors.js';
export { BrokenPromise, Follower, START } from './follower.js';
export { adviceFor } from './backoff.js';
