import { setTimeout as sleep } from 'node:timers/promises';
import { MovedClock } from '@bundoc/shared/testing/moved-clock';
import { afterEach, beforeEach, describe, expect, inject, it } from 'vitest';
import { call, Installation } from './support/installation.ts';

const HOUR_S = 3_600;
const CHECK_MS = 20;

let clock: MovedClock;
let installation: Installation;
let token: string;
let admin: string;
let monitor: string;
beforeEach(async () => {
  clock = new MovedClock();
  installation = await Installation.start({ clock, checkGenerationEveryMs: CHECK_MS });
  const scope = ['docs:read', 'docs:write'] as const;
  token = await installation.issue({
    sub: 'app',
    typ: 'client',
    scope: [...scope],
    projects: ['*'],
    ttl_s: 24 * HOUR_S,
  });
  monitor = await installation.issue({ sub: 'monitor', typ: 'service', scope: ['docs:metrics'] });
  admin = await installation.issue({ sub: 'ops', typ: 'service', scope: ['kms:read_key'], keys: ['*'] });
});
afterEach(() => installation[Symbol.asyncDispose]());

const generation = async () =>
  String((await call(installation.url, '/ready', { token: monitor })).json()['generation']);
/** The generation that BunKMS has confirmed. */
const confirmed = async () => {
  const path = `/v1/storages/${await installation.storageId()}`;
  return (await call(installation.kms.internalUrl, path, { token: admin })).json()['generation'];
};
const write = (n: number) =>
  call(installation.url, `/v1/projects/p/collections/c/documents/${n}`, {
    method: 'PUT',
    token,
    body: '{}',
  });
const pass = async (seconds: number) => {
  clock.movedMs += seconds * 1_000;
  await installation.stored.setIdentityBack(seconds);
};

describe('the generation of a storage in use', () => {
  it('is in /ready beside the free disk, only for service tokens with docs:metrics; other tokens, valid or not, change nothing there', async () => {
    const ask = async (headers: Record<string, string>) => {
      const answer = await call(installation.url, '/ready', { headers });
      return { status: answer.status, body: answer.json() };
    };
    const bearer = (of: string) => ({ authorization: `Bearer ${of}` });
    const open = await ask({});
    expect(open.status).toBe(200);
    for (const member of ['generation', 'disk']) expect(open.body).not.toHaveProperty(member);
    const all = ['docs:read', 'docs:write', 'docs:admin'] as const;
    const others = [
      token,
      admin,
      await installation.issue({ sub: 'x', typ: 'service', scope: [...all], projects: ['*'] }),
      await installation.issue({ sub: 'x', typ: 'client', scope: ['docs:metrics'] }, { unchecked: true }),
      `${monitor.slice(0, -8)}AAAAAAAA`,
      'nonsense',
    ];
    for (const other of others) expect(await ask(bearer(other))).toEqual(open);
    expect(await ask(bearer(monitor))).toEqual({
      status: 200,
      body: {
        ...open.body,
        generation: await confirmed(),
        ...(inject('postgresUrl') !== undefined
          ? {}
          : { disk: { folder: expect.stringMatching(/^\//), free_bytes: expect.any(Number) } }),
      },
    });
  });

  it('advances once it is an hour old, so that an older copy is refused, and no request fails', async () => {
    expect((await write(0)).status).toBe(201);
    let former = await generation();
    for (let hour = 1; hour <= 2; hour++) {
      await pass(HOUR_S);
      let writes = 0;
      await expect
        .poll(async () => {
          expect((await write(1_000 * hour + writes++)).status).toBe(201);
          return generation();
        })
        .not.toBe(former);
      const present = await generation();
      expect(await confirmed()).toBe(present);
      expect(JSON.parse(await installation.stored.identity())).toMatchObject({
        generation: present,
        candidates: [],
      });
      former = present;
    }
  });

  it('does not advance within an hour', async () => {
    const former = await generation();
    await pass(HOUR_S - 60);
    await sleep(5 * CHECK_MS);
    expect([await generation(), await confirmed()]).toEqual([former, former]);
  });
});
