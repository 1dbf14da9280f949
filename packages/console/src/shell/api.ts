import { Bundoc } from '@bundoc/client';
import { BundocError, errorOf } from '@bundoc/client/error';
import { Transport } from '@bundoc/client/transport';
import { computed, effect, signal } from '@preact/signals';
import { isReachable } from '../parts/use-request.ts';
import { nowMs, onSignOut, refused, session } from './session.ts';

/** A sent request, which the user can see and repeat. */
export interface SentRequest {
  readonly at: number;
  readonly method: string;
  /** Path and query. */
  readonly target: string;
  readonly headers: readonly (readonly [string, string])[];
  /** Undefined when there is none, or it is too long to keep. */
  readonly body: string | undefined;
  readonly isBodyLeftOut: boolean;
  /** HTTP status; 0 while pending, -1 after a failure without an answer. */
  readonly status: number;
  readonly ms: number | undefined;
}

const KEPT_REQUESTS = 40;
/** Maximum characters of a kept body. */
const KEPT_BODY_MAX = 65_536;
/** The latest requests, newest first; in memory only. */
export const requests = signal<readonly SentRequest[]>([]);
onSignOut(() => {
  requests.value = [];
});
const PROBE_EVERY_MS = 2_000;
/** While the service does not answer, polls until it does. */
effect(() => {
  if (isReachable.value) return undefined;
  const probe = () =>
    fetch('/health', { cache: 'no-store' }).then(
      () => {
        isReachable.value = true;
      },
      () => undefined,
    );
  const timer = setInterval(() => void probe(), PROBE_EVERY_MS);
  return () => clearInterval(timer);
});
/** How long a request may wait before the console says so. */
const SLOW_MS = 5_000;
/** Whether a request has been waiting for long. */
export const isSlow = computed(() => {
  const now = nowMs.value;
  return requests.value.some(({ status, at }) => status === 0 && now - at > SLOW_MS);
});

/** Headers that are not shown, because they are secret or of no interest. */
const UNSHOWN: ReadonlySet<string> = new Set(['authorization', 'idempotency-key']);

/** A `fetch` that records requests and their results, without the token. */
async function notedFetch(input: RequestInfo | URL, init: RequestInit = {}): Promise<Response> {
  const url = new URL(String(input));
  // Use the present token of the session: a client would keep its old one after a new one is pasted.
  const headers = new Headers(init.headers);
  const token = session.value?.token;
  if (headers.has('authorization')) headers.set('authorization', `Bearer ${token ?? ''}`);
  const start = performance.now();
  const body = typeof init.body === 'string' ? init.body : undefined;
  const isBodyLeftOut = body !== undefined && body.length > KEPT_BODY_MAX;
  let noted: SentRequest = {
    at: Date.now(),
    method: init.method ?? 'GET',
    target: `${url.pathname}${url.search}`,
    headers: [...headers].filter(([name]) => !UNSHOWN.has(name)),
    body: isBodyLeftOut ? undefined : body,
    isBodyLeftOut,
    status: 0,
    ms: undefined,
  };
  requests.value = [noted, ...requests.value].slice(0, KEPT_REQUESTS);
  const note = (status: number) => {
    const before = noted;
    noted = { ...noted, status, ms: Math.round(performance.now() - start) };
    requests.value = requests.value.map((one) => (one === before ? noted : one));
  };
  try {
    const response = await fetch(input, { ...init, headers });
    note(response.status);
    isReachable.value = true;
    // Another token may have been pasted in the meantime.
    if (response.status === 401 && session.value?.token === token) refused.value = true;
    return response;
  } catch (error) {
    note(-1);
    if (init.signal?.aborted !== true) isReachable.value = false;
    throw error;
  }
}

const OPTIONS = {
  url: location.origin,
  // `notedFetch` sets the token of the session on each request.
  token: 'session',
  fetch: notedFetch,
  deadlineMs: 30_000,
  triesMax: 3,
};

/** The service of this page. */
export const api = new Transport(OPTIONS);
export const bundoc = new Bundoc(OPTIONS);

/** Gets JSON. @param path below `/v1`, encoded. */
export async function getJson<T>(
  path: string,
  query: Readonly<Record<string, string | number | undefined>> = {},
  signal?: AbortSignal,
): Promise<T> {
  const { text } = await api.send({ method: 'GET', path, query, signal, isIdempotent: true });
  return JSON.parse(text) as T;
}

/** Sends a request outside `/v1`. @throws BundocError `network_error`. */
async function openFetch(path: string, init: RequestInit): Promise<Response> {
  try {
    return await notedFetch(new URL(path, location.origin), { ...init, cache: 'no-store' });
  } catch (cause) {
    throw new BundocError('network_error', { cause });
  }
}

/** Gets JSON without a token: `/`, `/ready`. A refusal counts as an answer. */
export async function getOpen<T>(path: string, signal?: AbortSignal): Promise<T> {
  const response = await openFetch(path, { headers: { accept: 'application/json' }, signal: signal ?? null });
  return (await response.json()) as T;
}

/** Gets text outside `/v1` with the session's token: `/metrics`. @throws Error for a refusal. */
export async function getOpenText(path: string, signal: AbortSignal): Promise<string> {
  const headers = { authorization: `Bearer ${session.value?.token ?? ''}` };
  const response = await openFetch(path, { headers, signal });
  const text = await response.text();
  if (!response.ok) throw errorOf(response.status, response.headers, text);
  return text;
}

/** Path segments, each encoded. */
export function path(...segments: readonly string[]): string {
  return segments.map((segment) => `/${encodeURIComponent(segment)}`).join('');
}

/** The request as a command line, with the token in `$TOKEN`. */
export function curlOf({ method, target, headers, body, isBodyLeftOut }: SentRequest): string {
  const parts = ['curl -sS'];
  if (method !== 'GET') parts.push(`-X ${method}`);
  parts.push(quoted(`${location.origin}${target}`));
  if (target.startsWith('/v1') || target === '/metrics') parts.push('-H "Authorization: Bearer $TOKEN"');
  for (const [name, value] of headers) parts.push(`-H ${quoted(`${name}: ${value}`)}`);
  if (body !== undefined) parts.push(`--data-binary ${quoted(body)}`);
  if (isBodyLeftOut) parts.push('--data-binary @body.json');
  return parts.join(' ');
}

function quoted(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`;
}
