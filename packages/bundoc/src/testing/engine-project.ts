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

/** What the documents should be: the value of each, by id. */
export type Model = ReadonlyMap<string, number>;

export interface Given {
  readonly ops: readonly Op[];
  readonly values: readonly number[];
  /** While nothing is known, it may have taken effect. */
  fate: 'unknown' | 'acknowledged' | 'refused';
}

/** A project as its users know it. It outlives engines and their processes. */
export class EngineProject {
  readonly name: string;
  readonly directory: string;
  #nameKey: KeyObject = createSecretKey(randomBytes(32));
  #versions: [DekVersion, ...DekVersion[]] = [{ version: 1, dek: createSecretKey(randomBytes(32)) }];
  cipher: ProjectCipher;
  /** Whether it is there; undefined when a crash left that open. */
  isThere: boolean | undefined = false;
  /** What was there before {@link given}. */
  base: Model = new Map();
  given: Given[] = [];
  /** What another storage has of it while it is away. */
  away: { readonly changes: SealedChange[]; readonly rest: StoreMetadata } | undefined;
  isBeingDeleted = false;
  /** Every state that it has had, or may have had, as {@link sorted} gives it. */
  readonly states = new Set<string>();

  constructor(name: string) {
    this.name = name;
    this.directory = `/projects/${name}`;
    this.cipher = new ProjectCipher(name, this.#versions, this.#nameKey);
  }

  get projectFile(): Buffer {
    return Buffer.from(JSON.stringify({ project: this.name, versions: this.#versions.length }));
  }

  /** The same project, as somebody knows it who has a copy of its keys. */
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

  /** Its key is destroyed: a new project of that name gets another key. */
  forget(): void {
    this.#nameKey = createSecretKey(randomBytes(32));
    this.#versions = [{ version: 1, dek: createSecretKey(randomBytes(32)) }];
    this.cipher = new ProjectCipher(this.name, this.#versions, this.#nameKey);
    [this.base, this.given, this.isThere, this.isBeingDeleted] = [new Map(), [], false, false];
  }

  /**
   * What may be there: the state after the last commit that was acknowledged, and after each behind it whose
   * fate is not known.
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

  /** What was seen once stays. */
  fix(content: Model): void {
    this.base = content;
    this.given = [];
    this.isThere = true;
  }
}

/** The model after a commit, or undefined when the store must refuse it: a delete of what is not there. */
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

/** What a project has, by reads, by the list, and by the changes. */
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

/** Takes a project back that is away, as a move does. */
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
