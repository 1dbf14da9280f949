import { execFileSync } from 'node:child_process';
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { openObjectStorage } from '@bundoc/shared/object-storage/open';
import { systemClock } from '@bundoc/shared/runtime/clock';
import { capturedRun } from '@bundoc/shared/testing/captured-run';
import { FakeClock } from '@bundoc/shared/testing/fake-clock';
import { startMoto } from '@bundoc/shared/testing/moto-process';
import { needs } from '@bundoc/shared/testing/programs';
import { describe, expect, it } from 'vitest';
import { runBundoc } from '../src/cli/program.ts';
import { ObjectBuilder, objectKey } from '../src/engine/files/archive/object.ts';
import { ArchivedFolder } from './support/archived-folder.ts';

const OTHER_STORAGE = '11111111-1111-4111-8111-111111111111';

/** Runs `bundoc archive` with no setting but those given, as on a new machine. */
const archive = (args: readonly string[], environment: Record<string, string> = {}) =>
  capturedRun(() => runBundoc(['archive', ...args], { NODE_ENV: 'test', ...environment }));

function iso(ms: number): string {
  return new Date(ms).toISOString();
}

/** Two projects, two processes of a service, and three moments. */
async function makeArchive() {
  const clock = new FakeClock();
  const folder = new ArchivedFolder(clock);
  const moments: number[] = [];
  let storage = '';
  await folder.with('data', async (open) => {
    storage = open.id;
    await open.put('acme', 'a', 'first');
    moments.push(await open.ship());
    clock.advance(1_000);
    await open.put('acme', 'a', 'second');
    await open.put('globex', 'b', 'of globex');
    moments.push(await open.ship());
    clock.advance(1_000);
  });
  await folder.with('data', async (open) => {
    await open.put('acme', 'c', 'third');
    moments.push(await open.ship());
  });
  const from = ['--from', folder.archive];
  return { clock, folder, moments, storage, from };
}

/** Adds a chain of one object, without a round. */
function addYoungChain(place: string, storage: string, { n, timeMs }: { n: number; timeMs: number }): void {
  const id = { epoch: 'e'.repeat(32), n };
  const storageId = Buffer.from(storage.replaceAll('-', ''), 'hex');
  const head = { ...id, storageId, before: undefined, timeMs, end: undefined, round: undefined };
  const { bytes } = new ObjectBuilder().finish({ ...head, log: { segment: 1, frame: 0 }, takenOverMs: 0 });
  const key = join(place, objectKey(storageId, id));
  mkdirSync(dirname(key), { recursive: true });
  writeFileSync(key, bytes);
}

/** Changes one byte in the middle. */
function damage(path: string): void {
  const bytes = readFileSync(path);
  bytes[Math.floor(bytes.length / 2)] = (bytes[Math.floor(bytes.length / 2)] ?? 0) ^ 1;
  writeFileSync(path, bytes);
}

describe('bundoc archive list', () => {
  it('shows each chain, from its first moment that can be restored to its last one', async () => {
    const { folder, moments, storage, from } = await makeArchive();
    const objects = folder.objects();
    const { code, stdout } = await archive(['list', ...from, '--json']);
    expect(code).toBe(0);
    expect(JSON.parse(stdout)).toMatchObject({
      storage,
      chains: [
        {
          newest: true,
          first_at: iso(moments[0] ?? 0),
          last_at: iso(moments[2] ?? 0),
          restorable_from: iso(moments[0] ?? 0),
          restorable_to: iso(moments[2] ?? 0),
          first_object: 1,
          objects: objects.length,
          missing: 0,
          bytes: objects.reduce((sum, path) => sum + statSync(path).size, 0),
        },
      ],
    });
    const shown = await archive(['list', ...from]);
    expect(shown.stdout).toContain(`storage ${storage}, 1 chain\nnewest  ${iso(moments[0] ?? 0)}`);
  });

  it('takes the place from BUNDOC_ARCHIVE, and names what is missing when there is none', async () => {
    const { folder } = await makeArchive();
    expect((await archive(['list'], { BUNDOC_ARCHIVE: folder.archive })).code).toBe(0);
    const without = await archive(['list']);
    expect(without).toMatchObject({ code: 2, stderr: expect.stringContaining('--from') });
    const away = await archive(['list', '--from', folder.path('nowhere')]);
    expect(away).toMatchObject({ code: 2, stderr: expect.stringContaining(folder.path('nowhere')) });
    mkdirSync(folder.path('empty'));
    const empty = await archive(['list', '--from', folder.path('empty')]);
    expect(empty).toMatchObject({ code: 2, stderr: expect.stringContaining('has no archive of Bundoc') });
  });

  it('asks for the storage when there are several, and takes it as Bundoc shows it', async () => {
    const { folder, storage, from } = await makeArchive();
    const other = OTHER_STORAGE.replaceAll('-', '');
    mkdirSync(join(folder.archive, other));
    copyFileSync(folder.objects()[0] ?? '', join(folder.archive, other, basename(folder.objects()[0] ?? '')));
    writeFileSync(join(folder.archive, 'README.txt'), 'of another program');
    const ambiguous = await archive(['list', ...from]);
    expect(ambiguous.code).toBe(2);
    for (const id of [storage, OTHER_STORAGE]) expect(ambiguous.stderr).toContain(id);
    expect((await archive(['list', ...from, '--storage', storage])).code).toBe(0);
    const copied = await archive(['list', ...from, '--storage', OTHER_STORAGE]);
    expect(copied).toMatchObject({ code: 1, stderr: expect.stringContaining('belongs to another storage') });
    const unknown = await archive(['list', ...from, '--storage', '22222222-2222-4222-8222-222222222222']);
    expect(unknown).toMatchObject({ code: 2, stderr: expect.stringContaining(storage) });
  });
});

