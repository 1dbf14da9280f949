import { request } from 'node:http';

/** A received event. */
export interface SeenEvent {
  readonly id: string | undefined;
  readonly type: string;
  // biome-ignore lint/suspicious/noExplicitAny: tests inspect any JSON.
  readonly data: any;
}

/** An open event stream with the events received so far. */
export interface OpenedStream extends Disposable {
  readonly status: number;
  readonly seen: readonly SeenEvent[];
  readonly isEnded: boolean;
}

/** Opens the event stream of BunKMS's internal listener. */
export function openEvents(internalUrl: string, token: string, lastEventId?: string): Promise<OpenedStream> {
  const headers = {
    authorization: `Bearer ${token}`,
    ...(lastEventId === undefined ? {} : { 'last-event-id': lastEventId }),
  };
  return new Promise((resolve, reject) => {
    const sent = request(`${internalUrl}/v1/events`, { headers, agent: false }, (response) => {
      const seen: SeenEvent[] = [];
      let text = '';
      let isEnded = false;
      response.on('data', (chunk: Buffer) => {
        const blocks = (text + chunk.toString()).split('\n\n');
        text = blocks.pop() ?? '';
        seen.push(...blocks.map(eventOf));
      });
      response.on('error', () => undefined);
      response.on('close', () => {
        isEnded = true;
      });
      resolve({
        status: Number(response.statusCode),
        seen,
        get isEnded() {
          return isEnded;
        },
        [Symbol.dispose]: () => response.destroy(),
      });
    });
    sent.on('error', reject);
    sent.end();
  });
}

function eventOf(block: string): SeenEvent {
  const field = (name: string) => new RegExp(`^${name}: (.*)$`, 'm').exec(block)?.[1];
  return { id: field('id'), type: String(field('event')), data: JSON.parse(String(field('data'))) };
}
