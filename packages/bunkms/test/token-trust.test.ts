import { randomInt, randomUUID } from 'node:crypto';
import { rmSync } from 'node:fs';
import { issuedTokenSchema, tokenPageSchema } from '@bundoc/shared/contract/tokens';
import { LONG } from '@bundoc/shared/testing/long';
import { needs } from '@bundoc/shared/testing/programs';
import { sampleOf } from '@bundoc/shared/testing/sample';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { TokenVerification } from '../src/audit/verify-tokens.ts';
import { bunkms } from './support/command.ts';
import { MAY_ISSUE_ALL, newDataDir, startKms, type TestKms } from './support/kms.ts';
import type { PostgresDatabases } from './support/postgres.ts';
import { testStorage } from './support/storage.ts';
import { usePostgresStorage } from './support/use-postgres-storage.ts';

type Issued = Awaited<ReturnType<TestKms['issue']>>;

/** What an attacker can edit in the row of a token. */
const EDITS = [
  ['its scope', `scope = '["kms:read_key","kms:export_key"]'`],
  ['its scope, to invalid JSON', `scope = 'kms:admin'`],
  ['its keys', `keys = '["*"]'`],
  ['its projects', `projects = '["*"]'`],
  ['its type', `typ = 'client'`],
  ['its audience', `aud = 'bundoc'`],
  ['its subject', `sub = 'somebody'`],
  ['its expiry', `expires_at = '2999-01-01T00:00:00.000Z'`],
  ['the time of its issue', `issued_at = '2020-01-01T00:00:00.000Z'`],
  ['its family', `family = '${randomUUID()}'`],
  ['its issuer', `issuer = '${randomUUID()}'`],
  ['what it may issue', `may_issue = '${JSON.stringify(MAY_ISSUE_ALL)}'`],
  ['what it may issue, to invalid JSON', `may_issue = 'all'`],
  ['its revocation', `revoked_at = '2020-01-01T00:00:00.000Z'`],
] as const;

