import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TlsFiles } from '@bundoc/shared/tls/files';
import { type CertifiedKey, issueCertificate, makeAuthority } from '../../src/cli/authority.ts';

const DAY_MS = 86_400_000;

/** The validity period in days from now. */
export interface Days {
  readonly from?: number;
  readonly to?: number;
}

export interface IssueOptions extends Days {
  readonly names?: readonly string[];
  readonly by?: CertifiedKey;
}

function validityOf({ from = -1, to = 100 }: Days) {
  const now = Date.now();
  return { notBeforeMs: now + from * DAY_MS, notAfterMs: now + to * DAY_MS };
}

/** Certificates for tests, in a temporary folder. */
export class TestPki implements Disposable {
  readonly folder = mkdtempSync(join(tmpdir(), 'bunkms-pki-'));
  readonly authority: CertifiedKey;

  private constructor(authority: CertifiedKey) {
    this.authority = authority;
  }

  static async make(): Promise<TestPki> {
    return new TestPki(await TestPki.newAuthority());
  }

  static newAuthority(days: Days = {}): Promise<CertifiedKey> {
    return makeAuthority(validityOf(days));
  }

  issue({ names = ['bundoc'], by = this.authority, ...days }: IssueOptions = {}): Promise<CertifiedKey> {
    return issueCertificate(by, names, validityOf(days));
  }

  /** Writes a pair and an authority to files with this name, and overwrites existing ones. */
  write(name: string, pair: CertifiedKey, authority: CertifiedKey = this.authority): TlsFiles {
    const path = (file: string) => join(this.folder, name, `${file}.pem`);
    mkdirSync(join(this.folder, name), { recursive: true });
    writeFileSync(path('cert'), pair.cert);
    writeFileSync(path('key'), pair.key);
    writeFileSync(path('ca'), authority.cert);
    return {
      cert: { variable: 'CERT_FILE', path: path('cert') },
      key: { variable: 'KEY_FILE', path: path('key') },
      ca: { variable: 'CA_FILE', path: path('ca') },
    };
  }

  [Symbol.dispose](): void {
    rmSync(this.folder, { recursive: true });
  }
}
