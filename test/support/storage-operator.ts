import { execFileSync } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import {
  closeSync,
  cpSync,
  existsSync,
  linkSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join, relative } from 'node:path';

/** Files that a data folder may have, whether or not they exist; `*` is a project. */
const KNOWN = [
  'storage.json',
  'kms-receipts.json',
  'lost-projects.json',
  'lock.sqlite',
  'lock.sqlite-journal',
  'lock.sqlite-wal',
  'lock-holder.json',
  'projects',
  'moved',
  'incoming',
  'projects/*',
  'projects/*/project.json',
  'projects/*/catalog',
  'projects/*/indexes',
  'projects/*/deleted.json',
  'projects/*/move.mark',
  'projects/*/expires-1',
  'projects/*/restoring',
  'projects/*/docs',
  'projects/*/docs/00',
  'projects/*/carried',
  'projects/*/carried/1',
  'projects/*/carried/a',
  'tmp',
  'tmp/0123',
  'set-aside',
  'log',
  'log/00000000',
  'log/00000001',
  'log/99999999',
  'log/a',
  'log/stuck',
  'log/stuck/00112233445566778899aabb-1',
];

/** Large enough to copy and change a segment of the log. */
const COPIED_BYTES_MAX = 16_777_216;
const NOISE_BYTES_MAX = 65_536;
const HUGE_BYTES = [10 * 1_073_741_824, 2 * 1_073_741_824, 40 * 1_048_576] as const;

/** An attacker with full access to a storage while no service uses it. */
export interface HostileStorage extends AsyncDisposable {
  /** Keeps a copy of the current content, to be used as an older copy later. */
  keepCopy(): Promise<void>;
  /** Keeps the current identity and generation of the storage. Call it once BunKMS has confirmed them. */
  keepIdentity(): Promise<void>;
  /** Keeps markers that Bundoc wrote earlier, to be replayed. */
  keepMarks(marks: readonly string[]): void;
  /** Restores the last kept copy, in the last kept generation. */
  reset(): Promise<void>;
  /**
   * Performs one action on the storage.
   *
   * @param random random numbers from 0 to below 1.
   * @returns a description of the action.
   */
  act(random: () => number): Promise<string>;
}

export interface OperatorPlace {
  readonly dataDir: string;
  /** The folder for older copies of the data folder. */
  readonly copiesDir: string;
  /**
   * A folder outside the data folder, with a file `canary`, a folder `folder`, and `copy`, a copy of the data
   * folder.
   */
  readonly outside: string;
  /** Existing projects, and some that never existed. */
  readonly projects: readonly string[];
}

/** An attacker who can write to a data folder while no service runs, and knows its format, but has no key. */
export class FolderOperator implements HostileStorage {
  readonly #place: OperatorPlace;
  readonly #copies: string[] = [];
  #identity = '';
  #marks: readonly string[] = [];
  #random: () => number = () => 0;

  constructor(place: OperatorPlace) {
    this.#place = place;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const copy of this.#copies) rmSync(copy, { recursive: true });
  }

  async keepCopy(): Promise<void> {
    const { dataDir, copiesDir } = this.#place;
    const copy = join(copiesDir, `copy-${this.#copies.length}`);
    cpSync(dataDir, copy, { recursive: true });
    this.#copies.push(copy);
  }

  async keepIdentity(): Promise<void> {
    this.#identity = readFileSync(this.#storageFile, 'utf8');
  }

  keepMarks(marks: readonly string[]): void {
    this.#marks = marks;
  }