const HARMS: readonly (readonly [string, string, (path: string) => void])[] = [
  ['changed', 'is incomplete or changed', (path) => damage(path)],
  ['cut', 'is incomplete or changed', (path) => truncateSync(path, statSync(path).size - 1)],
  ['cut to a few bytes', 'is not an object of an archive of this version', (path) => truncateSync(path, 3)],
  ['removed', 'is missing', (path) => rmSync(path)],
];

describe('bundoc archive verify', () => {
  it('finds nothing in a good archive, without any key, and says what can be restored', async () => {
    const { folder, moments, from } = await makeArchive();
    const { code, stdout } = await archive(['verify', ...from, '--json']);
    expect(JSON.parse(stdout)).toMatchObject({
      findings: [],
      objects: folder.objects().length,
      newest_restorable: iso(moments[2] ?? 0),
    });
    expect(code).toBe(0);
    expect((await archive(['verify', ...from, '--newest-chain'])).stdout).toContain('all good');
  });

  it.each(HARMS)('names an object that was %s', async (_what, problem, harm) => {
    const { folder, from } = await makeArchive();
    const objects = folder.objects();
    expect(objects.length).toBeGreaterThan(2);
    for (const [at, path] of objects.entries()) {
      const whole = readFileSync(path);
      harm(path);
      const { code, stdout } = await archive(['verify', ...from, '--json']);
      const { findings } = JSON.parse(stdout);
      const isLast = at === objects.length - 1;
      const object = basename(path);
      if (problem !== 'is missing') expect(findings).toContainEqual({ object, problem });
      // Without its last object an archive is one of an earlier moment.
      else if (isLast) expect(findings).toEqual([]);
      else if (at > 0) expect(findings).toEqual([{ object: `object ${at + 1}`, problem }]);
      else expect(findings).toMatchObject([{ problem: expect.stringContaining('from 1 on') }]);
      expect(code).toBe(findings.length === 0 ? 0 : 1);
      writeFileSync(path, whole);
    }
    expect((await archive(['verify', ...from])).code).toBe(0);
  });

  it('names two objects that were swapped', async () => {
    const { folder, from } = await makeArchive();
    const [first = '', second = ''] = folder.objects();
    renameSync(first, `${first}.kept`);
    renameSync(second, first);
    renameSync(`${first}.kept`, second);
    const { code, stdout, stderr } = await archive(['verify', ...from]);
    expect(code).toBe(1);
    expect(stdout).toContain('findings; newest restorable moment: none');
    for (const path of [first, second])
      expect(stderr).toContain(`${basename(path)} is a copy of another object`);
  });

  it('finds that no round is complete yet, and a restore says so', async () => {
    const { folder, storage } = await makeArchive();
    addYoungChain(folder.path('young'), storage, { n: 1, timeMs: 1_000 });
    const from = ['--from', folder.path('young')];
    const verified = await archive(['verify', ...from]);
    expect(verified).toMatchObject({ code: 1, stderr: expect.stringContaining('nothing can be restored') });
    expect((await archive(['list', ...from])).stdout).toContain('no moment to restore');
    const restored = await archive(['restore', ...from, '--to', folder.path('restored')]);
    expect(restored).toMatchObject({ code: 2, stderr: expect.stringContaining('no moment can be restored') });
  });
});

