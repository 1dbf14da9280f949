import { createHmac, generateKeyPairSync, type KeyObject, randomUUID, sign } from 'node:crypto';
import { isForServices } from '@bundoc/shared/contract/scopes';
import { type IssueToken, scopeSchema } from '@bundoc/shared/contract/tokens';
import { revocationDraft } from '../../src/records/token-record.ts';
import { pemOf } from '../../src/vault/signing-key.ts';
import { KMS_SCOPES, MAY_ISSUE_ALL, type TestKms } from './kms.ts';

export interface Caller {
  readonly name: string;
  /** The header, or undefined for none. */
  readonly authorization: string | undefined;
  /** The content of a valid token; undefined for a caller who must be refused with 401. */
  readonly token?: Pick<IssueToken, 'typ' | 'scope' | 'keys' | 'may_issue'>;
}

const base64url = (part: object | Buffer) =>
  (Buffer.isBuffer(part) ? part : Buffer.from(JSON.stringify(part))).toString('base64url');

function jwt(header: object, claims: object, signer: (input: string) => Buffer): string {
  const input = `${base64url(header)}.${base64url(claims)}`;
  return `${input}.${base64url(signer(input))}`;
}

/** Every kind of caller: each kind of invalid token, and each kind of valid one. */
export async function makeCallers(kms: TestKms): Promise<Caller[]> {
  const { signingKey, publicKey } = await kms.secrets();
  const nowS = Math.floor(Date.now() / 1000);
  const good = {
    typ: 'service',
    scope: [...KMS_SCOPES],
    keys: ['*'],
    may_issue: MAY_ISSUE_ALL,
  } satisfies Partial<IssueToken>;
  const bearer = (token: string) => `Bearer ${token}`;
  const known = await kms.issue(good);
  const header = { alg: 'EdDSA', typ: 'JWT', kid: publicKey.kid };
  const claims = {
    iss: 'bunkms',
    aud: 'bunkms',
    sub: 'tester',
    typ: 'service',
    scope: KMS_SCOPES.join(' '),
    keys: ['*'],
    projects: [],
    jti: known.jti,
    iat: nowS,
    exp: nowS + 600,
  };
  const signerOf = (key: KeyObject) => (input: string) => sign(null, Buffer.from(input), key);
  const signed = (more: object, head: object = header) =>
    bearer(jwt(head, { ...claims, ...more }, signerOf(signingKey)));
  const stranger = generateKeyPairSync('ed25519').privateKey;
  const pem = pemOf(publicKey);
  const hmacWith = (secret: string | Buffer) => (input: string) =>
    createHmac('sha256', secret).update(input).digest();
  const revoked = await kms.issue(good);
  await kms.store.revokeFamilies([revocationDraft({}, new Date().toISOString(), revoked)]);
  const docs = await kms.issue({ typ: 'service', scope: ['docs:admin'], projects: ['*'] });
  const refused: Caller[] = [
    { name: 'nobody', authorization: undefined },
    { name: 'an empty header', authorization: '' },
    { name: 'another scheme', authorization: 'Basic Zm9vOmJhcg==' },
    { name: 'no token', authorization: 'Bearer ' },
    { name: 'nonsense', authorization: bearer('nonsense') },
    { name: 'three parts of nonsense', authorization: bearer('a.b.c') },
    { name: 'a long token', authorization: bearer(`${'a'.repeat(13_000)}.b.c`) },
    { name: 'expired', authorization: signed({ iat: nowS - 600, exp: nowS - 1 }) },
    { name: 'from the future', authorization: signed({ iat: nowS + 3_600, exp: nowS + 7_200 }) },
    { name: 'not yet valid', authorization: signed({ nbf: nowS + 3_600 }) },
    { name: 'another signer', authorization: bearer(jwt(header, claims, signerOf(stranger))) },
    { name: 'no signature', authorization: bearer(`${known.token.split('.').slice(0, 2).join('.')}.`) },
    { name: 'changed claims', authorization: bearer(changed(known.token)) },
    {
      name: 'alg none',
      authorization: bearer(jwt({ ...header, alg: 'none' }, claims, () => Buffer.alloc(0))),
    },
    { name: 'alg none, signed', authorization: signed({}, { ...header, alg: 'none' }) },
    {
      name: 'HS256 with the public key',
      authorization: bearer(jwt({ ...header, alg: 'HS256' }, claims, hmacWith(pem))),
    },
    {
      name: 'HS256 with x',
      authorization: bearer(
        jwt({ ...header, alg: 'HS256' }, claims, hmacWith(Buffer.from(publicKey.x, 'base64url'))),
      ),
    },
    { name: 'an unknown kid', authorization: signed({}, { ...header, kid: 'other' }) },
    { name: 'no kid', authorization: signed({}, { alg: 'EdDSA', typ: 'JWT' }) },
    { name: 'a token for Bundoc', authorization: bearer(docs.token) },
    { name: 'two audiences', authorization: signed({ aud: ['bunkms', 'bundoc'] }) },
    { name: 'another issuer', authorization: signed({ iss: 'someone' }) },
    { name: 'no expiry', authorization: signed({ exp: undefined }) },
    { name: 'no jti', authorization: signed({ jti: undefined }) },
    { name: 'an unknown jti', authorization: signed({ jti: randomUUID() }) },
    { name: 'a revoked token', authorization: bearer(revoked.token) },
  ];

  const honest = async (name: string, request: NonNullable<Caller['token']>): Promise<Caller> => ({
    name,
    authorization: bearer((await kms.issue(request)).token),
    token: request,
  });
  const each = scopeSchema.options.filter((scope) => scope.startsWith('kms:'));
  return [
    ...refused,
    ...(await Promise.all(
      each.map((scope) =>
        honest(`a service with ${scope}`, {
          typ: 'service',
          scope: [scope],
          keys: ['*'],
          // No token has that scope without may_issue.
          ...(scope === 'kms:issue_client' ? { may_issue: MAY_ISSUE_ALL } : {}),
        }),
      ),
    )),
    await honest('a client with all it may have', {
      typ: 'client',
      scope: KMS_SCOPES.filter((scope) => !isForServices(scope)),
      keys: ['*'],
    }),
    // No issued client token has these scopes, so the claims of a known token are signed again.
    ...KMS_SCOPES.filter(isForServices).map(
      (scope): Caller => ({
        name: `a client with ${scope}`,
        authorization: signed({ typ: 'client', scope }),
        token: { typ: 'client', scope: [scope], keys: ['*'] },
      }),
    ),
    await honest('a service with kms:admin that may issue tokens', {
      typ: 'service',
      scope: ['kms:admin'],
      keys: ['*'],
      may_issue: MAY_ISSUE_ALL,
    }),
    await honest('a service for other keys', { ...good, keys: ['other-*'] }),
    await honest('a service for no key', { ...good, keys: [] }),
    await honest('a service like Bundoc', { ...good, keys: ['*-dek'] }),
    await honest('a service with everything', good),
  ];
}

/** Other claims with the same signature. */
function changed(token: string): string {
  const [head, body, signature] = token.split('.') as [string, string, string];
  const claims = JSON.parse(Buffer.from(body, 'base64url').toString()) as object;
  return [head, base64url({ ...claims, sub: 'admin' }), signature].join('.');
}