  async reset(): Promise<void> {
    const { dataDir } = this.#place;
    rmSync(dataDir, { recursive: true });
    cpSync(this.#copies.at(-1) as string, dataDir, { recursive: true });
    writeFileSync(this.#storageFile, this.#identity);
  }

  get #storageFile(): string {
    return join(this.#place.dataDir, 'storage.json');
  }

  async act(random: () => number): Promise<string> {
    this.#random = random;
    const [kind, act] = this.#oneOf(Object.entries(this.#acts));
    const path = this.#target();
    act(path);
    return `${kind} ${relative(this.#place.dataDir, path)}`;
  }

  readonly #acts: Readonly<Record<string, (path: string) => unknown>> = {
    flip: (path: string) => this.#edit(path, (bytes) => this.#flipped(bytes)),
    cut: (path: string) => this.#edit(path, (bytes) => bytes.subarray(0, this.#below(bytes.length + 1))),
    lengthen: (path: string) =>
      this.#edit(path, (bytes) => Buffer.concat([bytes, Buffer.alloc(this.#below(5_000))])),
    noise: (path: string) => this.#edit(path, (bytes) => this.#noisy(bytes)),
    plantNoise: (path: string) =>
      this.#plant(path, () => writeFileSync(path, this.#noise(this.#below(3_000)))),
    empty: (path: string) => this.#plant(path, () => writeFileSync(path, '')),
    remove: (path: string) => rmSync(path, { recursive: true, force: true }),
    rename: (path: string) => this.#onto(path, (other) => renameSync(path, other)),
    swap: (path: string) => this.#swap(path, this.#target()),
    copyHere: (path: string) => this.#onto(path, (other) => this.#copy(path, other)),
    hardLink: (path: string) => this.#onto(path, (other) => this.#isFile(path) && linkSync(path, other)),
    olderCopy: (path: string) => this.#older(path, path),
    olderCopyElsewhere: (path: string) => this.#older(path, this.#target()),
    linkToFile: (path: string) =>
      this.#plant(path, () => symlinkSync(join(this.#place.outside, 'canary'), path)),
    linkToFolder: (path: string) =>
      this.#plant(path, () => symlinkSync(join(this.#place.outside, 'folder'), path)),
    linkToCopy: (path: string) => this.#plant(path, () => symlinkSync(this.#copyOutside(path), path)),
    linkToNothing: (path: string) =>
      this.#plant(path, () => symlinkSync(join(this.#place.outside, 'made'), path)),
    linkToDevice: (path: string) =>
      this.#plant(path, () => symlinkSync(this.#oneOf(['/dev/zero', '/dev/full']), path)),
    linkToItself: (path: string) => this.#plant(path, () => symlinkSync(path, path)),
    pipe: (path: string) => this.#plant(path, () => execFileSync('mkfifo', [path])),
    folder: (path: string) => this.#plant(path, () => mkdirSync(path)),
    huge: (path: string) => this.#plant(path, () => this.#sparse(path, this.#oneOf(HUGE_BYTES))),
    hugeBehind: (path: string) => this.#isFile(path) && truncateSync(path, this.#oneOf(HUGE_BYTES)),
    deletionMark: () => this.#mark('deleted.json', (project) => forgedDeletion(project, this.#random)),
    replayedDeletion: () => this.#mark('deleted.json', (project) => this.#replayedDeletion(project)),
    moveMark: () => this.#mark('move.mark', (project) => forgedMove(project, this.#random)),
    replayedMove: () => this.#mark('move.mark', () => this.#oneOf(this.#marks)),
    storageRemoved: () => rmSync(this.#storageFile, { recursive: true, force: true }),
    storageOlder: () => this.#older(this.#storageFile, this.#storageFile),
    storageForged: () =>
      this.#plant(this.#storageFile, () =>
        writeFileSync(this.#storageFile, forgedStorage(this.#identity, this.#random)),
      ),
    projectFile: () => this.#forgedProjectFile(),
    expiryMark: () => this.#mark('expires-1', () => ''),
  };

  /**
   * An existing file or folder, or one of the known names, but never behind a link that was planted before.
   */
  #target(): string {
    for (;;) {
      const path = this.#anyPath();
      if (this.#isFolder(dirname(path))) return path;
    }
  }

  #anyPath(): string {
    const { dataDir, projects } = this.#place;
    if (this.#random() < 0.6) {
      const all = this.#all(dataDir);
      if (all.length > 0) return this.#oneOf(all);
    }
    return join(dataDir, this.#oneOf(KNOWN).replace('*', this.#oneOf(projects)));
  }

  /** All entries, by `readdir` of each folder in turn, so that links are not followed. */
  #all(directory: string): string[] {
    return readdirSync(directory, { withFileTypes: true }).flatMap((entry) => {
      const path = join(directory, entry.name);
      return entry.isDirectory() ? [path, ...this.#all(path)] : [path];
    });
  }

  #isFile(path: string): boolean {
    const stats = lstatSync(path, { throwIfNoEntry: false });
    return stats?.isFile() === true && stats.size <= COPIED_BYTES_MAX;
  }

  #edit(path: string, change: (bytes: Buffer) => Buffer): void {
    if (this.#isFile(path)) writeFileSync(path, change(readFileSync(path)));
  }

  /** Replaces the entry at `path`. Does nothing when one of its parents is not a folder. */
  #plant(path: string, make: () => void): void {
    const parent = dirname(path);
    if (!this.#isFolder(parent)) return;
    rmSync(path, { recursive: true, force: true });
    make();
  }

  /** Replaces one entry with another, unless one contains the other. */
  #onto(path: string, put: (other: string) => unknown): void {
    const other = this.#target();
    const isWithin = `${other}/`.startsWith(`${path}/`) || `${path}/`.startsWith(`${other}/`);
    if (isWithin || lstatSync(path, { throwIfNoEntry: false }) === undefined) return;
    this.#plant(other, () => put(other));
  }

