// Writers and readers of a feed of changes, each in a separate process:
// `node feed-clients.mjs <options as JSON>`, forked. They use plain sockets to take little processor time
// from the server.

import { once } from 'node:events';
import { connect } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';

const options = JSON.parse(process.argv[2]);
const { hostname, port } = new URL(options.url);
const MARK = 'event: change';
const now = () => performance.timeOrigin + performance.now();

if (options.role === 'reader') await readFeed();
else await writeDocuments();

/**
 * Follows feeds of the paths in turn on several connections until the parent stops it, and reports the delays
 * of the changes.
 */
async function readFeed() {
  const samples = [];
  let events = 0;
  let ready = 0;
  const sockets = Array.from({ length: options.connections }, (_, at) => {
    const socket = connect({ host: hostname, port });
    socket.write(
      `GET ${options.paths[at % options.paths.length]} HTTP/1.1\r\nHost: ${hostname}\r\nAccept: text/event-stream\r\n` +
        `Authorization: Bearer ${options.token}\r\n\r\n`,
    );
    let isReady = false;
    let rest = '';
    socket.on('data', (chunk) => {
      // Only one reader of each path counts.
      if (at < options.paths.length) {
        const text = rest + chunk.toString('latin1');
        events += text.split(MARK).length - 1;
        rest = text.slice(1 - MARK.length);
      }
      if (!isReady && chunk.includes('event: heartbeat')) {
        isReady = true;
        if (++ready === options.connections) process.send({ ready: true });
      }
      // The first complete event of a chunk has waited the longest. Its id begins with the start time of the
      // write.
      const found = chunk.indexOf('"_id":"');
      if (found === -1) return;
      const text = chunk.toString('latin1', found + 7, found + 30);
      const sentMs = Number(/^([\d.]+)-/.exec(text)?.[1]);
      if (sentMs > 0) samples.push(now() - sentMs);
    });
    return socket;
  });
  await once(process, 'message');
  for (const socket of sockets) socket.destroy();
  const sorted = Float64Array.from(samples).sort();
  const at = (share) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))];
  process.send({
    events,
    samples: sorted.length,
    p50: at(0.5),
    p99: at(0.99),
    p999: at(0.999),
    max: sorted.at(-1),
  });
  process.disconnect();
}

/** Creates documents below the paths in turn at a steady rate. Their ids begin with the time. */
async function writeDocuments() {
  const { paths, token, perSecond, seconds, connections, body } = options;
  const free = [];
  let sent = 0;
  let answered = 0;
  let refused = 0;
  const sockets = await Promise.all(
    Array.from({ length: connections }, async () => {
      const socket = connect({ host: hostname, port, noDelay: true });
      await once(socket, 'connect');
      socket.on('data', (chunk) => {
        if (!chunk.toString('latin1', 0, 12).endsWith('201')) refused++;
        answered++;
        free.push(socket);
      });
      free.push(socket);
      return socket;
    }),
  );
  const begun = now();
  while (now() - begun < seconds * 1_000) {
    const due = ((now() - begun) * perSecond) / 1_000;
    while (sent < due && free.length > 0) {
      const path = paths[sent % paths.length];
      const text = `{"_id":"${now().toFixed(2)}-${sent++}",${body.slice(1)}`;
      free
        .pop()
        .write(
          `POST ${path} HTTP/1.1\r\nHost: ${hostname}\r\nContent-Type: application/json\r\n` +
            `Authorization: Bearer ${token}\r\nContent-Length: ${Buffer.byteLength(text)}\r\n\r\n${text}`,
        );
    }
    await sleep(1);
  }
  const elapsed = (now() - begun) / 1_000;
  while (answered < sent) await sleep(5);
  for (const socket of sockets) socket.destroy();
  process.send({ requests: answered, refused, seconds: elapsed });
  process.disconnect();
}
