import { randomInt } from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:net';

/**
 * Below Linux's ephemeral ports, so that no outgoing connection of another test takes a free port before it
 * is used.
 */
const PORTS = { min: 15_000, max: 32_000 };
/** More than the number of concurrent test files. */
const SHARES = 17;
const SHARE = (PORTS.max - PORTS.min) / SHARES;

/** Ports that callers have got, whether or not they listen on them now. */
const given = new Set<number>();

/**
 * A port of the loopback interface that nobody listens on, for a process that needs its port in advance. No
 * other call returns it, in this or a concurrent test file. So the process can stop and listen on it again.
 */
export async function freePort(): Promise<number> {
  // By Vitest's slot of the file, which no concurrent file has.
  const share = Number(process.env['VITEST_POOL_ID'] ?? 0) % SHARES;
  for (;;) {
    const port = PORTS.min + share * SHARE + randomInt(SHARE);
    if (given.has(port)) continue;
    given.add(port);
    if (await isFree(port)) return port;
  }
}

async function isFree(port: number): Promise<boolean> {
  const probe = createServer();
  try {
    probe.listen(port, '127.0.0.1');
    await once(probe, 'listening');
  } catch {
    return false;
  }
  probe.close();
  await once(probe, 'close');
  return true;
}
