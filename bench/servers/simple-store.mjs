// The first store of this project (commit be18d37), reduced to the measured parts. Each document is a sealed
// file. It is written to a temporary file, synced and renamed, and its folder is synced before the write is
// acknowledged.

import { createHmac, createSecretKey, randomBytes } from 'node:crypto';
import { mkdirSync } from 'node:fs';
import { open as openFile, readFile, rename } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { aadOf, open, seal } from '@bundoc/shared/crypto/aead';

export async function openStore(directory) {
  const key = createSecretKey(randomBytes(32));
  const nameKey = createSecretKey(randomBytes(32));
  mkdirSync(join(directory, 'tmp'), { recursive: true });
  const madeFolders = new Set();
  const nameOf = ({ project, collection, id }) =>
    createHmac('sha256', nameKey).update(`${project}\0${collection}\0${id}`).digest().toString('hex', 0, 16);
  const pathOf = (name) => join(directory, 'docs', name.slice(0, 2), name);
  const sync = async (path) => {
    const handle = await openFile(path, 'r');
    try {
      await handle.sync();
    } finally {
      await handle.close();
    }
  };

  return {
    async put(ref, text) {
      const name = nameOf(ref);
      const path = pathOf(name);
      const folder = dirname(path);
      if (!madeFolders.has(folder)) {
        mkdirSync(folder, { recursive: true });
        madeFolders.add(folder);
      }
      const temporary = join(directory, 'tmp', randomBytes(12).toString('hex'));
      const file = await openFile(temporary, 'wx', 0o600);
      try {
        await file.writeFile(seal(key, text, aadOf('bench/doc/v1', name)));
        await file.sync();
      } finally {
        await file.close();
      }
      await rename(temporary, path);
      await sync(folder);
    },
    async get(ref) {
      const name = nameOf(ref);
      return open(key, await readFile(pathOf(name)), aadOf('bench/doc/v1', name));
    },
  };
}
