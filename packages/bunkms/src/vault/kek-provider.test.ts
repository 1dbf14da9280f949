import { randomBytes } from 'node:crypto';
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ConfigError } from '@bundoc/shared/process/config';
import { afterAll, describe, expect, it } from 'vitest';
import { fileKekProvider, inlineKekProvider, parseKekRing } from './kek-provider.ts';

const folder = mkdtempSync(join(tmpdir(), 'bunkms-kek-'));
afterAll(() => rmSync(folder, { recursive: true }));

const [one, two] = [randomBytes(32), randomBytes(32)];

describe('a KEK ring', () => {
  it('accepts base64 and hex, skips comments and empty lines, and keeps the order', () => {
    const text = `# current\n${one.toString('base64')}\r\n\n  ${two.toString('hex').toUpperCase()}  \n`;
    expect(parseKekRing('K', text).map((kek) => kek.export())).toEqual([one, two]);
  });

  it.each([
    ['nothing', ''],
    ['only a comment', '# key'],
    ['31 bytes', randomBytes(31).toString('base64')],
    ['33 bytes', randomBytes(33).toString('base64')],
    ['63 hex digits', one.toString('hex').slice(1)],
    ['base64 without padding', one.toString('base64').replace('=', '')],
    ['base64url', Buffer.alloc(32, 0xff).toString('base64url')],
    ['base64 with unused bits that are not zero', `${Buffer.alloc(32).toString('base64').slice(0, 42)}B=`],
    ['a stray character', one.toString('base64').replace(/^./, '!')],
    ['words', 'correct horse battery staple'],
    ['a byte order mark', `\ufeff${one.toString('hex')}x`],
    ['a key twice', `${one.toString('hex')}\n${one.toString('base64')}`],
    ['nine keys', Array.from({ length: 9 }, () => randomBytes(32).toString('hex')).join('\n')],
  ])('is refused when it contains %s', (_what, text) => {
    expect(() => parseKekRing('K', text)).toThrow(ConfigError);
  });

  it('is refused with an error that names every faulty line and quotes none', () => {
    const secret = one.toString('hex').slice(2);
    const refused = () => parseKekRing('BUNKMS_KEK', `${secret}\n${two.toString('hex')}\nnonsense`);
    expect(refused).toThrow(/line 1[\s\S]*line 3/);
    expect(refused).not.toThrow(secret);
    expect(refused).not.toThrow('nonsense');
  });

  it.each(['base64', 'hex'] as const)(
    'is refused with the remedy when two keys in %s have no line break between',
    (form) => {
      const joined = one.toString(form) + two.toString(form);
      const refused = () => parseKekRing('BUNKMS_KEK', joined);
      expect(refused).toThrow(
        'line 1 is neither 32 bytes in base64 nor 64 hex digits; give each key a line of its own',
      );
      expect(refused).not.toThrow(joined.slice(0, 20));
    },
  );
});

it('a missing file is reported with its variable, its path and the command that makes one', async () => {
  const path = join(folder, 'none');
  const provider = fileKekProvider(path, { warn: () => undefined });
  await expect(provider.load()).rejects.toThrow(
    `BUNKMS_KEK_FILE: the file ${path} cannot be read (ENOENT); put the KEK of the installation there; only for a new one, make it with: (umask 077; openssl rand -base64 32 > ${path})`,
  );
});

it('a file that others may read is accepted with one warning, until it is closed to them and opened again', async () => {
  const path = join(folder, 'kek');
  writeFileSync(path, `${one.toString('base64')}\n`, { mode: 0o600 });
  const warnings: string[] = [];
  const provider = fileKekProvider(path, { warn: (message) => warnings.push(message) });
  expect((await provider.load()).map((kek) => kek.export())).toEqual([one]);
  expect(warnings).toEqual([]);
  chmodSync(path, 0o640);
  await provider.load();
  await provider.load();
  expect(warnings).toHaveLength(1);
  for (const mode of [0o600, 0o644]) {
    chmodSync(path, mode);
    await provider.load();
  }
  expect(warnings).toHaveLength(2);
});

it('a folder is refused without a warning of its mode', async () => {
  const warnings: string[] = [];
  const provider = fileKekProvider(folder, { warn: (message) => warnings.push(message) });
  chmodSync(folder, 0o755);
  await expect(provider.load()).rejects.toThrow(`BUNKMS_KEK_FILE: ${folder} is a folder: name a file`);
  expect(warnings).toEqual([]);
});

it('the environment variable has the same format', async () => {
  expect(await inlineKekProvider(one.toString('hex')).load()).toHaveLength(1);
  await expect(inlineKekProvider('short').load()).rejects.toThrow(/BUNKMS_KEK: line 1/);
});