  /**
   * Whether the path and its parents are folders and not links, so that planted entries stay in the data
   * folder.
   */
  #isFolder(path: string): boolean {
    if (path === this.#place.dataDir) return true;
    return (
      this.#isFolder(dirname(path)) && lstatSync(path, { throwIfNoEntry: false })?.isDirectory() === true
    );
  }

  #swap(one: string, other: string): void {
    if (!this.#isFile(one) || !this.#isFile(other) || one === other) return;
    const bytes = readFileSync(one);
    writeFileSync(one, readFileSync(other));
    writeFileSync(other, bytes);
  }

  #copy(from: string, to: string): void {
    const stats = lstatSync(from, { throwIfNoEntry: false });
    if (stats?.isDirectory() || this.#isFile(from))
      cpSync(from, to, {
        recursive: true,
        filter: (path) => lstatSync(path).isDirectory() || this.#isFile(path),
      });
  }

  #older(path: string, to: string): void {
    const from = join(this.#oneOf(this.#copies), relative(this.#place.dataDir, path));
    if (existsSync(from) && !`${to}/`.startsWith(`${from}/`)) this.#plant(to, () => this.#copy(from, to));
  }

  #copyOutside(path: string): string {
    return join(this.#place.outside, 'copy', relative(this.#place.dataDir, path));
  }

