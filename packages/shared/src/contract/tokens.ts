import { z } from 'zod';
import { projectIdSchema } from './documents.ts';
import { isForServices, SCOPES, type Scope } from './scopes.ts';

export const TOKEN_ISSUER = 'bunkms';

export const audienceSchema = z.enum(['bunkms', 'bundoc']);
export type Audience = z.infer<typeof audienceSchema>;

export const scopeSchema = z.enum(SCOPES, { error: ({ input }) => notAScope(input) });
export type { Scope };

export const tokenTypeSchema = z.enum(['service', 'client']);

/** Globs over key names: `*` stands for any run of characters, everything else for itself. */
export const keyGlobSchema = z
  .string()
  .regex(/^[a-z0-9._*-]{1,128}$/, 'must be 1 to 128 of a-z 0-9 . _ - and *');

const projectGrantSchema = z.union([z.literal('*'), projectIdSchema], {
  error: 'must be *, or 1 to 63 of a-z 0-9 -, starting with a letter or digit',
});

export const subjectSchema = z
  .string()
  .regex(/^[A-Za-z0-9][A-Za-z0-9._@:-]{0,127}$/, 'must be 1 to 128 of A-Z a-z 0-9 . _ @ : -');

const SECONDS_PER_DAY = 86_400;
/** Longest life of a token, seconds. */
export const TOKEN_TTL_S_MAX = { service: 365 * SECONDS_PER_DAY, client: SECONDS_PER_DAY } as const;
const TOKEN_TTL_WORDS = { service: '365 days', client: '24 hours' } as const;
/** Default life of a token, seconds. */
export const TOKEN_TTL_S_DEFAULT = { service: 30 * SECONDS_PER_DAY, client: 3_600 } as const;
/** How far the clock of a token's issuer may be ahead of the clock of the service that checks it, seconds. */
export const TOKEN_AHEAD_S_MAX = 60;
/** Longest token that is issued and accepted, characters: headers are bounded. */
export const TOKEN_LENGTH_MAX = 12_288;

const scopesSchema = z.array(scopeSchema).min(1).max(scopeSchema.options.length);
const keysSchema = z.array(keyGlobSchema).max(100).default([]);
const projectsSchema = z.array(projectGrantSchema).max(100).default([]);

/** What the tokens that a bearer issues may be for, and how long they may live. */
export const mayIssueSchema = z.strictObject({
  scopes: scopesSchema,
  projects: projectsSchema,
  keys: keysSchema,
  ttl_s: z.int().positive().max(TOKEN_TTL_S_MAX.service),
});
export type MayIssue = z.infer<typeof mayIssueSchema>;

/** The claims of a token that passed its signature check. `iat`, `exp` and `nbf` are seconds since 1970. */
export const claimsSchema = z.object({
  iss: z.literal(TOKEN_ISSUER),
  aud: audienceSchema,
  sub: subjectSchema,
  typ: tokenTypeSchema,
  scope: z
    .string()
    .max(512)
    .transform((scope) => scope.split(' ').filter((word) => word !== '')),
  keys: keysSchema,
  projects: projectsSchema,
  /** Absent: the bearer may issue no tokens. */
  may_issue: mayIssueSchema.optional(),
  jti: z.uuid(),
  /** The token whose share of the process this one uses. Absent: a separate share. */
  root: z.uuid().optional(),
  iat: z.int(),
  exp: z.int(),
  /** BunKMS never sets it. A token that has it is refused before that time. */
  nbf: z.int().optional(),
});
export type Claims = z.infer<typeof claimsSchema>;

