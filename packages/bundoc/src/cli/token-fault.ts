import { inspectToken, NotAToken } from '@bundoc/shared/cli/explain-token';
import { parseJson } from '@bundoc/shared/json/parse-json';

/**
 * What is wrong with a token for Bundoc, as far as it says itself: nothing is verified.
 *
 * @returns undefined when it looks right. A service that refuses it has a reason of its own, such as a
 *   revocation.
 */
export function faultOfToken(token: string, nowMs: number): string | undefined {
  try {
    const { aud, exp } = inspectToken(token).claims;
    if (aud !== 'bundoc')
      return 'the token is for BunKMS: a token for Bundoc has scopes that begin with "docs:"';
    return exp * 1_000 <= nowMs
      ? `the token expired at ${new Date(exp * 1_000).toISOString()}: get a new one`
      : undefined;
  } catch (error) {
    if (error instanceof NotAToken) return `that is no token: ${error.message}`;
    throw error;
  }
}

/**
 * Adds the fault of the token to a 401, which says no reason: the holder of a token may know it, others may
 * not.
 */
export async function withTokenFault<R extends Pick<Response, 'status' | 'text'>>(
  answer: R,
  authorization: string | null,
): Promise<R | Response> {
  const fault = answer.status === 401 ? faultOfToken(authorization ?? '', Date.now()) : undefined;
  if (fault === undefined) return answer;
  const problem = parseJson(await answer.text());
  return Response.json({ ...(problem as object), detail: fault }, { status: 401 });
}
