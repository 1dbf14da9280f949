import { randomUUID } from 'node:crypto';
import type { MayIssue, TokenInfo } from '@bundoc/shared/contract/tokens';
import { describe, expect, it } from 'vitest';
import type { KmsStore } from '../port.ts';
import type { RevocationPlace } from '../tokens.ts';
import { draft, issueOf, LATER, revocationOf, TIME, token } from './data.ts';
import { allRecords, type MakePlace, withStore } from './place.ts';

/** The tests that every {@link KmsStore} must pass for tokens. Call it in a test file. */
export function tokenConformance(name: string, makePlace: MakePlace): void {
  describe(`${name} as a KmsStore of tokens`, () => {
    let store: KmsStore;
    withStore(makePlace, (opened) => {
      store = opened;
    });

    it('returns tokens unchanged, in the order of their issue, with the records of the issue', async () => {
      const limit: MayIssue = { scopes: ['docs:read'], projects: ['*'], keys: [], ttl_s: 60 };
      const all: [TokenInfo, TokenInfo, TokenInfo] = [
        token(),
        { ...token(), may_issue: limit, scope: ['kms:admin'] },
        token(),
      ];
      for (const one of all) await store.insertToken(one, issueOf(one));
      const asStored = (one: TokenInfo) => ({
        jti: one.jti,
        row: one,
        issued: expect.objectContaining(issueOf(one)),
        revoked: undefined,
      });
      expect(await store.findToken(all[1].jti)).toEqual(asStored(all[1]));
      const first = await store.listTokens({ limit: 2 });
      expect(first).toEqual({ items: all.slice(0, 2).map(asStored), more: true });
      expect(await store.listTokens({ after: all[1].jti, limit: 2 })).toEqual({
        items: [asStored(all[2])],
        more: false,
      });
      expect(await store.listTokens({ after: randomUUID(), limit: 2 })).toEqual({ items: [], more: false });
      expect(await store.findToken(randomUUID())).toBeUndefined();
      expect(await store.findTokens([all[1].jti, randomUUID(), all[0].jti])).toEqual([
        asStored(all[1]),
        asStored(all[0]),
      ]);
    });

    it('revokes a whole family once, and no other family', async () => {
      const [root, other] = [token(), token()];
      const child = token(root.jti);
      await store.insertToken(root, issueOf(root));
      await store.insertToken(other, issueOf(other));
      expect(await store.renewToken(root.jti, child, issueOf(child, 'token.renew'))).toBe(true);
      expect(await store.revokeFamilies([revocationOf(root), revocationOf(child, LATER)])).toMatchObject([
        { isNew: true },
      ]);
      const head = await store.auditHead();
      for (const { jti } of [root, child]) {
        const stored = await store.findToken(jti);
        expect(stored?.row?.revoked_at).toBe(TIME);
        expect(stored?.revoked).toMatchObject(revocationOf(root));
      }
      expect(await store.findToken(other.jti)).toMatchObject({ row: other, revoked: undefined });
      expect(await store.revokeFamilies([revocationOf(root, LATER)])).toMatchObject([{ isNew: false }]);
      expect(await store.auditHead()).toEqual(head);
      expect((await store.findToken(root.jti))?.row?.revoked_at).toBe(TIME);
    });

    it('finds the family of an active token only', async () => {
      const [root, other] = [token(), token()];
      const child = token(root.jti);
      for (const one of [root, child, other]) await store.insertToken(one, issueOf(one));
      expect(await store.findActiveTokenFamily(child.jti)).toBe(root.jti);
      await store.revokeFamilies([revocationOf(root)]);
      for (const jti of [root.jti, child.jti, randomUUID()])
        expect(await store.findActiveTokenFamily(jti)).toBeUndefined();
      expect(await store.findActiveTokenFamily(other.jti)).toBe(other.jti);
    });

    it('takes the family of a token from the record of its issue, and treats a token without one as inactive', async () => {
      const [root, stray] = [token(), token()];
      await store.insertToken({ ...root, family: stray.jti }, issueOf(root));
      await store.insertToken(stray, draft('token.issue'));
      expect(await store.findActiveTokenFamily(root.jti)).toBe(root.family);
      expect(await store.findActiveTokenFamily(stray.jti)).toBeUndefined();
      expect(await store.findToken(stray.jti)).toMatchObject({ row: stray, issued: undefined });
      await store.revokeFamilies([revocationOf(root)]);
      expect(await store.findActiveTokenFamily(root.jti)).toBeUndefined();
    });

    it('finds the record of a token whose row is missing, and treats the token as inactive', async () => {
      const lost = token();
      await store.appendAudit([issueOf(lost)]);
      expect(await store.findToken(lost.jti)).toMatchObject({
        jti: lost.jti,
        row: undefined,
        issued: issueOf(lost),
      });
      expect(await store.findActiveTokenFamily(lost.jti)).toBeUndefined();
    });

    it('refuses to renew a revoked or unknown token, and writes nothing', async () => {
      const root = token();
      await store.insertToken(root, issueOf(root));
      await store.revokeFamilies([revocationOf(root)]);
      const before = await store.auditHead();
      expect(await store.renewToken(root.jti, token(root.jti), draft('token.renew'))).toBe(false);
      expect(await store.renewToken(randomUUID(), token(), draft('token.renew'))).toBe(false);
      expect(await store.auditHead()).toEqual(before);
      expect((await store.counts()).tokens).toBe(1);
    });

    it('refuses a token whose issuer is revoked or unknown, and writes nothing', async () => {
      const issuer = token();
      await store.insertToken(issuer, issueOf(issuer));
      const issued = { ...token(), issuer: issuer.jti };
      expect(await store.insertToken(issued, issueOf(issued))).toBe(true);
      await store.revokeFamilies([revocationOf(issuer)]);
      const before = await store.auditHead();
      for (const by of [issuer.jti, randomUUID()]) {
        const late = { ...token(), issuer: by };
        expect(await store.insertToken(late, issueOf(late))).toBe(false);
        expect(await store.findToken(late.jti)).toBeUndefined();
      }
      expect(await store.auditHead()).toEqual(before);
    });

    it('lists the records of issued tokens by family and by issuer, in pages', async () => {
      const add = async (more: Partial<TokenInfo> = {}, family?: string) => {
        const one = { ...token(family), ...more };
        await store.appendAudit([issueOf(one, family === undefined ? 'token.issue' : 'token.renew')]);
        return one;
      };
      const root = await add();
      const renewed = await add({}, root.family);
      const [child, other] = [await add({ issuer: renewed.jti }), await add()];
      const grandchild = await add({ issuer: child.jti, expires_at: TIME });
      const renewal = await add({ issuer: child.jti, expires_at: LATER }, grandchild.family);
      const great = await add({ issuer: renewal.jti });
      const late = await add({ issuer: root.jti, expires_at: '2025-01-01T00:00:00.000Z' });
      const ofOther = await add({ issuer: other.jti });
      const found = async (by: 'family' | 'issuer', of: readonly string[], limit = 10, after = 0) => {
        const places = of.map((one) => ({ of: one, after }));
        const lists = await store.listIssues(by, places, limit);
        return lists.map((records) => records.map(({ detail }) => detail?.['token']));
      };
      expect(await found('family', [root.family, great.family, randomUUID()])).toEqual([
        [root.jti, renewed.jti],
        [great.jti],
        [],
      ]);
      expect(await found('issuer', [child.jti, other.jti, root.jti])).toEqual([
        [grandchild.jti, renewal.jti],
        [ofOther.jti],
        [late.jti],
      ]);
      const [[first] = []] = await store.listIssues('issuer', [{ of: child.jti, after: 0 }], 1);
      expect(first?.detail?.['token']).toBe(grandchild.jti);
      expect(await found('issuer', [child.jti, root.jti], 10, first?.seq)).toEqual([
        [renewal.jti],
        [late.jti],
      ]);
    });

    it('removes families whose tokens have all expired, a bounded number at a time, and records it', async () => {
      const expiring = (day: number, family?: string) => ({
        ...token(family),
        expires_at: `2026-04-0${day}T00:00:00.000Z`,
      });
      const gone = [expiring(1), expiring(2), expiring(2)];
      const parent = expiring(1);
      const kept = [parent, expiring(5, parent.family), expiring(3)];
      for (const one of [...gone, ...kept]) await store.insertToken(one, issueOf(one));
      const prune = () =>
        store.pruneTokens('2026-04-03T00:00:00.000Z', 2, draft('token.prune', { detail: { a: 1 } }));
      expect([await prune(), await prune(), await prune()]).toEqual([2, 1, 0]);
      for (const { jti } of gone) expect((await store.findToken(jti))?.row).toBeUndefined();
      for (const one of kept) expect((await store.findToken(one.jti))?.row).toEqual(one);
      const records = (await allRecords(store)).filter(({ action }) => action === 'token.prune');
      expect(records.map(({ detail }) => detail)).toEqual([
        { a: 1, count: 2 },
        { a: 1, count: 1 },
      ]);
    });

    it('lists the revocations of tokens that have not expired, in pages', async () => {
      const tokens = [
        token(),
        token(),
        { ...token(), expires_at: TIME },
        { ...token(), expires_at: LATER },
        token(),
      ];
      for (const one of tokens) await store.insertToken(one, issueOf(one));
      for (const one of tokens.slice(1)) await store.revokeFamilies([revocationOf(one, LATER)]);
      const places: RevocationPlace[] = [];
      const page = async (after?: RevocationPlace) => {
        const { items, more } = await store.listRevoked('2026-01-02T00:00:00.000Z', { limit: 2, after });
        places.push(...items.map(({ seq, detail }) => ({ seq, expiresAt: String(detail?.['expires_at']) })));
        return [items.map(({ detail }) => detail?.['token']), more];
      };
      expect(await page()).toEqual([[tokens[1]?.jti, tokens[4]?.jti], true]);
      expect(await page(places.at(-1))).toEqual([[tokens[3]?.jti], false]);
    });
  });
}
