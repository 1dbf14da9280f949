import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { encodeCatalogHead } from '@bundoc/shared/contract/catalog-head';
import type { ExportedKey } from '@bundoc/shared/contract/keys';
import type { ByteSource } from '@bundoc/shared/files/file-source';
import { createLogger } from '@bundoc/shared/logs/logger';
import { type Clock, systemClock } from '@bundoc/shared/runtime/clock';
import { formatLine } from '../../src/audit/ship/shipper.ts';
import { readAuditCopy } from '../../src/recovery/audit-copy.ts';
import { EvidenceOfCopy } from '../../src/recovery/evidence.ts';
import { type RecoveredProject, type RecoverOptions, recoverKeys } from '../../src/recovery/recover.ts';
import { restore } from '../../src/recovery/restore.ts';
import type { RestoreReport } from '../../src/recovery/restore-run.ts';
import { surveyArchive } from '../../src/recovery/survey.ts';
import { type BackupFacts, createBackup } from '../../src/recovery/write-backup.ts';
import { parseKekRing } from '../../src/vault/kek-provider.ts';
import { Vault } from '../../src/vault/vault.ts';
import type { TestKms } from './kms.ts';
import { openTestStore } from './storage.ts';

const CALLER = { actor: 'tester' };

export function vaultOf(kek: string): Vault {
  return new Vault(parseKekRing('test', kek));
}

export function sourceOf(bytes: Buffer): ByteSource {
  return { sizeBytes: bytes.length, read: async (at, count) => Buffer.from(bytes.subarray(at, at + count)) };
}

/** A backup of the store of a running service. */
export async function backupOf(
  kms: TestKms,
  clock: Clock = systemClock,
): Promise<{ archive: Buffer; facts: BackupFacts }> {
  const { chainKey } = await kms.secrets();
  const deps = { store: kms.store, vault: vaultOf(kms.kek), chainKey, clock };
  const backup = await createBackup(deps, CALLER, () => undefined);
  const pieces: Buffer[] = [];
  for await (const piece of backup.bytes) pieces.push(piece);
  return { archive: Buffer.concat(pieces), facts: backup.facts() };
}

/** A copy of the chain like that of `BUNKMS_AUDIT_SHIP`, in a file. */
export async function auditCopyOf(kms: TestKms, path = join(kms.dataDir, 'copy')): Promise<string> {
  writeFileSync(path, (await kms.records()).map(formatLine).join(''));
  return path;
}

export interface RestoreFrom {
  readonly archive: Buffer;
  readonly kek: string;
  readonly dataDir: string;
  readonly auditCopy?: string;
  readonly clock?: Clock;
}

export async function restoreInto(from: RestoreFrom): Promise<RestoreReport> {
  const vault = vaultOf(from.kek);
  const source = sourceOf(from.archive);
  const survey = await surveyArchive(vault, source);
  const { auditCopy } = from;
  const { chainKey } = survey.secrets;
  const evidence =
    auditCopy === undefined
      ? undefined
      : new EvidenceOfCopy(await readAuditCopy([auditCopy], chainKey, survey.end.audit), survey);
  const openStore = () => openTestStore(from.dataDir);
  const { clock = systemClock } = from;
  return restore({ vault, openStore, clock, caller: CALLER }, source, survey, evidence);
}

export async function recoverFrom(
  kms: TestKms,
  bundocDir: string,
  options: Partial<RecoverOptions> = {},
): Promise<RecoveredProject[]> {
  const { chainKey, keks: state } = await kms.secrets();
  const logger = createLogger({ service: 'bunkms', level: 'silent' });
  const vault = vaultOf(kms.kek);
  vault.makeCurrent(state.current);
  const keks = { refresh: async () => state };
  const deps = { store: kms.store, vault, keks, chainKey, clock: systemClock, logger, caller: CALLER };
  const projects: RecoveredProject[] = [];
  const all = { dryRun: false, ...options };
  for await (const project of recoverKeys(deps, bundocDir, all)) projects.push(project);
  return projects;
}

/** Writes `project.json` and its copy in the head of a catalog, like Bundoc after exports. */
export function writeProject(
  bundocDir: string,
  project: string,
  keys: readonly ExportedKey[],
  change: (file: ReturnType<typeof projectFileOf>) => object = (file) => file,
): string {
  const directory = join(bundocDir, 'projects', project);
  mkdirSync(directory, { recursive: true });
  const text = JSON.stringify(change(projectFileOf(project, keys)), null, 2);
  writeFileSync(join(directory, 'project.json'), text);
  writeCatalog(directory, text);
  return directory;
}

/** Writes a catalog that consists only of its unencrypted head. */
export function writeCatalog(directory: string, projectFile: string): void {
  const head = encodeCatalogHead({
    keyVersion: 1,
    id: Buffer.alloc(16, 1),
    handle: '0123456789abcdef',
    covered: undefined,
    documents: 0,
    bytes: 0,
    projectFile: Buffer.from(projectFile),
  });
  writeFileSync(join(directory, 'catalog'), head);
}

function projectFileOf(project: string, keys: readonly ExportedKey[]) {
  return {
    format: 1,
    project,
    createdAt: '2026-01-01T00:00:00.000Z',
    key: { name: `${project}-dek`, id: String(keys[0]?.key_id) },
    versions: keys.map(({ version, kcv, wrapped_b64: wrapped }) => ({ version, kcv, wrapped })),
    nameKey: keys.map(({ version }) => ({ version, sealed: '' })),
  };
}
