/** A client of Budao's push gateways. Names that end in `S` are seconds. */

/** A place in a channel: behind the message `seq` of the life `epoch`. Keep it to go on from there, anywhere. */
export interface Position {
  readonly epoch: string;
  readonly seq: number;
}

export interface Message<T = unknown> {
  readonly type: 'message';
  readonly channel: string;
  readonly position: Position;
  /** The JSON value that was published, or a Uint8Array for bytes. */
  readonly data: T;
  /** When the log took it, in Unix seconds. */
  readonly at?: number;
  readonly id?: string;
  readonly trace?: string;
}

/** What the reader does not get: everything behind `after` up to and including `upto`. */
export interface Gap {
  readonly type: 'gap';
  readonly channel: string;
  readonly after: Position;
  readonly upto: Position;
  readonly why: 'trimmed' | 'slow' | 'epoch';
}

export interface Presence {
  readonly type: 'presence';
  readonly channel: string;
  readonly joined?: readonly string[];
  readonly left?: readonly string[];
  readonly count: number;
}

export type State = 'connecting' | 'online' | 'given-up' | 'closed';

export interface Health {
  state: State;
  /** The URL of the gateway in use. */
  gateway: string | null;
  /** Whether a second connection stands by. */
  hasStandby: boolean;
  /** The latest round trip. */
  rttS: number | null;
  /** How often the gateway promised to say something. */
  beatS: number | null;
  /** How long nothing was heard. */
  silentS: number | null;
}

export interface Events {
  state: { state: State; gateway: string | null; problem: string };
  /** A channel was refused, the token's source failed, or the client has given up. */
  error: Error;
  /** A round trip was measured, every `healthS` while somebody listens. */
  health: Health;
  /** Any gap of any channel. */
  gap: Gap;
}

export interface Metrics {
  /** Connections that were welcomed, standbys included; of those, the ones that took the session over. */
  connects: number;
  resumes: number;
  /** Connections that ended or could not be opened, without our asking. */
  failures: number;
  promotions: number;
  moves: number;
  messages: number;
  gaps: number;
  /** Messages that gaps named, as far as their number is known. */
  missed: number;
  /** What came again and was dropped. */
  duplicates: number;
  brokenPromises: number;
  /** Times that an iterator's buffer was full, so that its channel rested at the gateway. */
  rests: number;
  publishes: number;
  repeats: number;
  tries: number;
  /** From the last that was heard of the connection that was lost to the moment that another one delivered. */
  recoveryS: number | null;
}

/** How the client behaves; the defaults are in src/policy.js. */
export interface Policy {
  beatS: number | null;
  missedMax: number;
  lookS: number;
  stretchMax: number;
  welcomeS: number;
  promoteS: number;
  standbySilentS: number;
  standbySpreadS: number;
  againSpreadS: number;
  firstS: number;
  maxS: number;
  nowS: number;
  askedMaxS: number;
  spreadShare: number;
  lastedS: number;
  peersMax: number;
  bufferMax: number;
  publishS: number;
  publishingMax: number;
  waitingMax: number;
  healthS: number;
}

/** Another way to write frames, for another subprotocol. `decode` gets text, or an ArrayBuffer. */
export interface Codec {
  readonly subprotocol: string;
  encode(frame: object): string | Uint8Array;
  decode(raw: string | ArrayBuffer): object;
}

export interface ClientOptions {
  /** Gateways, such as `https://push.example.org`; in a page they may be relative. */
  urls: readonly string[];
  /** A token, or what gives one; it is asked again after a gateway refused what it gave. */
  token?: string | (() => string | Promise<string>) | null;
  /** Keep a second, quiet connection at another gateway, which takes over within one round trip. */
  standby?: boolean;
  /** What gateways call it in their logs. */
  name?: string;
  codec?: Codec;
  policy?: Partial<Policy>;
  /** The class, where there is no global one. */
  WebSocket?: unknown;
  /** Monotonic seconds. */
  now?: () => number;
  /** From 0 to 1. */
  random?: () => number;
  timers?: { setTimeout(call: () => void, ms: number): unknown; clearTimeout(timer: unknown): void };
  /** Where `online` and `document` are; the global object. */
  page?: unknown;
}

export interface SubscribeOptions<T = unknown> {
  /** Go on behind this place. */
  after?: Position | null;
  /** Without `after`: begin with up to so many of the latest messages. */
  last?: number;
  /** Ask who else reads the channel. */
  presence?: boolean;
  /** Called for each message, in order; without it, iterate. */
  onMessage?: (message: Message<T>) => void;
  onGap?: (gap: Gap) => void;
  onPresence?: (presence: Presence) => void;
}

/** Made by `Client.subscribe`. Its iterator ends with `unsubscribe` or `close`, and throws what else ended it. */
export interface Subscription<T = unknown> extends AsyncIterableIterator<Message<T> | Gap> {
  readonly channel: string;
  /** After the last item that was handed out. */
  readonly position: Position | null;
  /** Resolves with the place where it begins: what is published then will be seen. */
  readonly ready: Promise<Position>;
  unsubscribe(): void;
}

export interface Published extends Position {
  /** An earlier try, or somebody else, had published this id already. */
  readonly repeat: boolean;
}

export class Client {
  constructor(options: ClientOptions);
  readonly state: State;
  readonly gateway: string | null;
  readonly urls: readonly string[];
  /** The latest thing that went wrong with a connection, for people. */
  readonly problem: string;
  readonly session: string | undefined;
  readonly health: Health;
  readonly metrics: Readonly<Metrics>;
  subscribe<T = unknown>(channel: string, options?: SubscribeOptions<T>): Subscription<T>;
  /** Publishes bytes, or anything else as JSON. Sent again under one id until it is durable, or `withinS` is over. */
  publish(
    channel: string, data: unknown, options?: { id?: string; withinS?: number; trace?: string },
  ): Promise<Published>;
  /** Returns a function that ends it. */
  on<E extends keyof Events>(event: E, listener: (value: Events[E]) => void): () => void;
  /** Waits no longer before it connects again; in a page this happens by itself. */
  wake(): void;
  close(): void;
}

export class PushError extends Error {
  /** A word for programs, such as `forbidden`, `timed-out`, `unauthorized`, `given-up`, `closed`. */
  readonly why: string;
  readonly channel?: string;
  readonly id?: string;
  readonly code?: number;
  readonly mayHaveTakenEffect?: boolean;
}

/** Messages were left out and nobody said so: the gateway is wrong. */
export class BrokenPromise extends Error {
  readonly why: 'broken-promise';
  readonly channel: string;
}

/** The client's half of the promise, for who has frames in hand. */
export class Follower {
  constructor(place?: Position | null);
  place: Position | null;
  missed: number;
  begin(position: Position): void;
  take<I extends Message | Gap>(item: I): I | null;
}

export const START: Position;

export function adviceFor(code: number): 'now' | 'later' | 'never';
