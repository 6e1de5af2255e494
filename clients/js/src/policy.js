/** What one client does. Seconds end in S. */
export const POLICY = {
  /** How often it wishes to hear something. null: every 50 ms with a standby, otherwise every 2 s. */
  beatS: null,
  /** So many beats in a row that do not come, and the connection is dead. */
  missedMax: 3,
  /** Before it is taken for dead it is looked at again after this long. */
  lookS: 0.01,
  /** A gateway that beats slower than it promised is waited for up to this many times longer. */
  stretchMax: 3,
  /** How long a connection may take until it is welcomed; twice and four times that after failures. */
  welcomeS: 2,
  /** How long a standby may take until it delivers. */
  promoteS: 0.5,
  /** A standby that is silent for so long is replaced. */
  standbySilentS: 10,
  /** A new standby is opened after a random pause of up to this. */
  standbySpreadS: 1,
  /** The same for a connection that was lost and has no standby. */
  againSpreadS: 0.02,
  /** Upper end of the first pause after a failure, and of any that nobody asked for. */
  firstS: 0.5,
  maxS: 30,
  /** Upper end of the first pause when the advice is to come back now. */
  nowS: 0.05,
  /** A gateway that asks for more is taken to have asked for this much. */
  askedMaxS: 600,
  /** A pause that was asked for grows by up to this share of itself. */
  spreadShare: 0.1,
  /** A connection that lived so long counts as good: the pauses start afresh. */
  lastedS: 10,
  /** Gateways that may be learned from other gateways. */
  peersMax: 8,
  /** Messages and gaps that wait for one iterator; beyond, the channel rests at the gateway until half is read. */
  bufferMax: 1000,
  /** How long a publish may take, reconnects and further tries included. */
  publishS: 10,
  /** Publishes that are under way at once, and that wait behind them. */
  publishingMax: 50,
  waitingMax: 1000,
  /** How often health is measured while somebody listens to it. */
  healthS: 5,
};
