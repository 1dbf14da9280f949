import { computed, signal } from '@preact/signals';

/**
 * The claims that the console reads from a token. They are only for display: the service verifies the token.
 */
export interface Claims {
  readonly aud: string;
  readonly sub: string;
  readonly typ: string;
  readonly scopes: readonly string[];
  readonly projects: readonly string[];
  readonly keys: readonly string[];
  readonly mayIssue: boolean;
  readonly jti: string;
  readonly expiresAtMs: number;
}

export interface Session {
  readonly token: string;
  readonly claims: Claims;
}

/** The session exists only in this variable: no cookie, no storage. A reload ends it. */
export const session = signal<Session | undefined>(undefined);
/** The service has refused the token of the session. */
export const refused = signal(false);
/** Ticks once a second to update everything that depends on the time. */
export const nowMs = signal(Date.now());
setInterval(() => {
  nowMs.value = Date.now();
}, 1_000);

/** Whether the session needs a new token. The console asks for it and keeps the screen. */
export const needsToken = computed(() => {
  const current = session.value;
  return current !== undefined && (refused.value || nowMs.value >= current.claims.expiresAtMs);
});

export function signIn(token: string, claims: Claims): void {
  session.value = { token, claims };
  refused.value = false;
  nowMs.value = Date.now();
}

const forgetting: (() => void)[] = [];

/** Registers a function that clears data at sign-out, because another user may follow on the same page. */
export function onSignOut(forget: () => void): void {
  forgetting.push(forget);
}

export function signOut(): void {
  session.value = undefined;
  refused.value = false;
  for (const forget of forgetting) forget();
}

/** Whether the token has a scope. */
export function may(scope: string): boolean {
  return session.value?.claims.scopes.includes(scope) === true;
}

/** Whether it is a service token with the scope. */
export function mayAsService(scope: string): boolean {
  return session.value?.claims.typ === 'service' && may(scope);
}

const JWT = /^[A-Za-z0-9_-]+\.([A-Za-z0-9_-]+)\.[A-Za-z0-9_-]+$/;

/** @returns the claims of the token, or why it is invalid. */
export function readToken(text: string): Claims | string {
  const payload = JWT.exec(text)?.[1];
  if (payload === undefined) return 'This is not a token: a token has three parts joined by dots.';
  try {
    return claimsOf(JSON.parse(decode(payload)) as Record<string, unknown>);
  } catch {
    return 'This is not a token of BunKMS: its claims cannot be read.';
  }
}

function claimsOf(claims: Record<string, unknown>): Claims {
  const { aud, sub, typ, scope, jti, exp } = claims;
  const isComplete = [aud, sub, typ, scope, jti].every((claim) => typeof claim === 'string');
  if (!isComplete || typeof exp !== 'number') throw new TypeError('claims are missing');
  return {
    aud: String(aud),
    sub: String(sub),
    typ: String(typ),
    scopes: String(scope)
      .split(' ')
      .filter((word) => word !== ''),
    projects: textsOf(claims['projects']),
    keys: textsOf(claims['keys']),
    mayIssue: claims['may_issue'] !== undefined,
    jti: String(jti),
    expiresAtMs: exp * 1_000,
  };
}

function textsOf(value: unknown): string[] {
  return Array.isArray(value) ? value.filter((text) => typeof text === 'string') : [];
}

function decode(base64url: string): string {
  const binary = atob(base64url.replaceAll('-', '+').replaceAll('_', '/'));
  return new TextDecoder().decode(Uint8Array.from(binary, (char) => char.charCodeAt(0)));
}
