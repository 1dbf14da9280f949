import { execFile, spawnSync } from 'node:child_process';
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { findProgram, needs } from '@bundoc/shared/testing/programs';
import { describe, expect, it, onTestFinished } from 'vitest';
import { bunkmsProcess, startServer } from '../packages/bunkms/test/support/process.ts';

const page = readFileSync(join(import.meta.dirname, '../docs/how-to/systemd-credential.md'), 'utf8');

/** The blocks of a language that run, without the indentation of a surrounding list. */
function blocksOf(language: string): string[] {
  const blocks = page.matchAll(
    new RegExp(`^(?: *<!-- (not run): .+ -->\\n)?( *)\`\`\`${language}\\n([\\s\\S]*?)^\\2\`\`\`$`, 'gm'),
  );
  return [...blocks].flatMap(([, notRun, indent = '', code = '']) =>
    notRun === undefined ? [code.replaceAll(new RegExp(`^${indent}`, 'gm'), '')] : [],
  );
}

function newFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), 'bunkms-systemd-'));
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

describe('the KEK as a credential of systemd', needs('systemd'), () => {
  it('is in a unit that systemd accepts', async () => {
    const [unit = ''] = blocksOf('ini');
    expect(unit).toContain('LoadCredentialEncrypted=kek:');
    const file = join(newFolder(), 'bunkms.service');
    // Neither program is where the page has it.
    writeFileSync(file, unit.replace('/usr/bin/node', process.execPath));
    const args = ['verify', '--man=no', '--recursive-errors=no', file];
    const { status, stderr } = spawnSync(findProgram('systemd-analyze') ?? '', args, { encoding: 'utf8' });
    expect([status, stderr.split('\n').filter((line) => line.includes('bunkms.service'))]).toEqual([0, []]);
    // It would complain.
    writeFileSync(file, unit.replace('LoadCredentialEncrypted', 'LoadCredentialEncrypt'));
    const wrong = spawnSync(findProgram('systemd-analyze') ?? '', args, { encoding: 'utf8' });
    expect(wrong.stderr).toMatch(/Unknown key( name)? 'LoadCredentialEncrypt'/);
  });

  it('is encrypted by the commands of the page, and BunKMS starts with it from a read-only folder', async () => {
    const folder = newFolder();
    const [dataDir, kek] = [join(folder, 'kms'), join(folder, 'kek')];
    const installation = { BUNKMS_DATA_DIR: dataDir, BUNKMS_KEK_FILE: kek };
    expect(await bunkmsProcess(installation, 'init', '--create-kek')).toMatchObject({ code: 0 });
    const commands = blocksOf('sh');
    expect(commands).toHaveLength(3);
    // Nothing of the machine's own changes. "auto" refuses a machine's key that is in memory, as here.
    const script = commands
      .join('\n')
      .replaceAll('/dev/shm/bunkms', join(folder, 'memory'))
      .replace('--with-key=auto', '--with-key=host');
    await promisify(execFile)('bash', ['-euo', 'pipefail', '-c', script], {
      cwd: folder,
      env: {
        PATH: process.env['PATH'],
        HOME: folder,
        BUNKMS_KEK_FILE: kek,
        SYSTEMD_CREDENTIAL_SECRET: join(folder, 'machine-key'),
      },
    });
    const encrypted = readFileSync(join(folder, 'kek.cred'), 'utf8');
    expect(encrypted).not.toContain(readFileSync(kek, 'utf8').trim());
    // As systemd does it: a folder and a file that the service may only read, with the bits of a list (ACL).
    const credentials = join(folder, 'credentials');
    mkdirSync(credentials);
    writeFileSync(join(credentials, 'kek'), readFileSync(join(folder, 'memory', 'kek')));
    chmodSync(join(credentials, 'kek'), 0o440);
    chmodSync(credentials, 0o550);
    rmSync(kek);
    await using server = await startServer({
      BUNKMS_DATA_DIR: dataDir,
      BUNKMS_KEK_FILE: join(credentials, 'kek'),
    });
    expect((await fetch(`${server.apiUrl}/ready`)).status).toBe(200);
    chmodSync(credentials, 0o750);
  });
});
