import { createSecretKey, type KeyObject, randomBytes } from 'node:crypto';
import { PROJECT_FILE } from '@bundoc/shared/contract/project-file';
import { expect } from 'vitest';
import { type DekVersion, ProjectCipher } from '../crypto/project-cipher.ts';
import { readDocumentBody } from '../crypto/stored-text.ts';
import { makeDirectoryDurably, replaceFile } from '../engine/files/disk/disk.ts';
import type { FilesEngine } from '../engine/files/files-engine.ts';
import { SealedFolder } from '../engine/files/projects/sealed-folder.ts';
import type { FileStore } from '../engine/files/store/file-store.ts';
import type { SealedChange, StoreMetadata, Write } from '../engine/port/port.ts';
import { IDS, type Op } from './engine-steps.ts';
import type { SimulatedDisk } from './simulated-disk.ts';

/** The expected documents: the value of each, by id. */
export type Model = ReadonlyMap<string, number>;

export interface Given {
  readonly ops: readonly Op[];
  readonly values: readonly number[];
  /** An `unknown` commit may have taken effect. */
  fate: 'unknown' | 'acknowledged' | 'refused';
}

/** A project as its users know it. It outlives engines and their processes. */
export class EngineProject {
  readonly name: string;
  readonly directory: string;
  #nameKey: KeyObject = createSecretKey(randomBytes(32));
  #versions: [DekVersion, ...DekVersion[]] = [{ version: 1, dek: createSecretKey(randomBytes(32)) }];
  cipher: ProjectCipher;
  /** Whether it exists; undefined after a crash that left this open. */
  isThere: boolean | undefined = false;
  /** The documents before {@link given}. */
  base: Model = new Map();
  given: Given[] = [];
  /** Its content in another storage while it is moved away. */
  away: { readonly changes: SealedChange[]; readonly rest: StoreMetadata } | undefined;
  isBeingDeleted = false;
  /** Every state that it has had or may have had, in the form of {@link sorted}. */
  readonly states = new Set<string>();

  constructor(name: string) {
    this.name = name;
    this.directory = `/projects/${name}`;
    this.cipher = new ProjectCipher(name, this.#versions, this.#nameKey);
  }

  get projectFile(): Buffer {
    return Buffer.from(JSON.stringify({ project: this.name, versions: this.#versions.length }));
  }

  /** The same project with a copy of its keys. */
  fork(): EngineProject {
    const forked = new EngineProject(this.name);
    forked.#nameKey = this.#nameKey;
    forked.#versions = this.#versions;
    forked.cipher = this.cipher;
    [forked.base, forked.given, forked.isThere] = [
      this.base,
      this.given.map((one) => ({ ...one })),
      this.isThere,
    ];
    for (const state of this.states) forked.states.add(state);
    [forked.away, forked.isBeingDeleted] = [this.away, this.isBeingDeleted];
    return forked;
  }

  rotate(): void {
    const version = this.#versions[0].version + 1;
    this.#versions = [{ version, dek: createSecretKey(randomBytes(32)) }, ...this.#versions];
    this.cipher = new ProjectCipher(this.name, this.#versions, this.#nameKey);
  }

  /** Destroys its key. A new project of that name gets another key. */
  forget(): void {
    this.#nameKey = createSecretKey(randomBytes(32));
    this.#versions = [{ version: 1, dek: createSecretKey(randomBytes(32)) }];
    this.cipher = new ProjectCipher(this.name, this.#versions, this.#nameKey);
    [this.base, this.given, this.isThere, this.isBeingDeleted] = [new Map(), [], false, false];
  }

  /**
   * The allowed states: the one after the last acknowledged commit, and those after each later commit whose
   * fate is unknown.
   */
  get allowed(): Model[] {
    let model = this.base;
    let allowed: Model[] = [model];
    this.states.add(sorted(model));
    for (const { ops, values, fate } of this.given) {
      if (fate === 'refused') continue;
      const next = applied(model, ops, values);
      if (next === undefined) {
        expect(fate, 'the delete of what is not there').toBe('unknown');
        continue;
      }
      model = next;
      this.states.add(sorted(model));
      allowed = fate === 'acknowledged' ? [model] : [...allowed, model];
    }
    return allowed;
  }

  /** Records the content that was read: it must not change without a commit. */
  fix(content: Model): void {
    this.base = content;
    this.given = [];
    this.isThere = true;
  }
}

/** The model after a commit; undefined when the store must refuse it, for a delete of a missing document. */
function applied(model: Model, ops: readonly Op[], values: readonly number[]): Model | undefined {
  const next = new Map(model);
  for (const [at, { id, pad }] of ops.entries()) {
    if (pad !== undefined) next.set(id, values[at] as number);
    else if (!next.delete(id)) return undefined;
  }
  return next;
}

const NO_PRECONDITION = { kind: 'none' } as const;
const ref = (id: string) => ({ collection: 'notes', id });
export function writeOf({ id, pad }: Op, value: number): Write {
  if (pad === undefined) return { kind: 'delete', ref: ref(id), precondition: NO_PRECONDITION };
  const { content } = readDocumentBody(Buffer.from(`{"v":${value},"pad":"${'x'.repeat(pad)}"}`));
  return { kind: 'put', ref: ref(id), content, precondition: NO_PRECONDITION };
}

export const sorted = (model: Model) => JSON.stringify([...model].sort());

/** The content of a project. Reads, the list and the changes must agree. */
export async function contentOf(store: FileStore): Promise<Model> {
  const content = new Map<string, number>();
  for (const id of IDS) {
    const text = (await store.get(ref(id)))?.text.toString();
    if (text !== undefined) content.set(id, Number(/"v":(\d+)/.exec(text)?.[1]));
  }
  const listed = await store.list({ collection: 'notes', after: 0, limit: 100, bytesMax: 10_000_000 });
  expect(listed.documents.map(({ metadata }) => metadata._id).sort()).toEqual([...content.keys()].sort());
  const { changes } = await store.changes(0, 1_000);
  const living = changes.filter(({ deleted }) => !deleted).map((change) => change.ref.id);
  expect(living.sort()).toEqual([...content.keys()].sort());
  return content;
}

interface Running {
  readonly engine: FilesEngine;
  readonly disk: SimulatedDisk;
}

export async function removeProject(one: EngineProject, { engine, disk }: Running): Promise<void> {
  await engine.forget(one.name);
  await disk.removeTree(one.directory);
  await disk.syncDirectory('/projects');
  one.forget();
}

/** Brings a project back that was moved away, as a move does. */
export async function bringBack(one: EngineProject, { engine, disk }: Running): Promise<void> {
  const { away, name, directory, cipher, projectFile } = one;
  if (away === undefined) return;
  await engine.forget(name);
  await disk.removeTree(directory);
  await makeDirectoryDurably(disk, directory);
  await disk.makeDirectory(`${directory}/docs`);
  await disk.syncDirectory(directory);
  const folder = new SealedFolder({ disk, directory, tmp: '/tmp', project: name });
  await folder.put(away.changes);
  const handle = await folder.finish(cipher, away.rest, projectFile);
  await engine.arrived(name, handle, cipher);
  await replaceFile(disk, '/tmp', `${directory}/${PROJECT_FILE}`, projectFile);
  one.away = undefined;
}
