import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { deriveKey } from '@bundoc/shared/crypto/aead';
import type { PostgresServer } from '@bundoc/shared/testing/postgres-server';
import { afterEach, beforeEach } from 'vitest';
import { MARK_KEY, type MoveMark, openMoveMark, sealMoveMark } from '../../src/engine/moves/move-mark.ts';
import type { Database } from '../../src/engine/postgres/database/database.ts';
import type { StorageCalls } from '../../src/kms/port.ts';
import { type Cut, Moving, type Place } from './moving.ts';
import { useDatabase } from './use-database.ts';

export let server: PostgresServer;
let database: Database;
export let moving: Moving;

let projects = 0;

export const markOf = async (place: Place): Promise<string | undefined> => {
  if (place === 'files') {
    const path = join(moving.directory, 'move.mark');
    return existsSync(path) ? readFileSync(path, 'utf8') : undefined;
  }
  const of = `WHERE project = '${moving.project}'`;
  return (await server.sql(`SELECT marker FROM bundoc.projects ${of}`, 'bundoc')) || undefined;
};

export const setMark = async (place: Place, mark: string): Promise<void> => {
  if (place === 'files') writeFileSync(join(moving.directory, 'move.mark'), mark);
  else {
    const of = `WHERE project = '${moving.project}'`;
    await server.sql(`UPDATE bundoc.projects SET marker = '${mark}' ${of}`, 'bundoc');
  }
};

/** The mark of the same move in another state. */
export const resealed = async (text: string, state: MoveMark['state']): Promise<string> => {
  const { project, service } = moving;
  const key = deriveKey((await service.exportKey(`${project}-dek`)).dek, MARK_KEY);
  const mark = (await openMoveMark(project, text, async () => key)) as MoveMark;
  return sealMoveMark(project, { version: 1, subkey: () => key } as never, { ...mark, state });
};

/** BunKMS with another behaviour for one call. */
export const withCall = <Name extends keyof StorageCalls>(
  name: Name,
  call: StorageCalls[Name],
): StorageCalls =>
  new Proxy<StorageCalls>(moving.service, {
    get: (target, key) => {
      if (key === name) return call;
      const value: unknown = Reflect.get(target, key);
      return typeof value === 'function' ? value.bind(target) : value;
    },
  });

export const cuts: Cut[] = [
  'dead before it',
  'dead after it',
  'BunKMS away before it',
  'BunKMS away after it',
];

/** Call it in a `describe`. Its tests have a server, and each a project that moves. */
export function useMoves(): void {
  useDatabase(
    (used) => {
      ({ server, database } = used);
    },
    { connectionsMax: 20 },
  );
  beforeEach(() => {
    moving = new Moving(database, `ends-${projects++}`);
  });
  afterEach(() => moving[Symbol.asyncDispose]());
}
