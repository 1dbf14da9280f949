import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { runs } from '@bundoc/shared/testing/long';
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest';
import { call, Installation } from './support/installation.ts';

const MIB = 1_048_576;
const ATTACK_MS = runs(1_200, 3_000);
const MEMORY_BYTES = 512 * MIB;
const SHARES = ['places', 'bytes', 'streams', 'stream_bytes', 'page_reads'];

describe('a neighbour gets no refusal, and no share stays held, during and after an attack with', () => {
  let installation: Installation;
  let attacker: string;
  let neighbour: string;
  let attack: ChildProcess | undefined;

  beforeAll(async () => {
    using _memory = vi.spyOn(process, 'constrainedMemory').mockReturnValue(MEMORY_BYTES);
    installation = await Installation.start({ http: {} });
    attacker = await installation.client(['attacker']);
    neighbour = await installation.client(['neighbour']);
    const documents = (collection: string) => `/v1/projects/attacker/collections/${collection}/documents`;
    const large = JSON.stringify({ n: 1, s: 'x'.repeat(MIB - 1_024) });
    for (let n = 0; n < 16; n++)
      await call(installation.url, `${documents('large')}/${n}`, {
        method: 'PUT',
        token: attacker,
        body: large,
      });
    const dense = JSON.stringify({ v: Array.from({ length: 60_000 }, (_, n) => n % 10) });
    await call(installation.url, `${documents('dense')}/1`, { method: 'PUT', token: attacker, body: dense });
  });
  afterEach(() => {
    attack?.kill('SIGKILL');
  });
  afterAll(() => installation[Symbol.asyncDispose]());

  /** Reads, writes and queries, one after another. @returns the statuses. */
  async function requests(): Promise<Set<number>> {
    const collection = '/v1/projects/neighbour/collections/notes';
    const statuses = new Set<number>();
    const endMs = performance.now() + ATTACK_MS;
    for (let n = 0; performance.now() < endMs; n++) {
      const send = async (method: string, path: string, body?: string) =>
        statuses.add(
          (
            await call(installation.url, path, {
              method,
              token: neighbour,
              ...(body === undefined ? {} : { body }),
            })
          ).status,
        );
      await send('PUT', `${collection}/documents/${n % 20}`, JSON.stringify({ n, text: 'x'.repeat(20_000) }));
      await send('GET', `${collection}/documents/${n % 20}`);
      await send('GET', `${collection}/documents?limit=10`);
      await send('POST', `${collection}/query`, '{"where":{"n":{"$gt":0}},"limit":2}');
    }
    return statuses;
  }

  async function figures(name: 'held' | 'waiting'): Promise<number[]> {
    const text = await installation.metrics();
    return SHARES.map((share) => {
      const found = new RegExp(`^bundoc_share_${name}\\{share="${share}"\\} (\\d+)$`, 'm').exec(text);
      return Number(found?.[1]);
    });
  }

  it.each([
    '8 idle bodies of 16 MiB',
    '512 idle bodies of 256 KiB',
    '4000 idle bodies of 4 KiB',
    'slow readers of large answers',
    'slow readers of small answers',
    'change streams',
    'silent connections',
  ])('%s', async (name) => {
    attack = fork(new URL('../bench/lib/attacker.mjs', import.meta.url), { stdio: 'inherit', execArgv: [] });
    const attackers = [{ token: attacker, project: 'attacker', address: '127.0.1.1' }];
    attack.send({ name, url: installation.url, attackers });
    const statuses = await requests();
    expect([...statuses].filter((status) => ![200, 201, 204].includes(status))).toEqual([]);
    const ended = once(attack, 'exit');
    attack.send('stop');
    await Promise.race([ended, sleep(2_000)]);
    attack.kill('SIGKILL');
    const none = SHARES.map(() => 0);
    await expect.poll(() => figures('held'), { timeout: 10_000 }).toEqual(none);
    expect(await figures('waiting')).toEqual(none);
  });
});
