import { createHash } from 'node:crypto';
import { stampOf, timeOfStamp } from '../recovery/backup-folder.ts';

/** Before every key. An archive of Bundoc may have the same target. */
const ROOT = 'bunkms/';
/** An object that a check of the target stores: `ROOT` and a name that is no installation. */
export const CHECK_KEY = `${ROOT}check`;
const SEQ_DIGITS = 16;
const PART_DIGITS = 5;
const HASH_DIGITS = 32;
const ID_DIGITS = 8;
/** Comes after every character of a key. */
export const LAST = '~';

/** A backup, of which each part is an object (`docs/formats/kms-archive.md`). */
export interface BackupName {
  /** The time as of which it is, to the second. */
  readonly timeMs: number;
  /** The number of its last audit record. */
  readonly seq: number;
  /** The beginning of its id. */
  readonly id: string;
}

export interface PartName {
  /** From 1. */
  readonly part: number;
  readonly of: number;
  readonly hash: string;
}

export interface RecordsName {
  readonly first: number;
  readonly last: number;
  readonly hash: string;
}

/** Before the folders of installations. */
export const installationsPrefix = ROOT;
const INSTALLATION = /^[0-9a-f]{8}$/;
const BACKUP = /^(\d{8}T\d{6}Z)-(\d{16})-([0-9a-f]{8})$/;
const PART = /^(\d{5})-of-(\d{5})-([0-9a-f]{32})$/;
const RECORDS = /^(\d{16})-(\d{16})-([0-9a-f]{32})$/;

/** The id of an installation; undefined for any other text. */
export function parseInstallation(text: string): string | undefined {
  return INSTALLATION.test(text) ? text : undefined;
}

/** What a name says of the bytes of its object. */
export function hashOf(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex').slice(0, HASH_DIGITS);
}

export const backupsPrefix = (installation: string) => `${ROOT}${installation}/backups/`;
/** Before the folders of the epochs of a chain. */
export const chainPrefix = (installation: string) => `${ROOT}${installation}/chain/`;
export const epochName = (epoch: number) => padded(epoch, SEQ_DIGITS);

export function backupName({ timeMs, seq, id }: BackupName): string {
  return `${stampOf(timeMs)}-${padded(seq, SEQ_DIGITS)}-${id.slice(0, ID_DIGITS)}`;
}

export function parseBackupName(text: string): BackupName | undefined {
  const [, stamp = '', seq = '', id = ''] = BACKUP.exec(text) ?? [];
  const timeMs = timeOfStamp(stamp);
  return timeMs === undefined ? undefined : { timeMs, seq: Number(seq), id };
}

export function partName({ part, of, hash }: PartName): string {
  return `${padded(part, PART_DIGITS)}-of-${padded(of, PART_DIGITS)}-${hash}`;
}

export function parsePartName(text: string): PartName | undefined {
  const [, part, of, hash = ''] = PART.exec(text) ?? [];
  return hash === '' ? undefined : { part: Number(part), of: Number(of), hash };
}

export function recordsName({ first, last, hash }: RecordsName): string {
  return `${padded(first, SEQ_DIGITS)}-${padded(last, SEQ_DIGITS)}-${hash}`;
}

export function parseRecordsName(text: string): RecordsName | undefined {
  const [, first, last, hash = ''] = RECORDS.exec(text) ?? [];
  return hash === '' ? undefined : { first: Number(first), last: Number(last), hash };
}

/** The beginning of the names of records from a number on. */
export const recordsFrom = (seq: number) => padded(Math.max(0, seq), SEQ_DIGITS);

function padded(value: number, digits: number): string {
  return String(value).padStart(digits, '0');
}
