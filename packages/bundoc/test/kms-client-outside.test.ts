import type { ServerResponse } from 'node:http';
import { systemClock } from '@bundoc/shared/runtime/clock';
import { describe, expect, it } from 'vitest';
import { OutsideKeys } from '../src/kms/outside-keys.ts';
import { answer, exported, problem, startScripted, useScriptedKms } from './support/scripted-kms.ts';

useScriptedKms();

const AWAY = { code: 'outside_key_unavailable', outside_key: 'acme' };
const keyOf = (url = '') => url.replace(/^\/v1\/export\//, '');
const many = (count: number) => Array.from({ length: count }, (_, n) => `acme${n}-dek`);

describe('calls for keys that customers hold', () => {
  it('take no connection of other exports while a service of a customer hangs', async () => {
    const hung: ServerResponse[] = [];
    const outside = new OutsideKeys(systemClock);
    const { client } = await startScripted(
      (request, response) => {
        const name = keyOf(request.url);
        if (name.startsWith('acme')) hung.push(response);
        else answer(response, 200, exported({ name }));
      },
      { outside },
    );
    for (const name of many(100)) outside.expect(name);
    const waiting = Promise.allSettled(many(100).map((name) => client.exportKey(name)));
    await expect.poll(() => hung.length).toBe(8);
    expect((await client.exportKey('p-dek')).version).toBe(1);
    expect(hung).toHaveLength(8);
    await client.close();
    await waiting;
  });

  it('keep no customer from his connections, when the service of another one is slow', async () => {
    const slow: ServerResponse[] = [];
    const outside = new OutsideKeys(systemClock);
    const { client } = await startScripted(
      (request, response) => {
        const name = keyOf(request.url);
        if (name.startsWith('acme')) slow.push(response);
        else answer(response, 200, exported({ name, outside_key: 'other' }));
      },
      { outside },
    );
    for (const name of many(100)) outside.answered(name, 'acme');
    const waiting = Promise.allSettled(many(100).map((name) => client.exportKey(name)));
    await expect.poll(() => slow.length).toBe(8);
    for (const name of ['o1-dek', 'o2-dek']) {
      outside.answered(name, 'other');
      expect((await client.exportKey(name)).version).toBe(1);
    }
    await client.close();
    await waiting;
  });

  it('wait in turn for a customer with many closed projects, and none of them is refused', async () => {
    const outside = new OutsideKeys(systemClock);
    let atOnce = 0;
    let most = 0;
    const { client } = await startScripted(
      (request, response) => {
        most = Math.max(most, ++atOnce);
        setTimeout(() => {
          atOnce--;
          answer(response, 200, exported({ name: keyOf(request.url), outside_key: 'acme' }));
        }, 20);
      },
      { outside },
    );
    for (const name of many(600)) outside.expect(name);
    const keys = await Promise.all(many(600).map((name) => client.exportKey(name)));
    expect(keys).toHaveLength(600);
    expect(most).toBeLessThanOrEqual(16);
  });

  it('creations that hang take no connection of exports', async () => {
    const hung: ServerResponse[] = [];
    const { client } = await startScripted((request, response) => {
      if (request.method === 'POST') hung.push(response);
      else answer(response, 200, exported());
    });
    const waiting = Promise.allSettled(many(40).map((name) => client.createKey(name)));
    await expect.poll(() => hung.length).toBe(16);
    expect((await client.exportKey('p-dek')).version).toBe(1);
    await client.close();
    await waiting;
  });

  it('are not repeated when the outside key is away; nothing else is asked under it until the time it says', async () => {
    const { client, calls, seen } = await startScripted((request, response) => {
      const name = keyOf(request.url);
      if (name.startsWith('acme')) answer(response, 503, AWAY, { 'retry-after': '9' });
      else answer(response, 200, exported({ name }));
    });
    const refused = { code: 'kms_unavailable', retryAfterS: 9 };
    await expect(client.exportKey('acme0-dek')).rejects.toMatchObject(refused);
    expect(calls()).toBe(1);
    await expect(client.exportKey('acme0-dek')).rejects.toMatchObject({ code: 'kms_unavailable' });
    expect(calls()).toBe(1);
    // It learns by one call each under which outside key another project is.
    await expect(client.exportKey('acme1-dek')).rejects.toMatchObject(refused);
    await expect(client.exportKey('acme1-dek')).rejects.toMatchObject({ code: 'kms_unavailable' });
    expect((await client.exportKey('p-dek')).version).toBe(1);
    expect(seen.map(({ url }) => keyOf(url))).toEqual(['acme0-dek', 'acme1-dek', 'p-dek']);
  });

  it('learn from an answered export and from a creation under which outside key a project is', async () => {
    let isAway = false;
    const { client, calls } = await startScripted((request, response) => {
      const name = keyOf(request.url);
      if (request.method === 'POST') answer(response, 201, { outside: { key: 'acme', lease_ttl_s: 60 } });
      else if (isAway) answer(response, 503, AWAY, { 'retry-after': '9' });
      else answer(response, 200, exported({ name, outside_key: 'acme' }));
    });
    await client.exportKey('acme0-dek');
    await client.createKey('acme1-dek');
    isAway = true;
    await expect(client.exportKey('acme0-dek')).rejects.toMatchObject({ code: 'kms_unavailable' });
    await expect(client.exportKey('acme1-dek')).rejects.toMatchObject({ code: 'kms_unavailable' });
    await expect(client.rotateKey('acme1-dek', 1)).rejects.toMatchObject({ code: 'kms_unavailable' });
    expect(calls()).toBe(3);
  });

  it('denied ones make no pause: the next call asks again', async () => {
    const { client, calls } = await startScripted((_request, response) =>
      answer(response, 403, { code: 'outside_key_denied', outside_key: 'acme' }),
    );
    for (const count of [1, 2]) {
      await expect(client.exportKey('acme0-dek')).rejects.toMatchObject({ code: 'project_disabled' });
      expect(calls()).toBe(count);
    }
  });

  it('a name that is none makes no pause', async () => {
    const { client, calls } = await startScripted((_request, response, call) =>
      call === 1 ? answer(response, 503, { ...AWAY, outside_key: '../x' }) : problem(response, 503, 'sealed'),
    );
    for (const count of [1, 2]) {
      await expect(client.exportKey('acme0-dek')).rejects.toMatchObject({ code: 'kms_unavailable' });
      expect(calls()).toBe(count);
    }
  });
});
