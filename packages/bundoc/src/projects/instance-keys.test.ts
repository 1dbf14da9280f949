import { AppError } from '@bundoc/shared/contract/app-error';
import { createLogger } from '@bundoc/shared/logs/logger';
import { nextTurn } from '@bundoc/shared/testing/timing';
import { describe, expect, it } from 'vitest';
import { startManager, startManagerOfMany } from '../testing/managed-instances.ts';
import { TTL_MS } from '../testing/open-instances.ts';
import { put, ref } from '../testing/writes.ts';
import { ProjectUpkeep } from './project-upkeep.ts';

describe('an InstanceManager whose keys change', () => {
  it('closes a project after its first use when its key was withdrawn while it opened', async () => {
    const { keys, manager, use, held, openings } = await startManagerOfMany();
    const gate = Promise.withResolvers<void>();
    held.gate = gate.promise;
    const opening = use('p');
    await expect.poll(openings).toBe(1);
    keys.evict('p');
    manager.sweep();
    gate.resolve();
    expect(await opening).toBe(true);
    expect(manager.size).toBe(0);
  });

  it('closes every project whose key is withdrawn, at once and however many are open', async () => {
    const { keys, manager, use, isOpen } = await startManagerOfMany();
    for (let n = 0; n < 200; n++) await use(`p${n}`);
    keys.evict('p150');
    manager.sweep();
    expect([isOpen('p150'), manager.size]).toEqual([false, 199]);
    keys.evictAll();
    manager.sweep();
    expect(manager.size).toBe(0);
  });

  it('serves a project without the key service until the key expires, then refuses, then recovers', async () => {
    const { clock, service, manager, write } = startManager();
    await write('p');
    service.failure = new AppError('kms_unavailable', { retryAfterS: 2 });
    clock.advance(TTL_MS - 1);
    await write('p', 'b');
    clock.advance(1);
    await expect(write('p', 'c')).rejects.toMatchObject({ code: 'kms_unavailable', retryAfterS: 2 });
    await expect(manager.acquire('p', 'existing')).rejects.toMatchObject({ code: 'kms_unavailable' });
    service.failure = undefined;
    clock.advance(1_000);
    using lease = await manager.acquire('p', 'existing');
    expect(await lease?.store.get(ref('b'))).toBeDefined();
  });

  it('closes a project, and drops its plaintext, when its key expires', async () => {
    const { clock, manager, write, opened, keys } = startManager();
    await write('p');
    clock.advance(TTL_MS);
    manager.sweep();
    await nextTurn();
    expect([manager.size, opened.get('p'), keys.size]).toEqual([0, 0, 0]);
  });

  it('lets a running request finish when the key expires, and opens no second writer in the meantime', async () => {
    const { clock, manager, write, opened } = startManager();
    const lease = await manager.acquire('p', 'create');
    clock.advance(TTL_MS);
    manager.sweep();
    let done = false;
    const next = write('p', 'b').then(() => {
      done = true;
    });
    await nextTurn();
    expect([done, opened.get('p')]).toEqual([false, 1]);
    await lease.store.commit([put('a', '{"v":1}')]);
    lease[Symbol.dispose]();
    await next;
    expect(opened.get('p')).toBe(1);
  });

  it('continues with the same store when its key is refreshed, and stores the new wrapping', async () => {
    const { clock, service, disk, write, openings } = startManager();
    await write('p');
    service.keys.get('p-dek')!.wrapped = Buffer.alloc(69, 9).toString('base64');
    clock.advance(TTL_MS * 0.8);
    await write('p');
    await nextTurn();
    await write('p');
    await nextTurn();
    expect(openings()).toBe(1);
    expect(String(disk.files().get('/projects/p/project.json'))).toContain(
      Buffer.alloc(69, 9).toString('base64'),
    );
    clock.advance(TTL_MS * 0.5);
    service.failure = new AppError('kms_unavailable');
    await write('p');
  });

  it('stores the new wrapping of an older version as well when that version is refreshed', async () => {
    const { clock, service, disk, write, keys, openings } = startManager();
    await write('p');
    await keys.rotate('p', 1);
    await write('p');
    await nextTurn();
    const opened = openings();
    service.keys.get('p-dek')!.before![0]!.wrapped = Buffer.alloc(69, 9).toString('base64');
    clock.advance(TTL_MS * 0.8);
    await write('p');
    await nextTurn();
    await write('p');
    await nextTurn();
    expect(openings()).toBe(opened);
    expect(JSON.parse(String(disk.files().get('/projects/p/project.json'))).versions[0].wrapped).toBe(
      Buffer.alloc(69, 9).toString('base64'),
    );
  });

  it('closes a project at once when the key service has another key for it', async () => {
    const { clock, service, write } = startManager();
    await write('p');
    service.put('p-dek');
    clock.advance(TTL_MS * 0.8);
    await write('p');
    await nextTurn();
    await expect(write('p')).rejects.toMatchObject({ code: 'key_mismatch' });
  });

  it('follows a rotation without a refused request: it writes under the new version and re-seals the old documents', async () => {
    const { clock, service, keys, logger, manager, disk, write } = startManager();
    const upkeep = new ProjectUpkeep({ instances: manager, logger, resealsMax: 5 });
    for (let n = 0; n < 12; n++) await write('p', `doc-${n}`);
    await Promise.all([keys.rotate('p', 1), keys.rotate('p', 1)]);
    expect(service.keys.get('p-dek')?.version).toBe(2);
    await write('p', 'after');
    const file = JSON.parse(String(disk.files().get('/projects/p/project.json')));
    expect(file.versions.map(({ version }: { version: number }) => version)).toEqual([1, 2]);
    expect(file.nameKey).toHaveLength(2);
    expect(manager.pendingReencryption).toBe(12);
    while (manager.pendingReencryption > 0) await upkeep.run();
    clock.advance(TTL_MS);
    using lease = await manager.acquire('p', 'existing');
    for (let n = 0; n < 12; n++) expect(await lease?.store.get(ref(`doc-${n}`))).toBeDefined();
    expect(await lease?.store.get(ref('after'))).toBeDefined();
  });

  it('logs that documents could not be re-sealed, counts them as pending, and re-seals them once they are readable', async () => {
    const { clock, keys, manager, disk, write } = startManager();
    const lines: Record<string, unknown>[] = [];
    const destination = { write: (line: string) => void lines.push(JSON.parse(line)) };
    const logger = createLogger({ service: 'bundoc', level: 'warn', destination });
    const upkeep = new ProjectUpkeep({ instances: manager, logger, resealsMax: 5 });
    for (let n = 0; n < 3; n++) await write('p', `doc-${n}`);
    await keys.rotate('p', 1);
    clock.advance(TTL_MS);
    manager.sweep();
    await write('p', 'after');
    disk.failing = (operation) => (operation.startsWith('read /projects/p/docs') ? 'before' : undefined);
    for (let n = 0; n < 3; n++) await upkeep.run();
    expect(lines).toMatchObject([
      { level: 'warn', project: 'p', skipped: 3, msg: expect.stringContaining('could not be re-sealed') },
    ]);
    expect(manager.pendingReencryption).toBe(3);
    disk.failing = undefined;
    await upkeep.run();
    expect(manager.pendingReencryption).toBe(3);
    clock.advance(60_000);
    while (manager.pendingReencryption > 0) await upkeep.run();
  });

  it('refuses a key whose version is older than before', async () => {
    const { clock, service, keys, write } = startManager();
    await write('p');
    const first = service.keys.get('p-dek')!;
    await keys.rotate('p', 1);
    await write('p');
    service.keys.set('p-dek', first);
    clock.advance(TTL_MS);
    await expect(write('p')).rejects.toMatchObject({ code: expect.stringMatching(/key_m/) });
  });

  it('closes a project with a dropped key after its last request, and never reopens it under an earlier key', async () => {
    const { manager, keys, service, write, closings } = startManager();
    await write('p');
    const lease = await manager.acquire('p', 'create');
    keys.evict('p');
    manager.sweep();
    expect(manager.size).toBe(0);
    await lease.store.commit([put('b', '{"v":2}')]);
    expect(closings()).toBe(0);
    lease[Symbol.dispose]();
    await expect.poll(closings).toBe(1);
    service.failure = new AppError('kms_unavailable');
    await expect(write('p', 'c')).rejects.toMatchObject({ code: 'kms_unavailable' });
  });
});
