import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { createServer, request as httpRequest, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { needs, pathOf } from '@bundoc/shared/testing/programs';
import { PATIENT_MS } from '@bundoc/shared/testing/timing';
import { describe, expect, it } from 'vitest';
import { call, Installation } from './support/installation.ts';

const page = readFileSync(join(import.meta.dirname, '../docs/how-to/from-another-language.md'), 'utf8');
/** The blocks of the page in order, without the indentation of its list. */
const program = [...page.matchAll(/^( *)```python\n([\s\S]*?)^\1```$/gm)]
  .map(([, indent, code = '']) => code.replaceAll(new RegExp(`^${indent}`, 'gm'), ''))
  .join('\n');

const refuse = (response: ServerResponse, status: number, code: string) =>
  response
    .writeHead(status, { 'content-type': 'application/problem+json', 'retry-after': '0' })
    .end(JSON.stringify({ code }));

/**
 * A way to Bundoc that fails: the answer of the first create is lost, its first repetition gets 503, and the
 * first read 401. The first stream of changes is cut behind its first change.
 */
async function startUnluckyWay(target: string) {
  const faults: string[] = [];
  const isFirst = (fault: string) => !faults.includes(fault) && faults.push(fault) > 0;
  const server = createServer((request, response) => {
    const { method = '', url = '', headers } = request;
    const isCreate = method === 'POST' && url.endsWith('/documents');
    const losesAnswer = isCreate && isFirst('lost answer');
    if (isCreate && !losesAnswer && isFirst('503')) return refuse(response, 503, 'overloaded');
    if (method === 'GET' && url.includes('/documents/') && isFirst('401'))
      return refuse(response, 401, 'unauthenticated');
    const cutsStream = url.includes('/changes') && isFirst('cut stream');
    const onward = httpRequest(target + url, { method, headers }, (answer) => {
      if (!losesAnswer) response.writeHead(answer.statusCode ?? 0, answer.headers);
      answer.on('data', (chunk: Buffer) => {
        if (losesAnswer) return;
        if (!cutsStream) response.write(chunk);
        else if (chunk.includes('event: change')) {
          const [first = ''] = chunk.toString().split('\n\n');
          response.write(`${first}\n\n`, () => response.destroy());
          onward.destroy();
        }
      });
      answer.on('end', () => (losesAnswer ? response.destroy() : response.end()));
    });
    onward.on('error', () => response.destroy());
    response.on('close', () => onward.destroy());
    request.pipe(onward);
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    faults,
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections();
      server.close();
      await once(server, 'close');
    },
  };
}

describe('the program of docs/how-to/from-another-language.md', needs('httpx'), () => {
  it('prints what the page says, and writes once, although answers are lost and refused and a stream is cut', async () => {
    await using installation = await Installation.start();
    await using way = await startUnluckyWay(installation.url);
    const scopes = ['docs:read', 'docs:write'] as const;
    const grant = await installation.issue({
      sub: 'shop-backend',
      typ: 'service',
      scope: ['kms:issue_client'],
      may_issue: { scopes: [...scopes], projects: ['python'], ttl_s: 900 },
    });
    const expected = [...program.matchAll(/print\(.*\) {2}# (.*)$/gm)].map(([, printed]) => printed);
    expect(expected.length).toBeGreaterThan(4);
    const { stdout } = await promisify(execFile)(String(pathOf('httpx')), ['-c', program], {
      env: { BUNDOC_URL: way.url, BUNKMS_URL: installation.kms.apiUrl, GRANT: grant },
      timeout: PATIENT_MS,
    });
    expect(stdout.trim().split('\n')).toEqual(expected);
    expect(way.faults).toEqual(['lost answer', '503', '401', 'cut stream']);
    const token = await installation.client(['python'], ['docs:read']);
    const list = await call(installation.url, '/v1/projects/python/collections/notes/documents', { token });
    expect((list.json()['documents'] as unknown[]).length).toBe(2);
  });
});
