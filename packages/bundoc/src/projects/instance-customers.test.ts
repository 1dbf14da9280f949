import { expect, it } from 'vitest';
import { newPlace, openInstances } from '../testing/open-instances.ts';

/** More than can be opened at once. */
const CUSTOMERS = Array.from({ length: 40 }, (_, n) => `customer${n}`);

it('projects that wait for the services of customers keep no other project from opening', async () => {
  const place = newPlace();
  const { service } = place;
  const before = openInstances(place);
  await before.write('ordinary');
  for (const project of CUSTOMERS) {
    await service.createKey(`${project}-dek`, service.acting);
    const key = service.keys.get(`${project}-dek`);
    if (key === undefined) throw new Error('the key was just created');
    key.wrapped = Buffer.concat([Buffer.of(2), Buffer.alloc(80)]).toString('base64');
    await before.write(project);
  }
  await before.instances[Symbol.asyncDispose]();

  const { promise: answers, resolve } = Promise.withResolvers<void>();
  const exportKey = service.exportKey.bind(service);
  let asked = 0;
  service.exportKey = async (name, ...more) => {
    if (name.startsWith('customer')) {
      asked++;
      await answers;
    }
    return await exportKey(name, ...more);
  };
  const { instances } = openInstances(place);
  const use = async (project: string) => {
    using lease = await instances.acquire(project, 'existing');
    return lease !== undefined;
  };
  const waiting = CUSTOMERS.map(use);
  await expect.poll(() => asked).toBe(CUSTOMERS.length);
  expect(await use('ordinary')).toBe(true);
  resolve();
  expect(new Set(await Promise.all(waiting))).toEqual(new Set([true]));
  await instances[Symbol.asyncDispose]();
});
