// Attacks that one token can make within its rights. Each receives
// `{ url, token, project, address, signal }`, ends with the signal, and ignores all answers.

import { connect } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';

const MIB = 1_048_576;
const JSON_TYPE = 'Content-Type: application/json\r\n';

/** The documents of an attacker's project, by collection, as paths and bodies of PUTs. */
const DOCUMENTS = {
  *dense(project) {
    const dense = JSON.stringify({ v: Array.from({ length: 60_000 }, (_, n) => n % 10) });
    for (let n = 0; n < 16; n++) yield [documentPath(project, 'dense', n), dense];
  },
  *large(project) {
    const large = JSON.stringify({ n: 1, s: 'x'.repeat(MIB - 1_024) });
    for (let n = 0; n < 18; n++) yield [documentPath(project, 'large', n), large];
  },
  *nested(project) {
    let nested = { a: 1 };
    for (let depth = 0; depth < 10; depth++) nested = { a: [nested, nested] };
    for (let n = 0; n < 20; n++) yield [documentPath(project, 'nested', n), JSON.stringify(nested)];
  },
  *checked(project) {
    yield [
      `/v1/projects/${project}/collections/checked`,
      JSON.stringify({
        schema: {
          properties: {
            v: {
              items: {
                anyOf: Array.from({ length: 20 }, (_, n) => ({ const: -1 - n })).concat({ type: 'integer' }),
              },
            },
          },
        },
      }),
    ];
  },
};

/** The collections of each attack that needs some. */
const COLLECTIONS = {
  'one deep query': ['nested'],
  '12 costly queries': ['dense'],
  '100 costly queries': ['dense'],
  '150 sorted queries': ['large'],
  patches: ['dense'],
  'schema checks': ['checked'],
  fields: ['dense'],
  'slow readers of large answers': ['large'],
  'slow readers of small answers': ['dense'],
};

/** The documents that some attacks need, as paths and bodies of PUTs. */
export function* attackersDocuments(project, attacks) {
  const collections = new Set(attacks.flatMap((name) => COLLECTIONS[name] ?? []));
  for (const name of collections) yield* DOCUMENTS[name](project);
  // The project exists in any case.
  yield [documentPath(project, 'c', 'd'), '{}'];
}

function documentPath(project, name, id) {
  return `/v1/projects/${project}/collections/${name}/documents/${id}`;
}

const collection = ({ project }, name) => `/v1/projects/${project}/collections/${name}`;

/** @type {Record<string, (attack: Attack) => Promise<unknown>>} */
export const ATTACKS = {
  'one deep query': (attack) => repeat(attack, 1, deepQuery),
  '12 costly queries': (attack) => repeat(attack, 12, costlyQuery),
  '100 costly queries': (attack) => repeat(attack, 100, costlyQuery),
  '150 sorted queries': (attack) =>
    repeat(attack, 150, () => [
      'POST',
      `${collection(attack, 'large')}/query`,
      '{"orderBy":[{"field":"n"}],"limit":15}',
    ]),
  batches: (attack) => {
    const body = batchBody();
    return repeat(attack, 8, () => ['POST', `/v1/projects/${attack.project}/batch`, body]);
  },
  patches: (attack) => {
    const body = JSON.stringify(
      Array.from({ length: 500 }, (_, n) => ({ op: 'replace', path: `/v/${n * 100}`, value: 1 })),
    );
    return repeat(attack, 8, (n) => [
      'PATCH',
      `${collection(attack, 'dense')}/documents/${n % 16}`,
      body,
      'application/json-patch+json',
    ]);
  },
  'schema checks': (attack) => {
    const body = JSON.stringify({ v: Array.from({ length: 60_000 }, () => 0) });
    return repeat(attack, 8, (n) => ['PUT', `${collection(attack, 'checked')}/documents/${n % 16}`, body]);
  },
  fields: (attack) => {
    const fields = Array.from({ length: 20 }, (_, n) => `v.${n}`).join(',');
    return repeat(attack, 16, () => [
      'GET',
      `${collection(attack, 'dense')}/documents?limit=100&fields=${fields}`,
    ]);
  },
  '8 idle bodies of 16 MiB': (attack) => idleBodies(attack, 8, 16 * MIB),
  '512 idle bodies of 256 KiB': (attack) => idleBodies(attack, 512, MIB / 4),
  '4000 idle bodies of 4 KiB': (attack) => idleBodies(attack, 4_000, 4_096),
  'slow readers of large answers': (attack) => slowReaders(attack, 100, 1),
  'slow readers of small answers': (attack) => slowReaders(attack, 200, 200),
  'change streams': (attack) =>
    stalled(attack, 1_000, (socket) =>
      socket.write(
        head(
          attack,
          'GET',
          `/v1/projects/${attack.project}/changes?include=doc`,
          'Accept: text/event-stream\r\n',
        ),
      ),
    ),
  'silent connections': (attack) => stalled(attack, 4_200, () => undefined),
  openings: (attack) =>
    repeat(attack, 32, (n) => [
      'PUT',
      `/v1/projects/${attack.project}-${n % 96}/collections/c/documents/d`,
      '{}',
    ]),
  refusals: (attack) =>
    Promise.all([
      repeat(attack, 32, (n) => ['GET', `${collection(attack, 'none')}/documents/${n}`]),
      repeat({ ...attack, token: 'x.y.z' }, 32, () => ['GET', `/v1/projects/${attack.project}/changes`]),
      stalled(attack, 32, (socket) => socket.write('GARBAGE\r\n\r\n'), true),
    ]),
};

