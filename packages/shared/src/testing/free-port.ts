import { randomInt } from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:net';

/**
 * Below those that Linux gives to connections: one that is free now is not taken by a connection of another
 * test before it is used.
 */
const PORTS = { min: 15_000, max: 32_000 };
/** More than test files run at once. */
const SHARES = 17;
const SHARE = (PORTS.max - PORTS.min) / SHARES;

/** Those that nobody listens on yet, or not at the moment, and that somebody was given to listen on. */
const given = new Set<number>();

/**
 * A port of the loopback interface that nobody listens on, for a process that gets its port. No
 * other call gives it, in this test file or in one that runs beside it: it may be left and come back to.
 */
export async function freePort(): Promise<number> {
  // Of Vitest's slot for the file, which no other file has at the same time.
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
