import { defined } from '@bundoc/shared/contract/defined';
import { reachesAll } from '../tokens/may-issue.ts';
import { familyOf, type Guards } from './guard.ts';
import { OF_PAGE } from './places.ts';
import type { AddRoute, Asked, JsonRoute } from './route.ts';
import { ISSUE, ISSUERS, LISTING, RENEWAL, REVOCATION } from './tokens.openapi.ts';

export function registerTokenRoutes(add: AddRoute, guards: Guards): void {
  add(
    'POST /v1/tokens',
    guards.serviceWithAny(ISSUERS),
    ISSUE,
    ({ body, services: { tokens, limits }, subject, caller, claims }) => {
      limits.take('issue', subject);
      return tokens.issue(body, caller, claims);
    },
  );

  add(
    'POST /v1/tokens/renew',
    guards.token,
    RENEWAL,
    ({ services: { tokens, limits }, subject, caller, claims }) => {
      limits.take('renewal', subject);
      return tokens.renew(claims, caller);
    },
  );

  add(
    'GET /v1/tokens',
    guards.service('kms:admin'),
    LISTING,
    async (asked) => {
      const { query, services, subject } = asked;
      services.limits.takeRead(subject, query.limit);
      const page = { limit: query.limit, after: query.cursor };
      const { tokens, damaged, next } = await services.tokens.list(page, limitOf(asked));
      return {
        tokens,
        ...(damaged.length === 0 ? {} : { damaged }),
        ...defined({ next_cursor: next }),
      };
    },
    OF_PAGE,
  );

  add('DELETE /v1/tokens/:jti', guards.service('kms:admin'), REVOCATION, (asked) => {
    const { params, query, services, caller } = asked;
    const options = { cascade: query.cascade === 'true', within: limitOf(asked) };
    return services.tokens.revoke(params.jti, caller, options);
  });
}

/** The family whose issued tokens are all that the caller reaches; undefined when it reaches every token. */
function limitOf({ claims, request }: Pick<Asked<JsonRoute>, 'claims' | 'request'>): string | undefined {
  return reachesAll(claims) ? undefined : familyOf(request);
}
