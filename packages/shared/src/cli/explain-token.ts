import { createPublicKey, verify } from 'node:crypto';
import { rightOf } from '../contract/scopes.ts';
import {
  type Claims,
  claimsSchema,
  type Jwks,
  jwksSchema,
  type MayIssue,
  TOKEN_LENGTH_MAX,
} from '../contract/tokens.ts';
import { parseJson } from '../json/parse-json.ts';
import { printable } from '../logs/printable.ts';
import { counted } from './counted.ts';
import { CommandError } from './errors.ts';
import { type JsonOption, print } from './print.ts';
import { readText } from './read-text.ts';

/** A text that is not a token of BunKMS; the message says why. */
export class NotAToken extends CommandError {
  override readonly name = 'NotAToken';
}

/** The state of a signature: `not checked` without keys to check it with. */
export type SignatureState = 'not checked' | 'good' | 'bad' | 'of an unknown key';

export interface InspectedToken {
  readonly claims: Claims;
  readonly kid: string;
  readonly signature: SignatureState;
}

/**
 * Prints what a token says, without any request.
 *
 * @param options `jwks` is a file with the keys that BunKMS publishes at `/.well-known/jwks.json`.
 * @throws NotAToken; CommandError when its signature is checked and invalid, or it has expired.
 */
export async function printToken(
  text: string,
  options: JsonOption & { readonly jwks?: string },
): Promise<void> {
  const keys = options.jwks === undefined ? undefined : readKeySet(await readText(options.jwks));
  const inspected = inspectToken(text, keys);
  const { claims, kid, signature } = inspected;
  const nowMs = Date.now();
  const expired = claims.exp * 1_000 <= nowMs;
  print(options, { ...claims, kid, signature, expired }, () => explainToken(inspected, nowMs));
  if (keys !== undefined && signature !== 'good')
    throw new CommandError(`the signature is ${signature}: do not trust the token`, { exitCode: 1 });
  if (expired) throw new CommandError('the token has expired: get a new one', { exitCode: 1 });
}

/**
 * Reads a token locally. Without `keys` nothing is verified: anybody could have written it.
 *
 * @param keys the keys that BunKMS publishes.
 * @throws NotAToken
 */
export function inspectToken(text: string, keys?: Jwks): InspectedToken {
  const token = text.trim().replace(/^bearer\s+/i, '');
  const parts = token.split('.');
  if (token === '') throw new NotAToken('there is no token');
  if (parts.length !== 3)
    throw new NotAToken('a token has three parts joined by dots: is it cut off, or the name of a file?');
  if (token.length > TOKEN_LENGTH_MAX)
    throw new NotAToken(`a token has at most ${TOKEN_LENGTH_MAX} characters`);
  const header = objectOf(parts[0], 'header');
  const claims = claimsSchema.safeParse(objectOf(parts[1], 'content'));
  if (!claims.success) {
    const [issue] = claims.error.issues;
    throw new NotAToken(`it is no token of BunKMS: ${issue?.path.join('.')}: ${issue?.message}`);
  }
  const kid = String(header['kid'] ?? '');
  return {
    claims: claims.data,
    kid,
    signature: keys === undefined ? 'not checked' : check(token, kid, keys),
  };
}

/** The token in plain words, one fact per line. */
export function explainToken({ claims, kid, signature }: InspectedToken, nowMs: number): string[] {
  const facts: [name: string, ...values: string[]][] = [
    ['for', `${claims.sub}, a ${claims.typ}`],
    ['at', claims.aud === 'bunkms' ? 'BunKMS' : 'Bundoc'],
    ['may', ...claims.scope.map((scope) => `${scope}: ${rightOf(scope) ?? 'not known to this version'}`)],
    ['projects', namesOf(claims.projects, 'none')],
    ['keys', namesOf(claims.keys, 'none')],
    ['issues', claims.may_issue === undefined ? 'no tokens' : limitOf(claims.may_issue)],
    ['issued', timeOf(claims.iat, nowMs)],
    ...(claims.nbf === undefined ? [] : [['not before', timeOf(claims.nbf, nowMs)] as [string, string]]),
    [claims.exp * 1_000 <= nowMs ? 'expired' : 'until', timeOf(claims.exp, nowMs)],
    ['id', claims.jti],
    [
      'signature',
      signature === 'not checked' ? 'not checked: give the keys with --jwks' : `${signature} (key ${kid})`,
    ],
  ];
  const width = Math.max(...facts.map(([name]) => name.length)) + 2;
  return facts.flatMap(([name, ...values]) =>
    // A forged token may say anything.
    values.map((value, at) => printable(`${(at === 0 ? name : '').padEnd(width)}${value}`)),
  );
}

function limitOf({ scopes, projects, keys, ttl_s }: MayIssue): string {
  const of = [
    ...(projects.length === 0 ? [] : [`for projects ${namesOf(projects, '')}`]),
    ...(keys.length === 0 ? [] : [`for keys ${namesOf(keys, '')}`]),
  ];
  return [`tokens with ${scopes.join(' ')}`, ...of, `of at most ${spanOf(ttl_s)}`].join(', ');
}

function namesOf(names: readonly string[], none: string): string {
  if (names.length === 0) return none;
  return names.includes('*') ? 'all' : names.join(', ');
}

function timeOf(seconds: number, nowMs: number): string {
  const awayS = Math.round(seconds - nowMs / 1_000);
  const distance = awayS >= 0 ? `in ${spanOf(awayS)}` : `${spanOf(-awayS)} ago`;
  return `${new Date(seconds * 1_000).toISOString().replace('.000Z', 'Z')} (${distance})`;
}

const UNITS = [
  ['day', 86_400],
  ['hour', 3_600],
  ['minute', 60],
] as const;

function spanOf(seconds: number): string {
  const [unit, length] =
    UNITS.find(([, size]) => seconds >= 2 * size || seconds === size) ?? (['second', 1] as const);
  return counted(Math.round(seconds / length), unit);
}

function check(token: string, kid: string, { keys }: Jwks): SignatureState {
  const key = keys.find((one) => one.kid === kid);
  if (key === undefined) return 'of an unknown key';
  const at = token.lastIndexOf('.');
  const publicKey = createPublicKey({ key: { kty: key.kty, crv: key.crv, x: key.x }, format: 'jwk' });
  const signature = Buffer.from(token.slice(at + 1), 'base64url');
  return verify(null, Buffer.from(token.slice(0, at)), publicKey, signature) ? 'good' : 'bad';
}

/** @throws NotAToken */
function objectOf(part: string | undefined, what: string): Record<string, unknown> {
  const value = parseJson(Buffer.from(part ?? '', 'base64url').toString());
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return { ...value };
  throw new NotAToken(`the ${what} of the token is not JSON: is it cut off?`);
}

/** @throws NotAToken */
function readKeySet(text: string): Jwks {
  const keys = jwksSchema.safeParse(parseJson(text));
  if (!keys.success) throw new NotAToken('the key set is not from BunKMS: save /.well-known/jwks.json');
  return keys.data;
}
