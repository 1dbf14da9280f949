import { once } from 'node:events';
import { connect, type Socket } from 'node:net';

/** Seeded random integers from 0 up to, but not including, `below` (mulberry32). */
export function randomsOf(seed: number): (below: number) => number {
  let state = seed >>> 0;
  return (below) => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) % below;
  };
}

type Random = (below: number) => number;

export interface RawRequest {
  readonly method: string;
  readonly path: string;
  readonly headers: readonly string[];
  /** Absent for a request without a body. */
  readonly body?: string;
}

/** The bytes of a request with valid framing, one character for each byte. */
export function bytesOf({ method, path, headers, body }: RawRequest): string {
  const framing = body === undefined ? [] : [`Content-Length: ${body.length}`];
  return `${[`${method} ${path} HTTP/1.1`, 'Host: x', ...headers, ...framing].join('\r\n')}\r\n\r\n${body ?? ''}`;
}

export interface Mutation {
  readonly name: string;
  readonly bytes: string;
}

const CODINGS = [
  'gzip',
  'gzip, chunked',
  'chunked, gzip',
  'xchunked',
  'chunked\r\nTransfer-Encoding: chunked',
];
const HOSTS = ['', 'Host: x\r\nHost: y', 'Host: a b', 'Host:', 'Host : x', 'Host: x/y', '\tHost: x'];
const VERSIONS = ['HTTP/2.0', 'HTTP/0.9', 'HTTP/1.2', 'HTTP/11', 'http/1.1', 'HTTP/1.0', ''];
const METHODS = ['GRAB', 'PROPFIND', 'put', 'TRACE', 'OPTIONS', 'PUTT', 'P'];
const LENGTHS = [
  '-1',
  '+2',
  '0x2',
  '2, 2',
  '1e1',
  '',
  '99999999999999999999',
  ' 2 2',
  '2\r\nContent-Length: 3',
];
const CHUNKS = [
  'zz\r\n',
  '-1\r\n',
  '5\r\nabc',
  'ffffffffffffffffff\r\n',
  '2;a=b\r\n{}\r\n0\r\n\r\n',
  '2\r\n{}x\r\n0\r\n\r\n',
  '\r\n',
];
const SURPLUS = [
  'garbage\r\n\r\n',
  '\0\0\0',
  '}',
  '\r\n\r\nx',
  '\x16\x03\x01\x00\xa5',
  'GET',
  '{"a":1}',
  ' \r\n',
];

/** Mutates the framing, the head or the body of a request, or appends stray bytes. */
export function mutate(request: RawRequest, random: Random): Mutation {
  const pick = <T>(from: readonly T[]): T => from[random(from.length)] as T;
  const bytes = bytesOf(request);
  const head = bytes.indexOf('\r\n\r\n');
  const body = request.body ?? '';
  const at = random(head);
  const framed = (framing: string, content = body): string =>
    `${bytes.slice(0, head).replace(/Content-Length: \d+/, framing)}\r\n\r\n${content}`;
  const all: readonly (() => Mutation)[] = [
    () => ({ name: 'surplus bytes', bytes: bytes + pick(SURPLUS) }),
    () => ({ name: 'cut', bytes: bytes.slice(0, random(bytes.length)) }),
    () => ({
      name: `byte ${at} replaced`,
      bytes: bytes.slice(0, at) + String.fromCharCode(random(256)) + bytes.slice(at + 1),
    }),
    () => ({
      name: `bytes inserted at ${at}`,
      bytes:
        bytes.slice(0, at) + pick(['\r\n', '\n', '\0', ' ', '\t', ':', '\xff', '\r\n ']) + bytes.slice(at),
    }),
    () => ({ name: 'length', bytes: framed(`Content-Length: ${pick(LENGTHS)}`) }),
    () => ({ name: 'length too large', bytes: framed(`Content-Length: ${body.length + 1 + random(40)}`) }),
    () => ({ name: 'length too small', bytes: framed(`Content-Length: ${random(body.length + 1)}`) }),
    () => ({ name: 'no length', bytes: framed('X: y') }),
    () => ({
      name: 'coding',
      bytes: framed(
        `Transfer-Encoding: ${pick(CODINGS)}`,
        `${body.length.toString(16)}\r\n${body}\r\n0\r\n\r\n`,
      ),
    }),
    () => ({
      name: 'length and coding',
      bytes: framed(`Content-Length: ${body.length}\r\nTransfer-Encoding: chunked`, `0\r\n\r\n${body}`),
    }),
    () => ({ name: 'chunks', bytes: framed('Transfer-Encoding: chunked', pick(CHUNKS)) }),
    () => ({ name: 'host', bytes: bytes.replace('Host: x\r\n', `${pick(HOSTS)}\r\n`.replace(/^\r\n$/, '')) }),
    () => ({ name: 'version', bytes: bytes.replace('HTTP/1.1', pick(VERSIONS)) }),
    () => ({ name: 'method', bytes: bytes.replace(request.method, pick(METHODS)) }),
    () => ({ name: 'fragment', bytes: bytes.replace(' HTTP/1.1', '#f HTTP/1.1') }),
    () => ({ name: 'expectation', bytes: bytes.replace('Host: x', 'Host: x\r\nExpect: 100-continue') }),
    () => ({ name: 'line ends', bytes: bytes.slice(0, head).replaceAll('\r\n', '\n') + bytes.slice(head) }),
    () => ({ name: 'no credentials', bytes: bytes.replace(/Authorization: [^\r]*\r\n/, '') }),
    () => ({
      name: 'headers too large',
      bytes: bytes.replace('Host: x', `Host: x\r\nX: ${'a'.repeat(17_000)}`),
    }),
    () => ({ name: 'body', bytes: framed(`Content-Length: ${body.length}`, '['.repeat(body.length)) }),
  ];
  return pick(all)();
}

