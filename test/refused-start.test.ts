import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { runNode } from '@bundoc/shared/testing/node-process';
import { afterAll, describe, expect, it } from 'vitest';

const folder = mkdtempSync(join(tmpdir(), 'refused-start-'));
afterAll(() => rmSync(folder, { recursive: true }));
const tokenFile = join(folder, 'token');
writeFileSync(tokenFile, 'e30.e30.x');

/** The lines that a service logs, as `level: message`. It must end by itself. */
async function refusalOf(service: string, environment: Record<string, string>): Promise<string[]> {
  const main = fileURLToPath(new URL(`../packages/${service}/src/main.ts`, import.meta.url));
  const { code, stdout } = await runNode([main], { NODE_ENV: 'test', PATH: '', ...environment });
  expect(code).toBe(1);
  const lines = stdout.trim().split('\n');
  return lines.map((line) => {
    const { level, msg } = JSON.parse(line) as { level: string; msg: string };
    return `${level}: ${msg}`;
  });
}

const LEVELS = 'must be one of "fatal", "error", "warn", "info", "debug", "trace", "silent"';

describe('a service that cannot start', () => {
  it('names a misspelt variable first, then every fault with what is valid', async () => {
    expect(await refusalOf('bundoc', { BUNDOC_PROT: '1', BUNDOC_LOG_LEVEL: 'verbose' })).toEqual([
      'warn: unknown variables are ignored: BUNDOC_PROT (did you mean BUNDOC_PORT?)',
      'fatal: the configuration is not valid: BUNDOC_KMS_TOKEN_FILE: is required: the file of the service token for BunKMS',
      `fatal: the configuration is not valid: BUNDOC_LOG_LEVEL: ${LEVELS}`,
    ]);
    expect(await refusalOf('bunkms', { BUNKMS_KEK_FIEL: '/kek', BUNKMS_LOG_LEVEL: 'verbose' })).toEqual([
      'warn: unknown variables are ignored: BUNKMS_KEK_FIEL (did you mean BUNKMS_KEK_FILE?)',
      `fatal: the configuration is not valid: BUNKMS_LOG_LEVEL: ${LEVELS}`,
      'fatal: the configuration is not valid: BUNKMS_KEK_FILE: give either BUNKMS_KEK_FILE or BUNKMS_KEK',
    ]);
  });

  it('names the missing file, and the command that makes it', async () => {
    const path = join(folder, 'none');
    const [data, keys] = [join(folder, 'data'), join(folder, 'keys')];
    const missing = `the file ${path} cannot be read (ENOENT);`;
    expect(await refusalOf('bundoc', { BUNDOC_KMS_TOKEN_FILE: path, BUNDOC_DATA_DIR: data })).toContain(
      `fatal: the configuration is not valid: BUNDOC_KMS_TOKEN_FILE: ${missing} make it with: bunkms init --service-token ${path}`,
    );
    expect(existsSync(data)).toBe(false);
    expect(await refusalOf('bunkms', { BUNKMS_KEK_FILE: path, BUNKMS_DATA_DIR: keys })).toContain(
      `fatal: the configuration is not valid: BUNKMS_KEK_FILE: ${missing} put the KEK of the installation there; only for a new one, make it with: (umask 077; openssl rand -base64 32 > ${path})`,
    );
  });

  it.runIf(existsSync('/proc/self'))(
    'names a data folder that cannot be made, and does not wait',
    async () => {
      expect(
        await refusalOf('bundoc', { BUNDOC_KMS_TOKEN_FILE: tokenFile, BUNDOC_DATA_DIR: '/proc/x' }),
      ).toContainEqual(
        expect.stringContaining('BUNDOC_DATA_DIR: cannot make the data folder /proc/x (ENOENT)'),
      );
      expect(
        await refusalOf('bunkms', { BUNKMS_KEK: 'ab'.repeat(32), BUNKMS_DATA_DIR: '/proc/x' }),
      ).toContainEqual(
        expect.stringContaining('BUNKMS_DATA_DIR: cannot make the data folder /proc/x (ENOENT)'),
      );
    },
  );
});