describe('an archive that lost an object', () => {
  it.each(HARMS)('which was %s, restores the moment that verify names', async (what, _problem, harm) => {
    const { folder, clock, from } = await makeArchive();
    await folder.with('data', async (open) => {
      for (let n = 0; n < 4; n++) {
        clock.advance(1_000);
        await open.put('acme', 'a', `later ${n}`);
        await open.ship();
      }
    });
    const restorable: number[] = [];
    for (const [at, path] of folder.objects().entries()) {
      const whole = readFileSync(path);
      harm(path);
      const { newest_restorable: newest } = JSON.parse((await archive(['verify', ...from, '--json'])).stdout);
      const to = ['--to', folder.path(`restored-${at}`)];
      const restored = await archive(['restore', ...from, ...to, '--at', newest ?? iso(4e12), '--json']);
      if (newest === null) expect(restored.code).not.toBe(0);
      else {
        expect(restored.code, `object ${at + 1}: ${restored.stderr}`).toBe(0);
        expect(JSON.parse(restored.stdout).moment).toBe(newest);
        restorable.push(at);
      }
      const isInside = at > 0 && at < folder.objects().length - 1;
      if (what === 'removed' && isInside) expect((await archive(['list', ...from])).code).toBe(1);
      writeFileSync(path, whole);
    }
    // Without the first object, nothing can be restored.
    expect(restorable.length).toBeGreaterThanOrEqual(folder.objects().length - 1);
  });
});