let cachedBatchBody;

/** The largest batch of tiny values. As bytes, once: every socket of a string would encode its own copy. */
function batchBody() {
  if (cachedBatchBody !== undefined) return cachedBatchBody;
  const document = { v: Array.from({ length: 15_500 }, () => 0) };
  const operations = Array.from({ length: 500 }, (_, n) => ({
    op: 'put',
    collection: 'batch',
    id: String(n),
    document,
  }));
  cachedBatchBody = Buffer.from(JSON.stringify({ operations }));
  return cachedBatchBody;
}

function deepQuery(n, attack) {
  const path = Array(10).fill('a').join('.');
  const where = { $or: Array.from({ length: 90 }, (_, at) => ({ [path]: { $gt: at + 2 + n } })) };
  return ['POST', `${collection(attack, 'nested')}/query`, JSON.stringify({ where })];
}

function costlyQuery(n, attack) {
  const where = { $or: Array.from({ length: 40 }, (_, at) => ({ v: { $gt: 100 + at + n } })) };
  return ['POST', `${collection(attack, 'dense')}/count`, JSON.stringify({ where })];
}

/** Sends requests on several persistent connections, one after the other on each. */
async function repeat(attack, connections, requestOf) {
  let count = 0;
  const one = async () => {
    while (!attack.signal.aborted) {
      const [method, path, body, type = 'application/json'] = requestOf(count++, attack);
      const answered = await exchange(attack, method, path, body, type);
      if (!answered) await sleep(20);
    }
  };
  await Promise.all(Array.from({ length: connections }, one));
}

/** Sends one request on a new connection and reads its complete answer. */
function exchange(attack, method, path, body = '', type) {
  const length = Buffer.byteLength(body);
  return new Promise((resolve) => {
    const socket = open(attack);
    let isAnswered = false;
    socket.on('data', () => {
      isAnswered = true;
    });
    socket.once('close', () => resolve(isAnswered));
    const more = length === 0 ? '' : `Content-Type: ${type}\r\nContent-Length: ${length}\r\n`;
    const begin = head(attack, method, path, `Connection: close\r\n${more}`);
    if (typeof body === 'string') socket.write(begin + body);
    else {
      socket.write(begin);
      socket.write(body);
    }
  });
}

function idleBodies(attack, count, bytes) {
  const path = `/v1/projects/${attack.project}/batch`;
  return stalled(
    attack,
    count,
    (socket) => {
      socket.write(`${head(attack, 'POST', path, `${JSON_TYPE}Content-Length: ${bytes}\r\n`)}{`);
      // Send half of the body, and then nothing.
      socket.write(' '.repeat(bytes / 2));
    },
    true,
  );
}

function slowReaders(attack, count, requests) {
  const path =
    requests === 1
      ? `${collection(attack, 'large')}/documents?limit=100`
      : `${collection(attack, 'dense')}/documents/1`;
  return stalled(
    attack,
    count,
    (socket) => {
      socket.pause();
      socket.write(head(attack, 'GET', path, '').repeat(requests));
    },
    true,
  );
}

/** Stalled connections; with `again`, closed ones are replaced. */
async function stalled(attack, count, begin, again = false) {
  const one = async () => {
    do {
      const socket = open(attack);
      const closed = new Promise((resolve) => socket.once('close', resolve));
      begin(socket);
      await closed;
      await sleep(100);
    } while (again && !attack.signal.aborted);
  };
  await Promise.all(Array.from({ length: count }, one));
}

function open({ url, address, signal }) {
  const { hostname, port } = new URL(url);
  const socket = connect({ host: hostname, port: Number(port), localAddress: address });
  socket.on('error', () => undefined);
  const end = () => socket.destroy();
  if (signal.aborted) end();
  signal.addEventListener('abort', end, { once: true });
  socket.once('close', () => signal.removeEventListener('abort', end));
  return socket;
}

function head({ token }, method, path, more) {
  return `${method} ${path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${token}\r\n${more}\r\n`;
}
