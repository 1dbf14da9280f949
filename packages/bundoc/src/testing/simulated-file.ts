import { dirname } from 'node:path';

/** What a power cut does to what was not synced. */
export type Survival = 'synced only' | 'everything' | { readonly random: () => number };

/** Disks write sectors whole, or not at all. */
export const SECTOR_BYTES = 512;

interface UnsyncedWrite {
  readonly offset: number;
  readonly bytes: Buffer;
  /** The length that the file has afterwards; undefined when that does not change. */
  readonly length: number | undefined;
}

export interface FileNode {
  readonly kind: 'file';
  /** What a running process reads. */
  content: Buffer;
  /** What is left after a power cut at the latest. */
  durable: Buffer;
  /** Writes since the last sync, in their order. */
  unsynced: UnsyncedWrite[];
}

interface DirectoryNode {
  readonly kind: 'directory';
}

export type Node = DirectoryNode | FileNode;

/**
 * A name in a folder. A folder that is made where one was removed is another one, and has none of its names.
 */
export interface Entry {
  readonly node: Node;
  /** The folder; undefined for the root. */
  readonly folder: Node | undefined;
}

export type Entries = Map<string, Entry>;

export function survives(survival: Survival): boolean {
  return survival === 'everything' || (survival !== 'synced only' && survival.random() < 0.5);
}

export function sync(node: FileNode): void {
  node.durable = written(node.durable, node.unsynced);
  node.unsynced = [];
}

/** A content after all of these writes. */
function written(content: Buffer, writes: readonly UnsyncedWrite[]): Buffer {
  let next: Buffer = Buffer.from(content);
  for (const { offset, bytes, length } of writes) {
    next = withLength(next, length);
    bytes.copy(next, offset);
  }
  return next;
}

/**
 * The file after a power cut: each sector of each unsynced write is there or not, and so is each new length.
 */
export function settled(node: FileNode, survival: Survival, sectorBytes: number): FileNode {
  let content: Buffer = Buffer.from(node.durable);
  for (const { offset, bytes, length } of node.unsynced) {
    if (survives(survival)) content = withLength(content, length);
    for (let at = 0; at < bytes.length; at += sectorBytes) {
      if (survives(survival)) bytes.copy(content, offset + at, at, at + sectorBytes);
    }
  }
  return { kind: 'file', content, durable: Buffer.from(content), unsynced: [] };
}

/** Cut, or with zeros behind it. */
function withLength(content: Buffer, length: number | undefined): Buffer {
  if (length === undefined || length === content.length) return content;
  const next = Buffer.alloc(length);
  content.copy(next);
  return next;
}

/** A name whose folder did not survive is unreachable. */
export function isReachable(entries: Entries, path: string): boolean {
  const parent = dirname(path);
  if (parent === path) return true;
  const folder = entries.get(parent)?.node;
  return folder !== undefined && folder === entries.get(path)?.folder && isReachable(entries, parent);
}
