import { createPrivateKey, X509Certificate } from 'node:crypto';
import { closeSync, existsSync, openSync, readFileSync } from 'node:fs';
import { isIP } from 'node:net';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { makeFolder } from '@bundoc/shared/files/make-folder';
import { replacePrivateFile } from '@bundoc/shared/files/private-file';
import { AUTHORITY_NAME, issueCertificate, makeAuthority } from './authority.ts';
import { UsageError } from './errors.ts';

/** A required certificate. */
export interface CertificateRequest {
  /** The folder for `cert.pem`, `key.pem` and `ca.pem`, and no other files. */
  readonly directory: string;
  /** DNS names and addresses of the service. */
  readonly names: readonly string[];
}

const DAY_MS = 86_400_000;
/** Certificates start this much earlier, because clocks differ slightly. */
const BACKDATE_MS = 3_600_000;
const AUTHORITY_DAYS = 3_650;
/** An authority with less time left is replaced: it must outlive the certificates that it signs. */
const AUTHORITY_DAYS_MIN = 730;
const CERTIFICATE_DAYS = 365;
/** A certificate with less time left is renewed. */
const CERTIFICATE_DAYS_MIN = 180;
const LOCK_TIMEOUT_MS = 10_000;

/**
 * Creates an authority in `authorityDir`, and a certificate from it for each service, when they are missing,
 * unusable or about to expire. Others are not changed. It may run at any time, even while the services run:
 * they reload the files.
 *
 * @throws UsageError where a file that would be replaced was not made here.
 */
export async function ensureCertificates(
  authorityDir: string,
  requests: readonly CertificateRequest[],
  nowMs: number = Date.now(),
): Promise<void> {
  using _lock = lock(authorityDir);
  const authority = await ensureAuthority(authorityDir, nowMs);
  for (const { directory, names } of requests) {
    if (isGood(directory, authority.cert, names, nowMs)) continue;
    refuseOthers('--certificate', directory, authority.cert);
    const issued = await issueCertificate(authority, names, {
      notBeforeMs: nowMs - BACKDATE_MS,
      notAfterMs: nowMs + CERTIFICATE_DAYS * DAY_MS,
    });
    await replacePrivateFile(join(directory, 'ca.pem'), authority.cert);
    await replacePrivateFile(join(directory, 'key.pem'), issued.key);
    await replacePrivateFile(join(directory, 'cert.pem'), issued.cert);
  }
}

/**
 * Prevents other processes from creating certificates at the same time, which could leave files that do not
 * belong together. SQLite's lock is released however the process ends; Node has no other lock of that kind.
 */
function lock(directory: string): Disposable {
  makeFolder(directory);
  const path = join(directory, 'lock');
  closeSync(openSync(path, 'a', 0o600));
  const database = new DatabaseSync(path, { timeout: LOCK_TIMEOUT_MS });
  database.exec('BEGIN IMMEDIATE');
  return { [Symbol.dispose]: () => database.close() };
}

async function ensureAuthority(directory: string, nowMs: number): Promise<{ cert: string; key: string }> {
  const [certPath, keyPath] = [join(directory, 'cert.pem'), join(directory, 'key.pem')];
  const present = readPair(directory);
  if (present !== undefined && daysLeft(present.leaf, nowMs) >= AUTHORITY_DAYS_MIN)
    return { cert: present.cert, key: present.key };
  refuseOthers('--authority', directory);
  const made = await makeAuthority({
    notBeforeMs: nowMs - BACKDATE_MS,
    notAfterMs: nowMs + AUTHORITY_DAYS * DAY_MS,
  });
  // The certificate comes first: it says whose the folder is, also after a crash between the two.
  await replacePrivateFile(certPath, made.cert);
  await replacePrivateFile(keyPath, made.key);
  return made;
}

/**
 * Only files that this command made are replaced: their folder has a certificate of a private authority, or
 * the authority's own one. @throws UsageError for any other: they may be of a public authority.
 */
function refuseOthers(option: string, directory: string, authority?: string): void {
  const found = ['cert.pem', 'key.pem'].map((name) => join(directory, name)).find((path) => existsSync(path));
  const certificates = ['ca.pem', 'cert.pem'].map((name) => certificateIn(join(directory, name)));
  const isOurs = certificates.some((text) => text !== undefined && (text === authority || isMadeHere(text)));
  if (found === undefined || isOurs) return;
  throw new UsageError(
    `${option}: ${found} was not made by this command, and stays as it is: name another folder, or remove it`,
  );
}

function certificateIn(path: string): string | undefined {
  return existsSync(path) ? readFileSync(path, 'utf8') : undefined;
}

function isMadeHere(pem: string): boolean {
  try {
    return new X509Certificate(pem).issuer.startsWith(`CN=${AUTHORITY_NAME} `);
  } catch {
    return false;
  }
}

function isGood(directory: string, authority: string, names: readonly string[], nowMs: number): boolean {
  const pair = readPair(directory);
  const caPath = join(directory, 'ca.pem');
  if (pair === undefined || !existsSync(caPath) || readFileSync(caPath, 'utf8') !== authority) return false;
  const { leaf } = pair;
  return (
    daysLeft(leaf, nowMs) >= CERTIFICATE_DAYS_MIN &&
    leaf.verify(new X509Certificate(authority).publicKey) &&
    names.every((name) => (isIP(name) === 0 ? leaf.checkHost(name) : leaf.checkIP(name)) !== undefined)
  );
}

/** @returns undefined unless both files exist, are readable and belong together. */
function readPair(directory: string): { cert: string; key: string; leaf: X509Certificate } | undefined {
  try {
    const cert = readFileSync(join(directory, 'cert.pem'), 'utf8');
    const key = readFileSync(join(directory, 'key.pem'), 'utf8');
    const leaf = new X509Certificate(cert);
    return leaf.checkPrivateKey(createPrivateKey(key)) ? { cert, key, leaf } : undefined;
  } catch {
    return undefined;
  }
}

function daysLeft(cert: X509Certificate, nowMs: number): number {
  return (cert.validToDate.getTime() - nowMs) / DAY_MS;
}