describe('bundoc archive restore', () => {
  it('says what it will restore, and makes a folder that the same keys open', async () => {
    const { folder, moments, storage, from } = await makeArchive();
    const to = folder.path('restored');
    const { code, stdout, stderr } = await archive(['restore', ...from, '--to', to]);
    expect(code, stderr).toBe(0);
    expect(stderr).toContain(`restoring storage ${storage} as of ${iso(moments[2] ?? 0)}`);
    expect(stderr).toContain(`${folder.objects().length} objects, about`);
    expect(stdout).toContain('restored 2 projects');
    expect(stdout).toContain(`bunkms storage take-over ${storage} --force`);
    expect(stdout).toContain(`export BUNDOC_DATA_DIR=${to}`);
    expect(existsSync(join(to, 'restoring.json'))).toBe(false);
    await folder.with('restored', async (open) => {
      expect(open.id).toBe(storage);
      expect(await open.read('acme', 'a')).toBe('second');
      expect(await open.read('acme', 'c')).toBe('third');
      expect(await open.read('globex', 'b')).toBe('of globex');
    });
  });

  it('says that a newer chain has no complete round yet, and what the moment before it lacks', async () => {
    const { folder, moments, storage, from } = await makeArchive();
    const timeMs = (moments[2] ?? 0) + 60_000;
    addYoungChain(folder.archive, storage, { n: 1_000, timeMs });
    const { code, stderr } = await archive(['restore', ...from, '--to', folder.path('restored')]);
    expect(code, stderr).toBe(0);
    expect(stderr).toContain(`a newer chain goes up to ${iso(timeMs)}`);
    expect(stderr).toContain(`written after ${iso(moments[2] ?? 0)} is missing`);
  });

  it('restores an earlier moment, and names the first one for a time before it', async () => {
    const { folder, moments, from } = await makeArchive();
    const [first = 0, , last = 0] = moments;
    const at = (ms: number) => ['--at', iso(ms), '--json'];
    const early = await archive(['restore', ...from, '--to', folder.path('early'), ...at(first + 500)]);
    expect(JSON.parse(early.stdout)).toMatchObject({ moment: iso(first), unfinished: [] });
    await folder.with('early', async (open) => {
      expect(await open.read('acme', 'a')).toBe('first');
      expect(await open.read('acme', 'c')).toBeUndefined();
    });
    const before = await archive(['restore', ...from, '--to', folder.path('before'), ...at(first - 1)]);
    expect(before).toMatchObject({ code: 2, stderr: expect.stringContaining(iso(first)) });
    expect(existsSync(folder.path('before'))).toBe(false);
    const later = await archive(['restore', ...from, '--to', folder.path('later'), ...at(last + 1_000_000)]);
    expect(JSON.parse(later.stdout)).toMatchObject({ moment: iso(last) });
    const wrong = await archive(['restore', ...from, '--to', folder.path('x'), '--at', 'yesterday']);
    expect(wrong).toMatchObject({ code: 2, stderr: expect.stringContaining('give a time such as') });
  });

  it('refuses a folder with anything else in it, and leaves it as it is', async () => {
    const { folder, from } = await makeArchive();
    const to = folder.path('restored');
    expect((await archive(['restore', ...from, '--to', to])).code).toBe(0);
    const entries = readdirSync(to).sort();
    const again = await archive(['restore', ...from, '--to', to]);
    expect(again).toMatchObject({ code: 2, stderr: expect.stringContaining(`${to} is not empty`) });
    expect(readdirSync(to).sort()).toEqual(entries);
    mkdirSync(folder.path('other'));
    writeFileSync(folder.path('other/letter.txt'), 'mine');
    const foreign = await archive(['restore', ...from, '--to', folder.path('other')]);
    expect(foreign).toMatchObject({ code: 2, stderr: expect.stringContaining('is not empty') });
    writeFileSync(folder.path('file'), '');
    const file = await archive(['restore', ...from, '--to', folder.path('file/below')]);
    expect(file).toMatchObject({ code: 2, stderr: expect.stringContaining(folder.path('file/below')) });
  });

  it('begins an interrupted restore from its start, and ends it', async () => {
    const { folder, storage, from } = await makeArchive();
    const to = folder.path('restored');
    const lost = folder.objects().at(-1) ?? '';
    const whole = readFileSync(lost);
    damage(lost);
    const cut = await archive(['restore', ...from, '--to', to]);
    expect(cut).toMatchObject({ code: 1, stderr: expect.stringContaining('the archive is damaged') });
    expect(cut.stderr).toContain('bundoc archive verify');
    expect(JSON.parse(readFileSync(join(to, 'restoring.json'), 'utf8'))).toMatchObject({ storage });
    expect(existsSync(join(to, 'storage.json'))).toBe(false);
    writeFileSync(lost, whole);
    mkdirSync(join(to, 'projects/left-over'), { recursive: true });
    expect((await archive(['restore', ...from, '--to', to])).code).toBe(0);
    expect(existsSync(join(to, 'projects/left-over'))).toBe(false);
    await folder.with('restored', async (open) => expect(await open.read('acme', 'c')).toBe('third'));
  });

  it('touches no folder that is marked, but on which Bundoc has started, or of another storage', async () => {
    const { folder, storage, from } = await makeArchive();
    const to = folder.path('restored');
    expect((await archive(['restore', ...from, '--to', to])).code).toBe(0);
    const mark = (id: string) =>
      writeFileSync(
        join(to, 'restoring.json'),
        JSON.stringify({ format: 1, storage: id, moment: iso(1_000) }),
      );
    mark(OTHER_STORAGE);
    const other = await archive(['restore', ...from, '--to', to]);
    expect(other).toMatchObject({ code: 2, stderr: expect.stringContaining(OTHER_STORAGE) });
    mark(storage);
    const file = JSON.parse(readFileSync(join(to, 'storage.json'), 'utf8'));
    writeFileSync(join(to, 'storage.json'), JSON.stringify({ ...file, candidates: [OTHER_STORAGE] }));
    const started = await archive(['restore', ...from, '--to', to]);
    expect(started).toMatchObject({ code: 2, stderr: expect.stringContaining('Bundoc has started on it') });
    expect(existsSync(join(to, 'projects/acme'))).toBe(true);
  });
});

describe('bundoc archive restore on a full disk', needs('mount'), () => {
  it('says so with the path, and ends once there is space', async () => {
    const { folder, from } = await makeArchive();
    const to = folder.path('small');
    mkdirSync(to);
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=1m', 'tmpfs', to], { stdio: 'pipe' });
    try {
      const full = await archive(['restore', ...from, '--to', to]);
      expect(full).toMatchObject({ code: 2, stderr: expect.stringContaining(`the disk of ${to} is full`) });
      execFileSync('mount', ['-o', 'remount,size=512m', to], { stdio: 'pipe' });
      expect((await archive(['restore', ...from, '--to', to])).code).toBe(0);
      execFileSync('mount', ['-o', 'remount,ro', to], { stdio: 'pipe' });
      const readOnly = await archive(['restore', ...from, '--to', join(to, 'below')]);
      expect(readOnly.code).toBe(2);
      expect(readOnly.stderr).toContain(join(to, 'below'));
    } finally {
      execFileSync('umount', [to], { stdio: 'pipe' });
    }
  });
});

