import { execFile } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { bundocClient } from './support/client.ts';
import { docker, root } from './support/docker.ts';
import type { Stack } from './support/stack.ts';

const run = promisify(execFile);
/** The documented commands. */
const DOCUMENTED = /## Your own KEK in compose.*?```sh\n(.*?)```/s.exec(
  readFileSync(join(root, 'docs/configuration.md'), 'utf8'),
)?.[1];

/** Leaves the project with a KEK whose folder is gone, so nothing may bring it up afterwards. */
export function takesOwnKek(started: () => Stack): void {
  let directory: string;
  let stack: Stack;
  let status: string;

  beforeAll(async () => {
    directory = mkdtempSync(join(tmpdir(), 'bundoc-kek-'));
    stack = started();
    const client = await bundocClient(stack, 'project-a');
    await client.put('project-a', 'notes', 'before', '{"n":1}');
    // Root needs no sudo, and it may not be installed.
    const programs = join(directory, 'programs');
    mkdirSync(programs);
    if (process.getuid?.() === 0)
      writeFileSync(join(programs, 'sudo'), '#!/bin/sh\nexec "$@"\n', { mode: 0o755 });
    const { stdout } = await run('bash', ['-euo', 'pipefail', '-c', String(DOCUMENTED)], {
      cwd: directory,
      env: { ...process.env, ...stack.environment, PATH: `${programs}:${process.env['PATH']}` },
    });
    status = stdout;
  });
  afterAll(() => rmSync(directory, { recursive: true, force: true }));

  it('takes five commands, after which every key is wrapped with that KEK', async () => {
    expect(String(DOCUMENTED).trim().split('\n')).toHaveLength(5);
    const { keks, current } = JSON.parse(await stack.exec('bunkms', 'bunkms', 'kek', 'status', '--json')) as {
      keks: { id: string; versions: number }[];
      current: string;
    };
    expect(status).toContain(current);
    expect(keks).toHaveLength(2);
    for (const { id, versions } of keks) expect(versions > 0).toBe(id === current);
  });

  it('still reads what was stored before, and accepts new writes', async () => {
    const client = await bundocClient(stack, 'project-a', 'project-b');
    expect(await client.get('project-a', 'notes', 'before')).toMatchObject({ status: 200 });
    expect(await client.put('project-b', 'notes', 'second', '{"n":2}')).toMatchObject({ status: 201 });
  });

  it('mounts the folder only into BunKMS, and read-only', async () => {
    const mountsOf = async (service: 'bunkms' | 'bundoc') =>
      JSON.parse(await docker(['inspect', '--format', '{{json .Mounts}}', stack.container(service)])) as {
        Source: string;
        RW: boolean;
      }[];
    const isFolder = ({ Source }: { Source: string }) => Source === join(directory, 'run', 'kek');
    expect((await mountsOf('bunkms')).filter(isFolder)).toMatchObject([{ RW: false }]);
    expect((await mountsOf('bundoc')).filter(isFolder)).toEqual([]);
  });

  it('builds nothing when a command is run', async () => {
    const image = () =>
      docker([
        'image',
        'inspect',
        '--format',
        '{{.Id}} {{.Metadata.LastTagTime}}',
        `bundoc/bundoc:${stack.environment['BUNDOC_TAG']}`,
      ]);
    const before = await image();
    const version = await stack.compose('run', '--rm', '--no-deps', '-T', 'bundoc', 'bundoc', '--version');
    expect(version).toMatch(/^\d+\.\d+\.\d+$/);
    expect(await image()).toBe(before);
  });
}
