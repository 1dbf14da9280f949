import { createHash } from 'node:crypto';
import type { DatedAnswer } from '../runtime/clock-skew.ts';
import {
  assertGet,
  assertKey,
  assertPrefix,
  type GetOptions,
  isKey,
  type ObjectStorage,
  ObjectStorageError,
  type StoredObject,
} from './port.ts';
import { type S3Answer, S3Calls, type S3CallsOptions } from './s3-calls.ts';
import type { S3Headers } from './s3-refusal.ts';
import { textOf, type XmlElement } from './xml.ts';

export interface S3StorageOptions extends S3CallsOptions {
  /** The keys' common beginning in the bucket: empty, or with a slash at its end. */
  readonly prefix: string;
  /** Keys in one answer to a list, 1,000 at most; tests set fewer. */
  readonly pageKeys?: number | undefined;
}

const PAGE_KEYS = 1_000;
/** Answers to a list without a single key of ours, one after another. */
const FOREIGN_PAGES_MAX = 100;
const LIST_BYTES_MAX = 4_194_304;
const ANSWER_BYTES_MAX = 65_536;

/**
 * Objects in a bucket of S3, or of a service that speaks its protocol. The credential needs `s3:PutObject`,
 * `s3:GetObject` and `s3:ListBucket`, and `s3:DeleteObject` to prune. Without `s3:ListBucket`, an absent
 * object is `denied`.
 *
 * A put carries its SHA-256 and its MD5, which object lock needs, and `If-None-Match: *`: AWS, Cloudflare R2
 * and MinIO keep the object that they have. A service without this condition either refuses the header, and
 * is asked without it from then on, or ignores it. Such a service overwrites. The ETag of the answer is
 * compared with the MD5 unless the object is encrypted under another key of the service. When that leaves a
 * doubt, the object is read and compared.
 *
 * A key without a version is deleted: in a bucket with versions, that hides the object.
 *
 * Source: PutObject, GetObject, ListObjectsV2, DeleteObject in the Amazon S3 API Reference.
 */
export class S3Storage implements ObjectStorage {
  readonly name: string;
  readonly #options: S3StorageOptions;
  readonly #calls: S3Calls;
  /** Whether the service knows `If-None-Match` of a put, as far as it is known. */
  #knowsCondition = true;

  constructor(options: S3StorageOptions) {
    this.name = options.name;
    this.#options = options;
    this.#calls = new S3Calls(options);
  }

  get lastAnswer(): DatedAnswer | undefined {
    return this.#calls.lastAnswer;
  }

