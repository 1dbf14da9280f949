import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { AppError } from '@bundoc/shared/contract/app-error';
import { createLogger } from '@bundoc/shared/logs/logger';
import { expect, it } from 'vitest';
import { startBundoc } from '../src/app.ts';
import { readConfig } from '../src/config.ts';
import { openNodeDisk } from '../src/engine/files/disk/node-disk.ts';
import { identifyFolder } from '../src/engine/files/identity-in-folder.ts';

it('on a full disk /ready says 503, the log names the folder and its free space, and /ready leaves no file behind', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'bundoc-ready-'));
  const tokenFile = join(folder, 'token');
  writeFileSync(tokenFile, 'e30.e30.x');
  await using disk = openNodeDisk(folder);
  const { id } = await (await identifyFolder(disk, folder)).read();
  let probes = 0;
  const lines: string[] = [];
  const log = (line: string) => void lines.push(line);
  const bundoc = await startBundoc(
    readConfig({
      BUNDOC_PORT: '0',
      BUNDOC_DATA_DIR: folder,
      BUNDOC_KMS_URL: 'http://127.0.0.1:1',
      BUNDOC_KMS_TOKEN_FILE: tokenFile,
    }),
    {
      logger: createLogger({ service: 'bundoc', level: 'warn', destination: { write: log } }),
      wrapDisk: (own) => ({
        ...own,
        createFile: async (path, content) => {
          if (!basename(path).startsWith('probe-')) return own.createFile(path, content);
          probes++;
          writeFileSync(path, '');
          throw new AppError('disk_full');
        },
      }),
    },
  );
  try {
    const answer = await fetch(`${bundoc.url}/ready`);
    expect([answer.status, await answer.json()]).toEqual([
      503,
      {
        service: 'bundoc',
        status: 'not ready',
        storage: 'failing',
        kms: 'down',
        kms_events: 'down',
        storage_id: id,
        reason: 'kms_unavailable',
      },
    ]);
    // The folder and its free space are for operators: in the log, and for a monitor's token.
    await expect
      .poll(() => lines.map((line) => JSON.parse(line) as object))
      .toContainEqual(
        expect.objectContaining({
          level: 'warn',
          msg: 'the data folder cannot be written: storage_unavailable',
          folder,
          free_mib: expect.any(Number),
        }),
      );
    expect(probes).toBe(1);
    expect(readdirSync(join(folder, 'tmp'))).toEqual([]);
  } finally {
    await bundoc.close();
    rmSync(folder, { recursive: true });
  }
});