  #sparse(path: string, bytes: number): void {
    closeSync(openSync(path, 'w'));
    truncateSync(path, bytes);
  }

  #mark(name: string, textOf: (project: string) => string): void {
    const project = this.#oneOf(this.#place.projects);
    const path = join(this.#place.dataDir, 'projects', project, name);
    const folder = dirname(path);
    if (this.#isFolder(dirname(folder)) && !existsSync(folder)) this.#plant(folder, () => mkdirSync(folder));
    this.#plant(path, () => writeFileSync(path, textOf(project)));
  }

  /** The genuine deletion marker of the deleted project, rewritten for another project. */
  #replayedDeletion(project: string): string {
    const { projects } = this.#place;
    const copy = this.#copies.at(-1) as string;
    const marked = projects.find((id) => existsSync(join(copy, 'projects', id, 'deleted.json')));
    if (marked === undefined) return '';
    const text = readFileSync(join(copy, 'projects', marked, 'deleted.json'), 'utf8');
    return text.replaceAll(`"${marked}"`, `"${project}"`).replaceAll(`"${marked}-dek"`, `"${project}-dek"`);
  }

  /** The file of one project, rewritten for another project. */
  #forgedProjectFile(): void {
    const { dataDir, projects } = this.#place;
    const [from, to] = [this.#oneOf(projects), this.#oneOf(projects)];
    const [source, target] = [from, to].map((project) => join(dataDir, 'projects', project, 'project.json'));
    if (source === undefined || target === undefined) return;
    if (!this.#isFolder(dirname(source)) || !this.#isFile(source)) return;
    const text = readFileSync(source, 'utf8')
      .replaceAll(`"${from}"`, `"${to}"`)
      .replaceAll(`"${from}-dek"`, `"${to}-dek"`);
    this.#plant(target, () => writeFileSync(target, text));
  }

  #flipped(bytes: Buffer): Buffer {
    const changed = Buffer.from(bytes);
    if (changed.length === 0) return changed;
    const at = this.#below(usedBytes(changed));
    changed[at] = (changed[at] as number) ^ (1 << this.#below(8));
    return changed;
  }

  /** Replaces the used bytes of a file, or a piece of them, with noise. */
  #noisy(bytes: Buffer): Buffer {
    const used = usedBytes(bytes);
    const length = Math.min(used, NOISE_BYTES_MAX);
    const changed = Buffer.from(bytes);
    this.#noise(length).copy(changed, this.#below(used - length + 1));
    return changed;
  }

  #noise(length: number): Buffer {
    return Buffer.from(Array.from({ length }, () => this.#below(256)));
  }

  #below(bound: number): number {
    return Math.floor(this.#random() * bound);
  }

  #oneOf<T>(all: readonly T[]): T {
    return all[this.#below(all.length)] as T;
  }
}

/** The number of bytes before the trailing zeros of a log segment, which have no meaning. */
function usedBytes(bytes: Buffer): number {
  let used = bytes.length;
  while (used > 1 && bytes[used - 1] === 0) used--;
  return used;
}

/** A mark that Bundoc has not written. */
export function forgedDeletion(project: string, random: () => number): string {
  const since = new Date(0).toISOString();
  const receipt = { name: `${project}-dek`, versions: [1], destroyed_at: since };
  return `${JSON.stringify({
    deleted: project,
    format: 1,
    since,
    ...(random() < 0.3 ? { keyDestroyedAt: since } : {}),
    ...(random() < 0.2 ? { receipt } : {}),
    ...(random() < 0.2 ? { finishedAt: since } : {}),
  })}\n`;
}

/** A mark that Bundoc has not written. */
export function forgedMove(project: string, random: () => number): string {
  const noise = Buffer.from(Array.from({ length: 90 }, () => Math.floor(random() * 256)));
  // Sometimes names an existing version of the key.
  if (random() < 0.5) noise.writeUInt32BE(1);
  const texts = [`bundoc-move-mark-1.${noise.toString('base64url')}`, 'bundoc-move-mark-1.', project, ''];
  return texts[Math.floor(random() * texts.length)] as string;
}

/** A forged identity: another storage, or another generation. @param text the genuine identity. */
export function forgedStorage(text: string, random: () => number): string {
  const file = JSON.parse(text) as Record<string, unknown>;
  const forgeries = [
    { id: randomUUID() },
    { generation: randomUUID() },
    { generation: undefined },
    { candidates: [randomUUID(), file['generation']] },
    { takenOverMs: Number.MAX_SAFE_INTEGER },
    { log: undefined },
    { id: randomUUID(), generation: undefined, candidates: [], takenOverMs: 7 },
  ];
  return `${JSON.stringify({ ...file, ...forgeries[Math.floor(random() * forgeries.length)] })}\n`;
}

/** Seeded random numbers from 0 to below 1 (mulberry32). */
export function randomOf(seed: number): () => number {
  let state = seed | 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296;
  };
}
