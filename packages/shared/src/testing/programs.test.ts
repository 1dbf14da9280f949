import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, describe, expect, it, vi } from 'vitest';
import { findProgram, howToGet, needs, PROGRAMS, pathOf } from './programs.ts';

const folder = mkdtempSync(join(tmpdir(), 'bundoc programs-'));
afterAll(() => rmSync(folder, { recursive: true }));
afterEach(() => vi.unstubAllEnvs());

/** A program that prints a line. */
function program(path: string, prints: string): void {
  writeFileSync(path, `#!/bin/sh\necho '${prints}'\n`);
  chmodSync(path, 0o755);
}

describe('a test that needs a program', () => {
  it('is skipped without the program, and says which one it needs', () => {
    vi.stubEnv('WITHOUT_PROGRAMS', 'zsh,docker');
    vi.stubEnv('REQUIRE_DOCKER', undefined);
    expect(needs('docker')).toEqual({ skip: true, meta: { missing: 'docker' } });
    vi.stubEnv('WITHOUT_PROGRAMS', 'all');
    expect(pathOf('postgresql')).toBeUndefined();
  });

  it('fails without the program when its variable requires it', () => {
    vi.stubEnv('WITHOUT_PROGRAMS', 'promtool');
    vi.stubEnv('REQUIRE_PROMTOOL', '1');
    expect(() => needs('promtool')).toThrow(
      'REQUIRE_PROMTOOL=1, but this is missing: promtool (Debian: promtool; Fedora and Homebrew: prometheus)',
    );
  });

  it('runs with the program', () => {
    vi.stubEnv('WITHOUT_PROGRAMS', '');
    vi.stubEnv('PATH', folder);
    program(join(folder, 'fish'), '');
    expect(needs('fish')).toEqual({ skip: false, meta: {} });
  });

  it('cannot hide a program that does not exist', () => {
    vi.stubEnv('WITHOUT_PROGRAMS', 'postgres');
    expect(() => needs('zsh')).toThrow(/postgres is unknown; known are all, docker, postgresql/);
  });
});

describe('programs', () => {
  it('are found on PATH, where a file without the right to run is none', () => {
    const path = join(folder, 'some-program');
    vi.stubEnv('PATH', ['/absent', folder].join(':'));
    writeFileSync(path, '');
    mkdirSync(join(folder, 'some-folder'));
    expect([findProgram('some-program'), findProgram('some-folder')]).toEqual([undefined, undefined]);
    program(path, '');
    expect(findProgram('other', 'some-program')).toBe(path);
  });

  it('programs of PostgreSQL are those of the newest version, even if only pg_config names them', () => {
    vi.stubEnv('PATH', folder);
    const programs = join(folder, 'pg');
    mkdirSync(programs);
    for (const name of ['initdb', 'psql', 'pg_dump', 'pg_basebackup']) program(join(programs, name), '');
    program(join(folder, 'pg_config'), programs);
    program(join(programs, 'postgres'), 'postgres (PostgreSQL) 999.1');
    expect(PROGRAMS.postgresql.find()).toBe(programs);
    program(join(programs, 'postgres'), 'postgres (PostgreSQL) 14.9');
    expect(PROGRAMS.postgresql.find()).not.toBe(programs);
  });

  it('are all in the table of CONTRIBUTING.md, with what they add and how to get them', () => {
    const page = readFileSync(new URL('../../../../CONTRIBUTING.md', import.meta.url), 'utf8');
    const names = Object.keys(PROGRAMS) as (keyof typeof PROGRAMS)[];
    const rows = names.map((name) => {
      const { tests, variable } = PROGRAMS[name];
      return `| ${howToGet(name)} | ${tests} | \`${variable}=1\` |`;
    });
    expect(page.split('\n').filter((line) => /\| `REQUIRE_\w+=1` \|$/.test(line))).toEqual(rows);
  });
});