/** The abilities of an attacker with the database but without the KEK regarding tokens. */
function tokenTrust(
  commandEnvironment: (dataDir: string) => Promise<Record<string, string>>,
  edits: readonly (typeof EDITS)[number][],
): void {
  let dataDir: string;
  let kms: TestKms;
  let admin: Issued;
  let victim: Issued;
  let other: Issued;
  const edit = (sql: string) => testStorage().edit(dataDir, sql);
  const status = async ({ token }: Pick<Issued, 'token'>) => (await kms.api('/v1/keys', { token })).status;
  const renew = ({ token }: Pick<Issued, 'token'>) => kms.api('/v1/tokens/renew', { method: 'POST', token });
  const listed = async () =>
    tokenPageSchema.strict().parse((await kms.api('/v1/tokens', { token: admin.token })).json());
  const damaged = async () => {
    const verification = new TokenVerification();
    for (const record of await kms.records()) verification.note(record);
    return verification.damagedTokens(kms.store, (await kms.secrets()).chainKey, '');
  };

  beforeEach(async () => {
    dataDir = newDataDir();
    kms = await startKms({ dataDir, watchEveryMs: 3_600_000 });
    admin = await kms.issue({ sub: 'ops', scope: ['kms:admin'], may_issue: MAY_ISSUE_ALL });
    victim = await kms.issue({ scope: ['kms:read_key'], keys: ['a-*'], ttl_s: 600 });
    other = await kms.issue({ scope: ['kms:read_key'], keys: ['*'] });
  });
  afterEach(async () => {
    await kms[Symbol.asyncDispose]();
    await testStorage().forget(dataDir);
    rmSync(dataDir, { recursive: true, force: true });
  });

  it('a row that is reset from revoked to active stays revoked, and verification names it', async () => {
    await kms.api(`/v1/tokens/${victim.jti}`, { method: 'DELETE', token: admin.token });
    expect([await status(victim), await damaged()]).toEqual([401, []]);
    await edit(`UPDATE tokens SET revoked_at = NULL WHERE jti = '${victim.jti}'`);
    expect(await status(victim)).toBe(401);
    expect((await renew(victim)).status).toBe(401);
    expect((await listed()).damaged).toEqual([victim.jti]);
    expect(await damaged()).toEqual([victim.jti]);
    await edit(`UPDATE tokens SET family = '${randomUUID()}', revoked_at = NULL WHERE jti = '${victim.jti}'`);
    expect(await status(victim)).toBe(401);
    expect(await damaged()).toEqual([victim.jti]);
    // Only this token is affected.
    expect(await status(other)).toBe(200);
  });

  it.each(edits)(
    'a row that is edited in %s is not trusted, and verification names it',
    async (_what, change) => {
      await edit(`UPDATE tokens SET ${change} WHERE jti = '${victim.jti}'`);
      expect((await renew(victim)).status).toBe(401);
      const { tokens, damaged: named } = await listed();
      expect([named, tokens.map(({ jti }) => jti)]).toEqual([[victim.jti], [admin.jti, other.jti]]);
      expect(await damaged()).toEqual([victim.jti]);
      expect((await renew(other)).status).toBe(201);
      // Its revocation uses the chain.
      const path = `/v1/tokens/${victim.jti}`;
      expect((await kms.api(path, { method: 'DELETE', token: admin.token })).status).toBe(204);
      expect(await status(victim)).toBe(401);
    },
  );

  it('a row that is removed makes its token unknown, and verification names it', async () => {
    await edit(`DELETE FROM tokens WHERE jti = '${victim.jti}'`);
    expect(await status(victim)).toBe(401);
    expect(await damaged()).toEqual([victim.jti]);
    expect(kms.logs.join('')).not.toContain(victim.token);
  });

  it('a forged row is not trusted, and verification names it', async () => {
    const jti = randomUUID();
    await edit(
      `INSERT INTO tokens (jti, family, sub, typ, aud, scope, keys, projects, issued_at, expires_at)
         SELECT '${jti}', '${jti}', sub, typ, aud, scope, keys, projects, issued_at, expires_at FROM tokens
          WHERE jti = '${victim.jti}'`,
    );
    expect((await listed()).damaged).toEqual([jti]);
    expect(await damaged()).toEqual([jti]);
  });

  it('a forged revocation in the database hides no real one, and verification names it', async () => {
    await kms.api(`/v1/tokens/${other.jti}`, { method: 'DELETE', token: admin.token });
    await edit(
      `CREATE TABLE planted AS SELECT * FROM audit WHERE action = 'token.revoke';
       UPDATE planted SET seq = -1, detail = replace(detail, '${other.jti}', '${victim.jti}');
       INSERT INTO audit SELECT * FROM planted; DROP TABLE planted`,
    );
    const environment = {
      BUNKMS_DATA_DIR: dataDir,
      BUNKMS_KEK: kms.kek,
      ...(await commandEnvironment(dataDir)),
    };
    const verified = await bunkms(environment, 'audit', 'verify');
    expect([verified.code, verified.stderr]).toEqual([
      1,
      expect.stringContaining('record -1 is before the first'),
    ]);
    const path = `/v1/tokens/${victim.jti}`;
    expect((await kms.api(path, { method: 'DELETE', token: admin.token })).status).toBe(204);
    await edit('DELETE FROM audit WHERE seq = -1');
    expect(await status(victim)).toBe(401);
    const revocations = (await kms.records()).filter(({ action }) => action === 'token.revoke');
    expect(revocations.map(({ detail }) => detail?.['family'])).toEqual([other.jti, victim.jti]);
    expect([await damaged(), (await kms.verify()).intact]).toEqual([[], true]);
  });

  it('a token whose audit record is edited is refused', async () => {
    await edit(
      `UPDATE audit SET detail = replace(detail, '"family":"${victim.jti}"', '"family":"${other.jti}"')
        WHERE detail LIKE '%"token":"${victim.jti}"%'`,
    );
    expect(await status(victim)).toBe(401);
    expect((await listed()).damaged).toEqual([victim.jti]);
    expect((await kms.verify()).intact).toBe(false);
  });

  it.each<[string, () => Promise<unknown>]>([
    ['it is revoked', () => kms.api(`/v1/tokens/${victim.jti}`, { method: 'DELETE', token: admin.token })],
    [
      'another process revokes it',
      async () => {
        const environment = {
          BUNKMS_DATA_DIR: dataDir,
          BUNKMS_KEK: kms.kek,
          ...(await commandEnvironment(dataDir)),
        };
        expect((await bunkms(environment, 'token', 'revoke', victim.jti)).code).toBe(0);
      },
    ],
    ['its row is removed', () => edit(`DELETE FROM tokens WHERE jti = '${victim.jti}'`)],
    [
      'its audit record is edited',
      () =>
        edit(
          `UPDATE audit SET detail = replace(detail, '"sub":"', '"sub":"x')
            WHERE detail LIKE '%"token":"${victim.jti}"%'`,
        ),
    ],
  ])('a token that has just been accepted is refused with the next request once %s', async (_what, end) => {
    for (const one of [victim, other, victim, other]) expect(await status(one)).toBe(200);
    await end();
    expect(await status(victim)).toBe(401);
    // Only this token is affected.
    expect(await status(other)).toBe(200);
  });

  it('the command line reports damaged tokens, and they make audit verify fail', async () => {
    const environment = {
      BUNKMS_DATA_DIR: dataDir,
      BUNKMS_KEK: kms.kek,
      ...(await commandEnvironment(dataDir)),
    };
    await kms.api(`/v1/tokens/${victim.jti}`, { method: 'DELETE', token: admin.token });
    await edit(`UPDATE tokens SET revoked_at = NULL WHERE jti = '${victim.jti}'`);
    const verified = await bunkms(environment, 'audit', 'verify', '--json');
    expect(verified.code).toBe(1);
    expect(JSON.parse(verified.stdout)).toMatchObject({ intact: true, damaged_tokens: [victim.jti] });
    expect(verified.stderr).toContain(`tokens contradict the audit chain: ${victim.jti}`);
    const list = await bunkms(environment, 'token', 'list');
    expect(list.stdout).toContain(`${victim.jti}  damaged\n`);
    expect(list.stdout).toContain(`${other.jti}  valid`);
  });

  describe('a revocation with cascade', () => {
    let root: Issued;
    let child: Issued;
    let grandchild: Issued;
    const issueBy = async ({ token }: Issued, more: object = {}) => {
      const body = { sub: 'x', typ: 'service', scope: ['kms:read_key', 'kms:admin'], keys: ['a-*'], ...more };
      return issuedTokenSchema.parse((await kms.api('/v1/tokens', { token, body })).json());
    };
    const cascade = () =>
      kms.api(`/v1/tokens/${root.jti}?cascade=true`, { method: 'DELETE', token: admin.token });
    const verify = async () => {
      const environment = {
        BUNKMS_DATA_DIR: dataDir,
        BUNKMS_KEK: kms.kek,
        ...(await commandEnvironment(dataDir)),
      };
      const { code, stdout } = await bunkms(environment, 'audit', 'verify', '--json');
      return [code, JSON.parse(stdout)];
    };
    beforeEach(async () => {
      const limit = { ...MAY_ISSUE_ALL, ttl_s: 86_400 };
      root = await kms.issue({ scope: ['kms:admin', 'kms:read_key'], keys: ['*'], may_issue: limit });
      child = await issueBy(root, { may_issue: limit });
      grandchild = await issueBy(child);
    });

    it.each([
      ['is edited by a space', `detail = replace(detail, '{"token"', '{ "token"')`],
      ['names another issuer', `detail = replace(detail, '"issuer":"', '"issuer":"0')`],
      ['is of another action', `action = 'token.issued'`],
    ])(
      'can be completed, and verification names the missed tokens, when a record between %s and is restored later',
      async (_what, change) => {
        const sibling = await issueBy(root);
        const where = `WHERE detail LIKE '%"${child.jti}"%' AND detail LIKE '%"${root.jti}"%'`;
        await edit(`CREATE TABLE kept AS SELECT * FROM audit ${where}; UPDATE audit SET ${change} ${where}`);
        const answer = await cascade();
        if (change.includes('{ "token"'))
          expect([answer.status, answer.json()]).toEqual([
            500,
            expect.objectContaining({ code: 'integrity_error' }),
          ]);
        for (const one of [root, sibling, child]) expect(await status(one)).toBe(401);
        expect(await status(grandchild)).toBe(200);
        await edit(
          `DELETE FROM audit WHERE seq = (SELECT seq FROM kept);
         INSERT INTO audit SELECT * FROM kept; DROP TABLE kept`,
        );
        const escaped = [child.jti, grandchild.jti].sort();
        expect(await verify()).toEqual([
          1,
          expect.objectContaining({ intact: true, escaped_tokens: escaped }),
        ]);
        // It was sealed while a record of its latest changes was another one.
        await expect.poll(async () => (await cascade()).status).toBe(204);
        for (const one of [child, grandchild]) expect(await status(one)).toBe(401);
        const [code, verdict] = await verify();
        expect([code, verdict.intact, verdict.escaped_tokens]).toEqual([0, true, undefined]);
      },
    );
  });

  it('a token with may_issue, and its renewal, match the chain', async () => {
    const renewed = issuedTokenSchema.parse((await renew(admin)).json());
    expect(renewed.may_issue).toEqual(MAY_ISSUE_ALL);
    expect((await listed()).damaged).toBeUndefined();
    expect(await damaged()).toEqual([]);
  });
}

describe('an attacker with the SQLite database of BunKMS', () => {
  tokenTrust(async () => ({}), EDITS);
});

/** Draws the edits of `npm test` on PostgreSQL. */
const SEED = Number(process.env['EDITS_SEED'] ?? randomInt(1, 2_147_483_646));

describe(
  `an attacker with the PostgreSQL database of BunKMS (EDITS_SEED=${SEED})`,
  needs('postgresql'),
  () => {
    let databases: PostgresDatabases;
    usePostgresStorage((started) => {
      databases = started;
    });
    tokenTrust(
      async (dataDir) => ({ BUNKMS_STORAGE: await databases.url(dataDir) }),
      LONG ? EDITS : sampleOf(EDITS, 4, SEED),
    );
  },
);
