import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir, userInfo } from 'node:os';
import { join } from 'node:path';
import { openTestDatabase } from '@bundoc/bundoc/testing/postgres-project';
import { issueCertificate, makeAuthority } from '@bundoc/bunkms/cli/authority';
import { PostgresServer } from '@bundoc/shared/testing/postgres-server';
import { needs } from '@bundoc/shared/testing/programs';
import { PATIENT_MS } from '@bundoc/shared/testing/timing';
import { describe, expect, it } from 'vitest';

const DAY_MS = 86_400_000;

describe('a connection of Bundoc to PostgreSQL by TLS', needs('postgresql'), () => {
  it('succeeds only if the certificate names the host, which may be an address', async () => {
    const days = { notBeforeMs: Date.now() - DAY_MS, notAfterMs: Date.now() + DAY_MS };
    const folder = mkdtempSync(join(tmpdir(), 'bundoc-pg-tls-'));
    try {
      const write = (name: string, text: string) => {
        writeFileSync(join(folder, name), text, { mode: 0o600 });
        return join(folder, name);
      };
      const authority = await makeAuthority(days);
      const right = write('ca.pem', authority.cert);
      const wrong = write('other-ca.pem', (await makeAuthority(days)).cert);
      const pairOf = async (address: string) => {
        const { cert, key } = await issueCertificate(authority, [address], days);
        const settings = { ssl: 'on', ssl_cert_file: write(`${address}.pem`, cert) };
        return { ...settings, ssl_key_file: write(`${address}.key`, key) };
      };
      const byAddress = await pairOf('127.0.0.1');
      const byName = await pairOf('localhost');
      if (userInfo().uid === 0) execFileSync('chown', ['-R', 'postgres', folder]);
      const open = (url: string, ca: string | undefined, hostname = '127.0.0.1') => {
        const place = new URL(url);
        place.hostname = hostname;
        place.search = 'sslmode=verify-full';
        const config = {
          caFile: ca === undefined ? undefined : { variable: 'BUNDOC_POSTGRES_CA_FILE', path: ca },
          isPooled: false,
          connectionsMax: 2,
          connectTimeoutMs: PATIENT_MS,
          statementTimeoutMs: PATIENT_MS,
          idleInTransactionTimeoutMs: PATIENT_MS,
        };
        return openTestDatabase(place.href, config);
      };
      const isTls = async (...to: Parameters<typeof open>) => {
        await using database = open(...to);
        const [rows] = await database.run('SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()');
        return rows?.[0]?.[0];
      };
      const refused = { code: 'storage_unavailable' };
      {
        await using server = await PostgresServer.start({ settings: byAddress });
        const { url } = await server.createDatabase('bundoc');
        expect(await isTls(url, right)).toBe(true);
        await expect(isTls(url, wrong)).rejects.toMatchObject(refused);
        await expect(isTls(url, undefined)).rejects.toMatchObject(refused);
        // The same server by a name that is not in its certificate.
        await expect(isTls(url, right, 'localhost')).rejects.toMatchObject(refused);
      }
      await using server = await PostgresServer.start({ settings: byName });
      const { url } = await server.createDatabase('bundoc');
      expect(await isTls(url, right, 'localhost')).toBe(true);
      await expect(isTls(url, right)).rejects.toMatchObject(refused);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});
