import { randomUUID } from 'node:crypto';
import {
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { formatReceipt, RECEIPT_HEADER } from '@bundoc/shared/contract/kms-receipt';
import { createLogger } from '@bundoc/shared/logs/logger';
import { systemClock } from '@bundoc/shared/runtime/clock';
import { PATIENT_MS } from '@bundoc/shared/testing/timing';
import { describe, expect, it, onTestFinished } from 'vitest';
import { untilConfirmed } from '../../../test/support/until-confirmed.ts';
import { startBundoc } from '../src/app.ts';
import { readConfig } from '../src/config.ts';
import { Receipts } from '../src/kms/receipts.ts';
import { formatReceipts, parseReceiptsText } from '../src/kms/receipts-text.ts';
import { ReceiptsInMemory, receiptOf, receiptText } from '../src/testing/kms-receipts.ts';
import {
  ACTING,
  answer,
  cleanups,
  exported,
  problem,
  type Script,
  startScripted,
  useScriptedKms,
} from './support/scripted-kms.ts';

useScriptedKms();

const silent = createLogger({ service: 'bundoc', level: 'silent' });
const withReceipt = (seq: number) => ({ [RECEIPT_HEADER]: receiptText(seq) });
const forged = receiptOf(Number.MAX_SAFE_INTEGER);

/** A client that keeps receipts, and its scripted BunKMS. */
async function start(script: Script, store = new ReceiptsInMemory()) {
  const receipts = await Receipts.load({ store, clock: systemClock, logger: silent });
  cleanups.push(() => receipts[Symbol.asyncDispose]());
  return { ...(await startScripted(script, { receipts })), receipts };
}

/** Refuses forged receipts, as BunKMS does. */
const honest =
  (then: Script): Script =>
  (request, response, call) => {
    if (String(request.headers[RECEIPT_HEADER]).includes(formatReceipt(forged)))
      problem(response, 400, 'receipt_invalid');
    else then(request, response, call);
  };

describe('KmsClient', () => {
  it('sends the newest receipt with every later call, and with the stream of events', async () => {
    const { client, seen } = await start((request, response, call) => {
      if (request.url === '/v1/events') response.end();
      else if (request.url?.endsWith('/rotate?expected_version=1')) problem(response, 503, 'overloaded');
      else answer(response, request.method === 'GET' ? 200 : 201, exported(), withReceipt(call));
    });
    await client.exportKey('p-dek');
    await client.exportKey('p-dek');
    await client.createKey('p-dek', ACTING);
    // A repeated try has it as well.
    await client.rotateKey('p-dek', 1).catch(() => undefined);
    await client.openEvents(undefined, AbortSignal.timeout(PATIENT_MS));
    expect(seen.slice(0, 3).map(({ receipts }) => receipts)).toEqual([
      undefined,
      receiptText(1),
      receiptText(2),
    ]);
    expect(seen.length).toBeGreaterThan(5);
    for (const { receipts } of seen.slice(3)) expect(receipts).toBe(receiptText(3));
  });

  it('sends those of four installations in one header', async () => {
    const four = ['1', '2', '3', '4'].map((id) => receiptOf(7, { installation: id.repeat(16) }));
    const { client, seen } = await start(
      (_request, response) => answer(response, 200, exported()),
      new ReceiptsInMemory(...four),
    );
    await client.exportKey('p-dek');
    expect(seen[0]?.receipts).toBe(four.map(formatReceipt).join(','));
  });

  it('keeps no receipt of a refusal', async () => {
    const { client, receipts } = await start((_request, response) =>
      problem(response, 404, 'key_not_found', withReceipt(9)),
    );
    await client.exportKey('p-dek').catch(() => undefined);
    expect(receipts.header()).toBeUndefined();
  });

  it('fails no call because of a malformed receipt', async () => {
    const { client, receipts } = await start((_request, response) =>
      answer(response, 200, exported(), { [RECEIPT_HEADER]: 'x' }),
    );
    await client.exportKey('p-dek');
    expect(receipts.header()).toBeUndefined();
  });

  it('forgets receipts that BunKMS refuses, and repeats the call once without them, also one of a single try', async () => {
    const { client, seen, receipts } = await start(
      honest((_request, response, call) => answer(response, 200, exported(), withReceipt(call))),
      new ReceiptsInMemory(forged),
    );
    await client.intendDeletion('p-dek', 'root-1', ACTING).catch(() => undefined);
    expect(seen.map((call) => call.receipts)).toEqual([formatReceipt(forged), undefined]);
    expect(receipts.header()).toBe(receiptText(2));
    await client.exportKey('p-dek');
    expect(seen[2]?.receipts).toBe(receiptText(2));
  });

  it('opens the stream of events even if the receipts are refused', async () => {
    const { client, seen } = await start(
      honest((_request, response) => response.end('event: reset\n')),
      new ReceiptsInMemory(forged),
    );
    const chunks: string[] = [];
    for await (const chunk of await client.openEvents(undefined, AbortSignal.timeout(PATIENT_MS)))
      chunks.push(Buffer.from(chunk).toString());
    expect([chunks.join(''), seen.length]).toEqual(['event: reset\n', 2]);
  });

  it('does not repeat a call without receipts that is refused for its receipts', async () => {
    const { client, calls } = await start((_request, response) => problem(response, 400, 'receipt_invalid'));
    await expect(client.exportKey('p-dek')).rejects.toMatchObject({ code: 'kms_unavailable' });
    expect(calls()).toBe(1);
    const held = await start(
      (_request, response) => problem(response, 400, 'receipt_invalid'),
      new ReceiptsInMemory(forged),
    );
    await expect(held.client.exportKey('p-dek')).rejects.toMatchObject({ code: 'kms_unavailable' });
    expect(held.calls()).toBe(2);
  });

  it('names the record that a sealed BunKMS may lack, and what to do, without the rest of the receipt', async () => {
    const { client, lines } = await start(
      (_request, response) => problem(response, 503, 'sealed'),
      new ReceiptsInMemory(receiptOf(7)),
    );
    await client.exportKey('p-dek').catch(() => undefined);
    expect(lines.join('')).toContain('record 7 of installation 0123456789abcdef, epoch 0');
    expect(lines.join('')).toMatch(/does not trust its database; its \/ready/);
    const opened = client.openEvents(undefined, AbortSignal.timeout(PATIENT_MS));
    await expect(opened).rejects.toThrow('record 7 of installation');
    expect(lines.join('')).not.toMatch(new RegExp(`${receiptOf(7).hash}|${receiptOf(7).mac}`));
  });

  it('asks without receipts whether BunKMS is ready, so that planted ones do not matter', async () => {
    const { client } = await start(
      honest((_request, response) => response.end('{}')),
      new ReceiptsInMemory(forged),
    );
    expect(await client.outage()).toBeUndefined();
  });
});

describe('Bundoc on a data folder', () => {
  const confirmed = { id: randomUUID(), taken_over_ms: 0, advanced_at: '2026-01-01T00:00:00.000Z' };

  /** A BunKMS that confirms the storage with the receipt of record `seq`. */
  const confirming =
    (seq: number) =>
    (request: IncomingMessage, response: ServerResponse): void => {
      if (request.url?.endsWith('/advance')) answer(response, 200, confirmed, withReceipt(seq));
      else answer(response, request.url === '/ready' ? 200 : 503, {});
    };

  function folder() {
    const dataDir = mkdtempSync(join(tmpdir(), 'bundoc-receipts-'));
    onTestFinished(() => rmSync(dataDir, { recursive: true }));
    writeFileSync(join(dataDir, 'token'), 'e30.e30.x');
    const file = join(dataDir, 'kms-receipts.json');
    /** Starts Bundoc, and closes it once the storage is confirmed. @returns the receipts of the advances. */
    const run = async (script: Script) => {
      const kms = await startScripted(script);
      const bundoc = await startBundoc(
        readConfig({
          BUNDOC_PORT: '0',
          BUNDOC_DATA_DIR: dataDir,
          BUNDOC_KMS_URL: kms.url,
          BUNDOC_KMS_TOKEN_FILE: join(dataDir, 'token'),
        }),
        { logger: silent },
      );
      await untilConfirmed(bundoc.url);
      await bundoc.close();
      const advances = kms.seen.filter(({ url }) => url.endsWith('/advance'));
      return { sent: advances.map(({ receipts }) => receipts), seen: kms.seen };
    };
    return { file, run };
  }

  it('keeps the receipt of the last answer when it closes, and sends it after a restart', async () => {
    const { file, run } = folder();
    expect((await run(confirming(7))).sent).toEqual([undefined]);
    expect(parseReceiptsText(readFileSync(file, 'utf8'))).toEqual([receiptOf(7)]);
    expect((await run(confirming(8))).sent).toEqual([receiptText(7)]);
    expect((await run(confirming(9))).sent).toEqual([receiptText(8)]);
  });

  it('starts with planted receipts, which BunKMS refuses, and replaces them', async () => {
    const { file, run } = folder();
    writeFileSync(file, formatReceipts([forged]));
    const { sent, seen } = await run(honest(confirming(7)));
    // Perhaps another call was the first one to send them.
    expect(seen.map(({ receipts }) => receipts)).toContain(formatReceipt(forged));
    expect(sent.at(-1)).toBeUndefined();
    expect(parseReceiptsText(readFileSync(file, 'utf8'))).toEqual([receiptOf(7)]);
  });

  it('follows no link that was planted in place of the receipts, and replaces it', async () => {
    const { file, run } = folder();
    const target = `${file}-of-others`;
    writeFileSync(target, formatReceipts([receiptOf(5)]));
    symlinkSync(target, file);
    expect((await run(confirming(7))).sent).toEqual([undefined]);
    expect(parseReceiptsText(readFileSync(target, 'utf8'))).toEqual([receiptOf(5)]);
    expect(lstatSync(file).isFile()).toBe(true);
    expect((await run(confirming(8))).sent).toEqual([receiptText(7)]);
  });

  it('starts and closes with a planted folder in place of the receipts, and leaves nothing over', async () => {
    const { file, run } = folder();
    mkdirSync(file);
    expect((await run(confirming(7))).sent).toEqual([undefined]);
    expect(lstatSync(file).isDirectory()).toBe(true);
    expect(readdirSync(join(file, '../tmp'))).toEqual([]);
  });

  it.each(['', 'x', '{"format":2}'])('starts with planted garbage, and replaces it: %s', async (text) => {
    const { file, run } = folder();
    writeFileSync(file, text);
    expect((await run(confirming(7))).sent).toEqual([undefined]);
    expect(parseReceiptsText(readFileSync(file, 'utf8'))).toEqual([receiptOf(7)]);
  });
});