  async put(key: string, body: Uint8Array): Promise<void> {
    assertKey(key);
    const md5 = createHash('md5').update(body).digest();
    const isConditional = this.#knowsCondition;
    const { status, headers } = await this.#calls.call({
      verb: `put ${key}`,
      method: 'PUT',
      key: this.#options.prefix + key,
      headers: {
        'content-md5': md5.toString('base64'),
        'content-type': 'application/octet-stream',
        ...(isConditional && { 'if-none-match': '*' }),
      },
      body,
      accepted: isConditional ? [200, 412, 501] : [200],
      bytesMax: ANSWER_BYTES_MAX,
    });
    if (status === 501) {
      this.#knowsCondition = false;
      return await this.put(key, body);
    }
    if (status === 412 || !confirms(headers, md5.toString('hex'))) await this.#requireSame(key, body, status);
  }

  async get(key: string, options: GetOptions): Promise<Buffer | undefined> {
    assertGet(key, options);
    const { range, maxBytes } = options;
    const verb = `get ${key}`;
    const answer = await this.#calls.call({
      verb,
      method: 'GET',
      key: this.#options.prefix + key,
      headers: range === undefined ? {} : { range: `bytes=${range.at}-${range.at + range.bytes - 1}` },
      accepted: range === undefined ? [200, 'NoSuchKey'] : [206, 416, 'NoSuchKey'],
      isObject: true,
      bytesMax: maxBytes,
    });
    if (answer.status === 404) return undefined;
    // The range begins at the end of the object or after it.
    if (answer.status === 416) return Buffer.alloc(0);
    if (range !== undefined && !isRange(answer, range.at, range.bytes))
      throw this.#wrong(verb, 'the answer has another range');
    return answer.body;
  }

  async *list(prefix: string, after = ''): AsyncGenerator<StoredObject> {
    assertPrefix(prefix);
    const root = this.#options.prefix;
    const verb = `list ${prefix}`;
    let [last, token, foreignPages] = ['', undefined as string | undefined, 0];
    do {
      const page = await this.#page(verb, root + prefix, after === '' ? '' : root + after, token);
      const keys = page.objects.filter(({ key }) => isKey(key));
      foreignPages = keys.length > 0 ? 0 : foreignPages + 1;
      if (foreignPages > FOREIGN_PAGES_MAX || (page.next !== undefined && page.next === token))
        throw this.#wrong(verb, 'the list does not end');
      for (const object of page.objects) {
        if (!object.key.startsWith(root + prefix))
          throw this.#wrong(verb, 'the list has a key that does not begin with the prefix');
        const key = object.key.slice(root.length);
        if (!isKey(key)) continue;
        if (key <= last) throw this.#wrong(verb, 'the list is not sorted by keys');
        last = key;
        // Some services ignore where a list shall begin.
        if (key > after) yield { ...object, key };
      }
      token = page.next;
    } while (token !== undefined);
  }

  async delete(key: string): Promise<void> {
    assertKey(key);
    await this.#calls.call({
      verb: `delete ${key}`,
      method: 'DELETE',
      key: this.#options.prefix + key,
      accepted: [200, 204, 'NoSuchKey'],
      bytesMax: ANSWER_BYTES_MAX,
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#calls[Symbol.asyncDispose]();
  }

  async #page(verb: string, prefix: string, after: string, token: string | undefined): Promise<Page> {
    const { xml } = await this.#calls.call({
      verb,
      method: 'GET',
      key: '',
      query: {
        'list-type': '2',
        'encoding-type': 'url',
        'max-keys': String(this.#options.pageKeys ?? PAGE_KEYS),
        prefix,
        ...(after !== '' && { 'start-after': after }),
        ...(token !== undefined && { 'continuation-token': token }),
      },
      accepted: [200],
      bytesMax: LIST_BYTES_MAX,
    });
    const page = xml?.name === 'ListBucketResult' ? pageOf(xml) : undefined;
    if (page === undefined) throw this.#wrong(verb, 'the answer is no list of objects');
    return page;
  }

  /** @param status 412 when the service says that it has the object already. */
  async #requireSame(key: string, body: Uint8Array, status: number): Promise<void> {
    const stored = await this.get(key, { maxBytes: body.length }).catch((error: unknown) => {
      if (error instanceof ObjectStorageError && error.kind === 'too-large') return 'other bytes';
      throw error;
    });
    if (typeof stored === 'object' && stored.equals(body)) return;
    if (stored === undefined)
      throw this.#wrong(`put ${key}`, 'the target says it has the object, but gives none');
    const verb = `${this.name}: put ${key}`;
    if (status === 412)
      throw new ObjectStorageError('conflict', `${verb}: it has other bytes, which are kept`);
    throw new ObjectStorageError('wrong', `${verb}: the target has stored other bytes`);
  }

  #wrong(verb: string, what: string): ObjectStorageError {
    return new ObjectStorageError('wrong', `${this.name}: ${verb}: ${what}`);
  }
}

/** Whether the answer to a put shows that the service has these bytes. */
function confirms(headers: S3Headers, md5: string): boolean {
  const { etag } = headers;
  if (typeof etag !== 'string') return false;
  const encryption = headers['x-amz-server-side-encryption'] ?? 'AES256';
  const isOfPlaintext =
    encryption === 'AES256' && headers['x-amz-server-side-encryption-customer-algorithm'] === undefined;
  const bare = etag.replaceAll('"', '');
  return !isOfPlaintext || !/^[\da-f]{32}$/.test(bare) || bare === md5;
}

function isRange({ headers, body }: S3Answer, at: number, bytes: number): boolean {
  const [, from, to, size] = /^bytes (\d+)-(\d+)\/(\d+)$/.exec(String(headers['content-range'])) ?? [];
  const end = Math.min(at + bytes, Number(size));
  return Number(from) === at && Number(to) === end - 1 && body.length === end - at;
}

interface Page {
  readonly objects: readonly StoredObject[];
  /** The token of the next page. */
  readonly next: string | undefined;
}

/** @returns undefined for what is no answer of ListObjectsV2. */
function pageOf(list: XmlElement): Page | undefined {
  const isUrl = textOf(list, 'EncodingType') === 'url';
  const objects: StoredObject[] = [];
  for (const entry of list.children) {
    if (entry.name !== 'Contents') continue;
    const key = keyOf(textOf(entry, 'Key'), isUrl);
    const size = textOf(entry, 'Size') ?? '';
    const modifiedAt = Date.parse(textOf(entry, 'LastModified') ?? '');
    if (key === undefined || !/^\d{1,15}$/.test(size)) return undefined;
    objects.push({ key, bytes: Number(size), ...(!Number.isNaN(modifiedAt) && { modifiedAt }) });
  }
  const isTruncated = textOf(list, 'IsTruncated');
  const next = isTruncated === 'true' ? textOf(list, 'NextContinuationToken') : undefined;
  const isWhole = isTruncated === 'false' || (next !== undefined && next !== '');
  return isWhole ? { objects, next } : undefined;
}

function keyOf(text: string | undefined, isUrl: boolean): string | undefined {
  if (text === undefined || !isUrl) return text;
  try {
    return decodeURIComponent(text.replaceAll('+', ' '));
  } catch {
    return undefined;
  }
}