/** The input of `POST /v1/tokens` and `bunkms token issue`. The audience follows from the scopes. */
export const issueTokenSchema = z
  .strictObject({
    sub: subjectSchema,
    typ: tokenTypeSchema,
    scope: scopesSchema,
    keys: keysSchema,
    projects: projectsSchema,
    ttl_s: z.int().positive().optional(),
    may_issue: mayIssueSchema.optional(),
  })
  .superRefine((request, context) => {
    const fault = (path: string, message: string) =>
      context.addIssue({ code: 'custom', path: [path], message });
    if (new Set(request.scope.map((scope) => audienceOf(scope))).size > 1)
      fault('scope', 'kms and docs scopes need separate tokens: a token is for one service');
    for (const scope of request.scope)
      if (request.typ === 'client' && isForServices(scope))
        fault('scope', `only service tokens may have ${scope} (docs/scopes.md)`);
    const ofDocuments = request.scope.find((scope) => isOfDocuments(scope));
    if (ofDocuments !== undefined && request.projects.length === 0)
      fault(
        'projects',
        `is required with ${ofDocuments}: name projects, or * for all; without, it allows nothing`,
      );
    const issuesClients = request.scope.includes('kms:issue_client');
    if (issuesClients && request.may_issue === undefined)
      fault('may_issue', 'is required with kms:issue_client: what the client tokens may be for');
    if (request.may_issue !== undefined && !issuesClients && !request.scope.includes('kms:admin'))
      fault('may_issue', 'only tokens with kms:admin or kms:issue_client issue others');
    if ((request.ttl_s ?? 0) > TOKEN_TTL_S_MAX[request.typ])
      fault(
        'ttl_s',
        `must be at most ${TOKEN_TTL_S_MAX[request.typ]} (${TOKEN_TTL_WORDS[request.typ]}) for a ${request.typ} token`,
      );
  });
export type IssueToken = z.infer<typeof issueTokenSchema>;
export type IssueTokenInput = z.input<typeof issueTokenSchema>;

/** Lists the scopes of the service that was meant; all for an unknown service. */
function notAScope(input: unknown): string {
  const [service] = typeof input === 'string' ? input.split(':') : [];
  const meant = SCOPES.filter((scope) => scope.startsWith(`${service}:`));
  return `is not a scope; use ${(meant.length === 0 ? SCOPES : meant).join(', ')}`;
}

/** Whether a scope allows something in the projects of its token, and nothing else. */
function isOfDocuments(scope: Scope): boolean {
  return audienceOf(scope) === 'bundoc' && scope !== 'docs:metrics';
}

/** The service that a scope belongs to. */
export function audienceOf(scope: Scope): Audience {
  return scope.startsWith('kms:') ? 'bunkms' : 'bundoc';
}

/** The public facts of an issued token; never the token itself. */
export const tokenInfoSchema = z.object({
  jti: z.uuid(),
  sub: subjectSchema,
  typ: tokenTypeSchema,
  aud: audienceSchema,
  scope: z.array(z.string()),
  keys: z.array(z.string()),
  projects: z.array(z.string()),
  issued_at: z.iso.datetime(),
  expires_at: z.iso.datetime(),
  revoked_at: z.iso.datetime().optional(),
  /** The first token of its chain of renewals. */
  family: z.uuid(),
  /** The token that issued the first of its family; absent for the command line. */
  issuer: z.uuid().optional(),
  may_issue: mayIssueSchema.optional(),
});
export type TokenInfo = z.infer<typeof tokenInfoSchema>;

export const issuedTokenSchema = z.object({ token: z.string(), ...tokenInfoSchema.shape });
export type IssuedToken = z.infer<typeof issuedTokenSchema>;

export const tokenPageSchema = z.object({
  tokens: z.array(tokenInfoSchema),
  /** Ids of tokens of the page whose records contradict the audit chain. Their state is unknown. */
  damaged: z.array(z.string()).optional(),
  next_cursor: z.string().optional(),
});

/** A JSON Web Key Set (RFC 7517) of Ed25519 keys (RFC 8037). */
export const jwksSchema = z.object({
  keys: z
    .array(
      z.object({
        kty: z.literal('OKP'),
        crv: z.literal('Ed25519'),
        use: z.literal('sig'),
        alg: z.literal('EdDSA'),
        kid: z.string().min(1).max(64),
        x: z.string().length(43),
      }),
    )
    .max(16),
});
export type Jwks = z.infer<typeof jwksSchema>;
