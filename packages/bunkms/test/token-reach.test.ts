import { randomUUID } from 'node:crypto';
import {
  type IssuedToken,
  issuedTokenSchema,
  type MayIssue,
  tokenPageSchema,
} from '@bundoc/shared/contract/tokens';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { tokenIssueDraft } from '../src/records/token-record.ts';
import { FaultyStore } from './support/faulty-store.ts';
import { MAY_ISSUE_ALL, startKms, type TestKms } from './support/kms.ts';
import { testStorage } from './support/storage.ts';

const LIMIT: MayIssue = {
  scopes: ['docs:read', 'kms:read_key', 'kms:admin'],
  projects: ['project-a'],
  keys: ['a-*'],
  ttl_s: 600,
};
const LEAF = { typ: 'client', scope: ['docs:read'], projects: ['project-a'] };

describe('the reach of a token with kms:admin', () => {
  const faulty = new FaultyStore();
  let kms: TestKms;
  beforeEach(async () => {
    kms = await startKms({ decorate: faulty.decorate });
  });
  afterEach(async () => {
    for (const name of Object.keys(faulty.replaced)) delete faulty.replaced[name as 'listIssues'];
    await kms[Symbol.asyncDispose]();
  });

  type Token = Pick<IssuedToken, 'token' | 'jti'>;
  const tenant = (may_issue: MayIssue = LIMIT) =>
    kms.issue({ sub: 'tenant', scope: ['kms:admin'], may_issue });
  const ask = (by: Token, body: object) =>
    kms.api('/v1/tokens', { token: by.token, body: { sub: 'x', ...body } });
  const issued = async (by: Token, body: object = LEAF) =>
    issuedTokenSchema.parse((await ask(by, body)).json());
  const further = (by: Token) =>
    issued(by, { typ: 'service', scope: ['kms:admin'], may_issue: LIMIT, ttl_s: 600 });
  const renewed = async (token: Token) =>
    issuedTokenSchema.parse(
      (await kms.api('/v1/tokens/renew', { method: 'POST', token: token.token })).json(),
    );
  const page = async (by: Token, query = '') => {
    const answer = await kms.api(`/v1/tokens${query}`, { token: by.token });
    expect(answer.status, answer.text).toBe(200);
    return tokenPageSchema.parse(answer.json());
  };
  const seenBy = async (by: Token) => (await page(by)).tokens.map(({ jti }) => jti);
  const revoke = (by: Token, jti: string, query = '') =>
    kms.api(`/v1/tokens/${jti}${query}`, { method: 'DELETE', token: by.token });
  const isLive = async ({ jti }: Token) => (await kms.store.findActiveTokenFamily(jti)) !== undefined;
  /** A tenant with a deputy and tokens of both, and another tenant with a token. */
  const tenants = async () => {
    const [mine, other] = [await tenant(), await tenant()];
    const [first, foreign] = [await issued(mine), await issued(other)];
    const deputy = await further(mine);
    const second = await issued(mine);
    return { mine, other, first, foreign, deputy, second, ofDeputy: await issued(deputy) };
  };

  it('is all tokens that it has issued, directly or indirectly, in order, if its may_issue is narrow', async () => {
    const { mine, other, first, foreign, deputy, second, ofDeputy } = await tenants();
    expect(await seenBy(mine)).toEqual([first.jti, deputy.jti, ofDeputy.jti, second.jti]);
    expect(await seenBy(deputy)).toEqual([ofDeputy.jti]);
    expect(await seenBy(other)).toEqual([foreign.jti]);
    expect(await seenBy(await tenant())).toEqual([]);
  });

  it('excludes KEKs, which wrap the keys of everyone, if its may_issue is narrow', async () => {
    const [narrow, whole] = [await tenant(), await tenant(MAY_ISSUE_ALL)];
    const read = async ({ token }: Token) => (await kms.api('/v1/kek', { token })).json();
    const { current } = await read(whole);
    const unfetched = async ({ token }: Token) =>
      (await kms.api(`/v1/kek/${current}/unfetched`, { token })).status;
    expect([await read(narrow), await unfetched(narrow), await unfetched(whole)]).toMatchObject([
      { code: 'forbidden' },
      403,
      200,
    ]);
  });

  it('is everything without may_issue, and with one that allows everything', async () => {
    const { mine, foreign, ofDeputy } = await tenants();
    for (const more of [{}, { may_issue: { ...MAY_ISSUE_ALL, keys: ['**'], ttl_s: 60 } }]) {
      const all = await kms.issue({ scope: ['kms:admin'], ...more });
      expect(await seenBy(all)).toEqual(expect.arrayContaining([mine.jti, foreign.jti, ofDeputy.jti]));
      expect((await revoke(all, foreign.jti)).status).toBe(204);
    }
    expect(await isLive(foreign)).toBe(false);
  });

  it.each([
    ['scopes', { scopes: MAY_ISSUE_ALL.scopes.slice(1) }],
    ['keys', { keys: ['a*', '*b'] }],
    ['projects', { projects: ['project-a'] }],
  ] satisfies [string, Partial<MayIssue>][])(
    'is what it has issued when its may_issue lacks only some %s',
    async (_what, less) => {
      const { foreign } = await tenants();
      const one = await tenant({ ...MAY_ISSUE_ALL, ...less });
      const own = await issued(one);
      expect(await seenBy(one)).toEqual([own.jti]);
      expect((await revoke(one, foreign.jti)).status).toBe(404);
    },
  );

  it('includes tokens that earlier and later tokens of its family have issued, with their renewals', async () => {
    const mine = await tenant();
    const early = await issued(mine, { typ: 'service', scope: ['kms:read_key'], keys: ['a-x'] });
    const mineNow = await renewed(mine);
    const late = await issued(mineNow);
    const earlyNow = await renewed(early);
    for (const token of [mine, mineNow])
      expect(await seenBy(token)).toEqual([early.jti, earlyNow.jti, late.jti]);
    expect((await revoke(mineNow, earlyNow.jti)).status).toBe(204);
    expect([await isLive(early), await isLive(earlyNow), await isLive(late)]).toEqual([false, false, true]);
    expect((await revoke(mine, late.jti)).status).toBe(204);
  });

  it('does not include its own family, which its issuer revokes', async () => {
    const { mine, deputy } = await tenants();
    const deputyNow = await renewed(deputy);
    const before = await kms.store.auditHead();
    for (const one of [deputy, deputyNow]) {
      expect(await seenBy(deputy)).not.toContain(one.jti);
      expect((await revoke(deputy, one.jti)).json()).toMatchObject({ code: 'token_not_found' });
      expect((await revoke(deputyNow, one.jti, '?cascade=true')).status).toBe(404);
    }
    expect(await kms.store.auditHead()).toEqual(before);
    expect((await revoke(mine, deputy.jti)).status).toBe(204);
    expect(await isLive(deputyNow)).toBe(false);
  });

  it('includes tokens of issuers that were removed from the store, and tokens that applications issue', async () => {
    const grant = { ...LIMIT, scopes: [...LIMIT.scopes, 'kms:issue_client'] } satisfies MayIssue;
    const mine = await tenant(grant);
    const app = await issued(mine, {
      typ: 'service',
      scope: ['kms:issue_client'],
      ttl_s: 600,
      may_issue: { ...LIMIT, scopes: ['docs:read'] },
    });
    const user = await issued(app);
    expect(await seenBy(mine)).toEqual([app.jti, user.jti]);
    await testStorage().edit(kms.dataDir, `DELETE FROM tokens WHERE jti = '${app.jti}'`);
    expect(await seenBy(mine)).toEqual([user.jti]);
    expect((await revoke(mine, user.jti)).status).toBe(204);
    expect(await isLive(user)).toBe(false);
  });

  it('bounds a cascade to tokens that it has issued, and all others stay live', async () => {
    const { mine, other, first, foreign, deputy, second, ofDeputy } = await tenants();
    expect((await revoke(mine, deputy.jti, '?cascade=true')).status).toBe(204);
    for (const token of [deputy, ofDeputy]) expect(await isLive(token)).toBe(false);
    for (const token of [mine, other, first, foreign, second]) expect(await isLive(token)).toBe(true);
  });

  it('hides whether a token is unknown or out of reach, and a refusal writes nothing', async () => {
    const { mine, other, first, foreign, deputy, second } = await tenants();
    const admin = await kms.issue({ scope: ['kms:admin'] });
    const before = await kms.store.auditHead();
    const answers = [];
    for (const jti of [foreign.jti, other.jti, admin.jti, mine.jti, first.jti, second.jti, randomUUID()])
      for (const query of ['', '?cascade=true']) {
        const { status, headers, ...answer } = await revoke(deputy, jti, query);
        const { request_id: _, ...problem } = answer.json();
        const { date: __, 'content-length': ___, ...rest } = headers;
        answers.push(JSON.stringify([status, problem, Object.keys(rest).sort()]));
      }
    expect(new Set(answers).size).toBe(1);
    expect(JSON.parse(String(answers[0]))).toMatchObject([
      404,
      { code: 'token_not_found' },
      expect.any(Array),
    ]);
    expect(await kms.store.auditHead()).toEqual(before);
    expect(await isLive(foreign)).toBe(true);
    for (const cursor of [foreign.jti, mine.jti, first.jti, randomUUID()])
      expect(await page(deputy, `?cursor=${cursor}`)).toEqual({ tokens: [] });
  });

  it('never widens by issuing: a narrow issuer gives kms:admin only with a may_issue', async () => {
    const mine = await tenant();
    const body = { typ: 'service', scope: ['kms:admin'], ttl_s: 600 };
    expect((await ask(mine, body)).json()).toMatchObject({
      code: 'forbidden',
      detail: expect.stringContaining('kms:admin only with a may_issue'),
    });
    for (const may_issue of [MAY_ISSUE_ALL, { ...LIMIT, scopes: [...LIMIT.scopes, 'kms:audit'] }])
      expect((await ask(mine, { ...body, may_issue })).json()).toMatchObject({ code: 'forbidden' });
    const unlimited = await tenant(MAY_ISSUE_ALL);
    expect((await ask(unlimited, body)).status).toBe(201);
  });

  it('is bounded upwards: an issuing token has at most eight issuers above it', async () => {
    const root = await tenant();
    let last: Token = root;
    for (let depth = 1; depth <= 8; depth++) last = await further(last);
    const body = { typ: 'service', scope: ['kms:admin'], may_issue: LIMIT, ttl_s: 600 };
    expect((await ask(last, body)).json()).toMatchObject({
      code: 'forbidden',
      detail: 'a token that issues others has at most 8 issuers above it',
    });
    // The longest line is still walked from its end to its beginning.
    const leaf = await issued(last);
    const whole = await seenBy(root);
    expect([whole.length, whole.at(-1)]).toEqual([9, leaf.jti]);
    expect(await page(root, `?cursor=${last.jti}`)).toMatchObject({ tokens: [{ jti: leaf.jti }] });
    expect((await revoke(root, leaf.jti)).status).toBe(204);
  });

  describe('in pages', () => {
    const all = async (by: Token, limit: number) => {
      const jtis: string[] = [];
      let cursor: string | undefined;
      do {
        const { tokens, next_cursor } = await page(
          by,
          `?limit=${limit}${cursor === undefined ? '' : `&cursor=${cursor}`}`,
        );
        expect(tokens.length).toBeLessThanOrEqual(limit);
        jtis.push(...tokens.map(({ jti }) => jti));
        cursor = next_cursor;
      } while (cursor !== undefined);
      return jtis;
    };

    it('is the same for every size of the page, with each token once, and a continued page needs no earlier one', async () => {
      const { mine, deputy, foreign } = await tenants();
      await issued(await further(deputy));
      await issued(await renewed(mine));
      await issued(await renewed(deputy));
      const whole = await seenBy(mine);
      expect(new Set(whole).size).toBe(whole.length);
      expect(whole).toHaveLength(9);
      expect(whole).not.toContain(foreign.jti);
      for (let limit = 1; limit <= whole.length + 1; limit++) expect(await all(mine, limit)).toEqual(whole);
    });

    it('reads records by the index of issuers only, a bounded number for each page, however many tokens exist', async () => {
      const { mine, deputy, other } = await tenants();
      const { token: _, family: __, jti: ___, ...like } = await issued(deputy);
      const add = async (count: number, issuer: string) => {
        const made = Array.from({ length: count }, () => {
          const jti = randomUUID();
          return { ...like, jti, family: jti, issuer };
        });
        const time = new Date().toISOString();
        await kms.store.appendAudit(
          made.map((token) => tokenIssueDraft({ caller: {}, time, action: 'token.issue' }, token)),
        );
      };
      await add(2_000, other.jti);
      // Records without a row, as of tokens that were removed long after their end.
      await add(1_200, deputy.jti);
      const last = await issued(deputy);
      const reads: number[] = [];
      faulty.replaced.listTokens = () => Promise.reject(new Error('reads all tokens'));
      faulty.replaced.listIssues = async (real, ...args) => {
        const found = (await real(...args)) as unknown[][];
        reads.push(found.flat().length);
        return found;
      };
      const jtis: string[] = [];
      let pages = 0;
      let cursor: string | undefined;
      do {
        reads.length = 0;
        const found = await page(mine, `?limit=100${cursor === undefined ? '' : `&cursor=${cursor}`}`);
        expect(reads.length).toBeLessThan(20);
        expect(reads.reduce((sum, count) => sum + count, 0)).toBeLessThan(1_000);
        jtis.push(...found.tokens.map(({ jti }) => jti));
        cursor = found.next_cursor;
        pages++;
      } while (cursor !== undefined);
      expect(jtis).toContain(last.jti);
      expect(jtis).toHaveLength(6);
      // Those without a row make pages short, but no page reads further for them.
      expect(pages).toBeLessThanOrEqual(1_206 / 100 + 1);
    });

    it('leaves out records that were changed, and names changed rows as damaged', async () => {
      const { mine, first, foreign, deputy, second, ofDeputy } = await tenants();
      await testStorage().edit(kms.dataDir, `UPDATE tokens SET sub = 'y' WHERE jti = '${second.jti}'`);
      // A forged place in the tree of this tenant does not reveal the token of another one.
      await testStorage().edit(
        kms.dataDir,
        `UPDATE audit SET detail = replace(detail, '"issuer":"${(await kms.store.findToken(foreign.jti))?.row?.issuer}"', '"issuer":"${mine.jti}"') WHERE action = 'token.issue'`,
      );
      const { tokens, damaged } = await page(mine);
      expect(tokens.map(({ jti }) => jti)).toEqual([first.jti, deputy.jti, ofDeputy.jti]);
      expect(damaged).toEqual([second.jti]);
      expect((await revoke(mine, foreign.jti)).status).toBe(404);
    });
  });
});