export interface RawAnswer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
}

let connections = 0;

/** A connection, and what it has received. Its address is its own: refusals of one address are delayed. */
class RawConnection {
  readonly socket: Socket;
  readonly #chunks: Buffer[] = [];
  readonly #closed: Promise<unknown>;
  readonly #ended: Promise<void>;

  constructor(port: number) {
    const localAddress = process.platform === 'linux' ? `127.0.1.${++connections % 256}` : '127.0.0.1';
    this.socket = connect({ port, host: '127.0.0.1', localAddress, allowHalfOpen: true });
    this.socket.on('data', (chunk) => this.#chunks.push(chunk));
    this.socket.on('error', () => undefined);
    this.socket.setNoDelay(true);
    this.#closed = once(this.socket, 'close', { signal: AbortSignal.timeout(60_000) });
    this.#ended = new Promise((resolve) => {
      this.socket.once('end', resolve);
      this.socket.once('close', () => resolve());
    });
  }

  /** Sends each request once the one before it is answered. */
  async sendAll(requests: readonly string[]): Promise<void> {
    for (const [at, request] of requests.entries()) {
      this.socket.write(Buffer.from(request, 'latin1'));
      while (this.#answers() <= at) await Promise.race([once(this.socket, 'data'), this.whenEnded()]);
    }
  }

  /** Resolves when the server has ended its half, or the connection is closed. */
  whenEnded(): Promise<unknown> {
    return Promise.race([this.#ended, this.#closed]);
  }

  whenClosed(): Promise<unknown> {
    return this.#closed;
  }

  get text(): string {
    return Buffer.concat(this.#chunks).toString('latin1');
  }

  /** The number of complete answers. */
  #answers(): number {
    try {
      return answersIn(this.text).length;
    } catch (error) {
      if (this.socket.readableEnded || this.socket.destroyed) throw error;
      return 0;
    }
  }
}

/**
 * Sends requests one after the other, then bytes up to `stalledAt`, and the rest only once the server has
 * ended its half of the connection.
 */
export async function exchangeStalled(
  port: number,
  before: readonly string[],
  bytes: string,
  stalledAt: number,
): Promise<RawAnswer[]> {
  const connection = new RawConnection(port);
  const { socket } = connection;
  await connection.sendAll(before);
  socket.write(Buffer.from(bytes.slice(0, stalledAt), 'latin1'));
  await connection.whenEnded();
  socket.end(Buffer.from(bytes.slice(stalledAt), 'latin1'));
  await connection.whenClosed();
  return answersIn(connection.text);
}

/**
 * Sends requests one after the other, then bytes in pieces, ends its half of the connection, and reads until
 * the server ends the other half.
 *
 * @throws Error when the server does not end the connection in time, or sends something other than answers.
 */
export async function exchange(
  port: number,
  before: readonly string[],
  bytes: string,
  random: Random,
): Promise<RawAnswer[]> {
  const connection = new RawConnection(port);
  const { socket } = connection;
  await connection.sendAll(before);
  let sent = 0;
  while (sent < bytes.length && socket.writable) {
    const size = random(3) === 0 ? 1 + random(20) : bytes.length;
    socket.write(Buffer.from(bytes.slice(sent, sent + size), 'latin1'));
    sent += size;
    await new Promise(setImmediate);
  }
  socket.end();
  await connection.whenEnded();
  socket.destroy();
  return answersIn(connection.text);
}

function answersIn(text: string): RawAnswer[] {
  const answers: RawAnswer[] = [];
  let rest = text;
  while (rest !== '') {
    const head = rest.slice(0, rest.indexOf('\r\n\r\n'));
    const [line = '', ...lines] = head.split('\r\n');
    const status = Number(/^HTTP\/1\.1 (\d{3}) /.exec(line)?.[1]);
    if (!(status >= 100)) throw new Error(`no answer: ${JSON.stringify(rest.slice(0, 200))}`);
    const headers = Object.fromEntries(
      lines.map((one) => [one.slice(0, one.indexOf(':')).toLowerCase(), one.slice(one.indexOf(':') + 2)]),
    );
    const length = status === 204 || status < 200 ? 0 : Number(headers['content-length']);
    const from = head.length + 4;
    const body = rest.slice(from, from + length);
    if (body.length !== length)
      throw new Error(`an answer is truncated: ${JSON.stringify(rest.slice(0, 400))}`);
    rest = rest.slice(from + length);
    if (status >= 200) answers.push({ status, headers, body });
  }
  return answers;
}