describe('an archive in a bucket', needs('moto'), () => {
  it('is listed, verified and restored as one in a folder, with no setting but its place', async () => {
    await using moto = await startMoto();
    expect((await fetch(`${moto.url}/b-1`, { method: 'PUT' })).status).toBe(200);
    const { folder, storage } = await makeArchive();
    const place = `s3://b-1/one?endpoint=${moto.url}&region=eu-central-1`;
    const environment = { AWS_ACCESS_KEY_ID: 'AKIAEXAMPLE', AWS_SECRET_ACCESS_KEY: 'secret' };
    const options = { variable: 'BUNDOC_ARCHIVE', environment, clock: systemClock };
    await using bucket = openObjectStorage(place, options);
    for (const path of folder.objects())
      await bucket.put(path.slice(folder.archive.length + 1), readFileSync(path));
    await bucket.put('another-program/file', Buffer.from('x'));
    const from = ['--from', place];
    const listed = await archive(['list', ...from, '--json'], environment);
    expect(listed.code, listed.stderr).toBe(0);
    expect(JSON.parse(listed.stdout)).toMatchObject({ storage, chains: [{ missing: 0 }] });
    const verified = await archive(['verify', ...from], environment);
    expect(verified.stdout).toContain(`${folder.objects().length} objects`);
    expect(verified).toMatchObject({ code: 0, stdout: expect.stringContaining('all good') });
    const restored = await archive(['restore', ...from, '--to', folder.path('restored')], environment);
    expect(restored.code, restored.stderr).toBe(0);
    await folder.with('restored', async (open) => expect(await open.read('acme', 'c')).toBe('third'));
    const denied = await archive(['list', ...from]);
    expect(denied).toMatchObject({ code: 2, stderr: expect.stringContaining('b-1') });
  });
});

describe('bundoc archive status', () => {
  it('compares the position of a running service with the archive', async () => {
    const folder = new ArchivedFolder(systemClock);
    const environment = { BUNDOC_DATA_DIR: folder.path('data'), BUNDOC_ARCHIVE: folder.archive };
    await folder.with('data', async (open) => {
      const never = await archive(['status'], environment);
      expect(never).toMatchObject({ code: 1, stderr: expect.stringContaining('was never shipped') });
      await open.put('acme', 'a', 'first');
      await open.ship();
      const { code, stdout } = await archive(['status', '--json'], environment);
      expect(JSON.parse(stdout)).toMatchObject({ storage: open.id, missing: 0, problems: [] });
      expect(code).toBe(0);
    });

    const last = folder.objects().at(-1) ?? '';
    const whole = readFileSync(last);
    damage(last);
    const changed = await archive(['status'], environment);
    expect(changed).toMatchObject({ code: 1, stderr: expect.stringContaining(basename(last)) });
    rmSync(last);
    const lost = await archive(['status'], environment);
    expect(lost).toMatchObject({ code: 1, stderr: expect.stringContaining('is missing') });
    writeFileSync(last, whole);

    const elsewhere = await archive(['status', '--from', folder.root], environment);
    expect(elsewhere).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('the service has shipped to'),
    });
    renameSync(folder.archive, folder.path('away'));
    const away = await archive(['status'], environment);
    expect(away).toMatchObject({
      code: 1,
      stdout: expect.stringContaining('missing: unknown'),
      stderr: expect.stringContaining('is no folder'),
    });
    const position = folder.path('data/archive/position.json');
    renameSync(position, folder.path('position'));
    const neverThere = await archive(['status'], environment);
    expect(neverThere.stderr).toMatch(/was never shipped; .*is no folder/);
    renameSync(folder.path('position'), position);
    renameSync(folder.path('away'), folder.archive);

    const file = JSON.parse(readFileSync(position, 'utf8'));
    writeFileSync(position, JSON.stringify({ ...file, timeMs: file.timeMs - 400_000 }));
    const old = await archive(['status'], environment);
    expect(old).toMatchObject({ code: 1, stderr: expect.stringContaining('seconds old') });
    writeFileSync(position, '{}');
    const broken = await archive(['status'], environment);
    expect(broken).toMatchObject({ code: 1, stderr: expect.stringContaining('is damaged') });
  });
});
