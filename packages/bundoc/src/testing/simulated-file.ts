import { dirname } from 'node:path';

/** How much unsynced data survives a power cut. */
export type Survival = 'synced only' | 'everything' | { readonly random: () => number };

/** Disks write a sector completely or not at all. */
export const SECTOR_BYTES = 512;

interface UnsyncedWrite {
  readonly offset: number;
  readonly bytes: Buffer;
  /** The new length of the file; undefined when it stays the same. */
  readonly length: number | undefined;
}

export interface FileNode {
  readonly kind: 'file';
  /** The content that a running process reads. */
  content: Buffer;
  /** The content that every power cut keeps. */
  durable: Buffer;
  /** Writes since the last sync, in order. */
  unsynced: UnsyncedWrite[];
}

interface DirectoryNode {
  readonly kind: 'directory';
}

export type Node = DirectoryNode | FileNode;

/**
 * A name in a folder. A new folder in the place of a removed one has none of its names.
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

/** The content after all of these writes. */
function written(content: Buffer, writes: readonly UnsyncedWrite[]): Buffer {
  let next: Buffer = Buffer.from(content);
  for (const { offset, bytes, length } of writes) {
    next = withLength(next, length);
    bytes.copy(next, offset);
  }
  return next;
}

/**
 * The file after a power cut. Each sector of each unsynced write may be lost, and so may each new length.
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

/** The content, truncated or extended with zeros. */
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
