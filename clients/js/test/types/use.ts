// What a user writes, checked by `npm run types`.
import { Client, PushError, START, type Gap, type Message, type Position } from '../../index.js';

interface Chat {
  text: string;
}

const client = new Client({ urls: ['https://a.example', 'wss://b.example'], token: async () => 't', standby: true, policy: { maxS: 5 } });
const off: () => void = client.on('state', ({ state, gateway }) => state === 'online' && gateway?.length);
client.on('error', (error) => error instanceof PushError && error.why);

const room = client.subscribe<Chat>('room:42', { after: START, onMessage: (message) => message.data.text.length, onGap: (gap) => gap.why });
const place: Position | null = room.position;

async function read(): Promise<void> {
  for await (const item of client.subscribe<Chat>('news', { last: 10 })) {
    const shown: Message<Chat> | Gap = item;
    if (item.type === 'gap') item.upto.seq.toFixed();
    else item.data.text.trim();
    void shown;
  }
  const { epoch, seq, repeat } = await client.publish('news', { text: 'hi' }, { id: 'one', withinS: 2 });
  void [epoch, seq, repeat];
}

// @ts-expect-error there is no such event
client.on('nothing', () => {});
// @ts-expect-error a client needs gateways
new Client({});

void [off, place, read];
room.unsubscribe();
client.close();
