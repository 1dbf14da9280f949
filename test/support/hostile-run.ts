import { randomBytes } from 'node:crypto';
import { existsSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { withKms } from '@bundoc/bunkms/cli/open-kms';
import { verifyChain } from '@bundoc/bunkms/records/chain';
import { formatReceipt, parseReceipt } from '@bundoc/shared/contract/kms-receipt';
import { PATIENT_MS } from '@bundoc/shared/testing/timing';
import { expect } from 'vitest';
import { Draw } from './draw.ts';
import { type Answer, call, Installation } from './installation.ts';
import type { KmsDatabase } from './kms-database.ts';
import { KmsOperator, type RecordPlace } from './kms-operator.ts';
import { adminRequest, KmsTraffic, type Release } from './kms-traffic.ts';

export interface RunTotals {
  sequences: number;
  /** Sequences without acts on the database. */
  peaceful: number;
  acts: number;
  /** Acts that the database refused. */
  refused: number;
  released: number;
  /** How often the acts sealed BunKMS. */
  sealed: number;
  restarts: number;
  forks: number;
  /** Ended things that a BunKMS could not know, because it started without their records. */
  unknown: number;
  /** Removed records that nobody remembered, and that the verification of the chain finds. */
  holes: number;
  /** From the undoing of all acts until BunKMS is ready. */
  slowestMs: number;
  /** Answers of the statuses from 500 on, by code. */
  codes: Record<string, number>;
}

interface Ready {
  readonly status: string;
  readonly faults?: readonly string[];
}

const STEPS = 20;
/** The share of sequences without acts on the database. */
const PEACEFUL = 0.2;
/** Longer than the interval of BunKMS's checks. */
const CHECKED_MS = 1_200;
const WRONG_KEK = 'the KEK does not fit the store';

const UNLIMITED = Object.fromEntries(
  ['EXPORTS', 'DESTRUCTIONS', 'ISSUES', 'READS', 'CREATIONS'].map((name) => [
    `BUNKMS_${name}_PER_TOKEN`,
    '0',
  ]),
);

/** One sequence: an installation, its traffic, and the operator of the database. */
export class HostileRun implements AsyncDisposable {
  readonly #installation: Installation;
  readonly #operator: KmsOperator;
  readonly #traffic: KmsTraffic;
  readonly #draw: Draw;
  readonly #totals: RunTotals;
  readonly #isPeaceful: boolean;
  readonly #releases: (RecordPlace & { readonly start: number })[] = [];
  readonly told: string[] = [];
  #isRunning = true;
  /** The chain when the running BunKMS started, and where its log begins. */
  #chainAtStart: ReadonlyMap<number, string> = new Map();
  #logAt = 0;
  #projects = 0;

  private constructor(
    seed: number,
    {
      installation,
      database,
      admin,
      docs,
    }: { installation: Installation; database: KmsDatabase; admin: string; docs: string },
    totals: RunTotals,
  ) {
    this.#installation = installation;
    this.#operator = new KmsOperator(database);
    this.#draw = new Draw(seed);
    this.#totals = totals;
    this.#isPeaceful = this.#draw.chance(PEACEFUL);
    this.#traffic = new KmsTraffic(
      {
        installation,
        admin,
        docs,
        foreign: [foreignReceipt(), foreignReceipt()],
        latestRecord: (of) => this.#operator.latestEnd(of),
        onRelease: (release) => this.#judge(release),
        onAnswer: (answer, what) => this.#judgeAnswer(answer, what),
      },
      new Draw(seed + 1),
    );
  }

  static async start(seed: number, open: () => Promise<KmsDatabase>, totals: RunTotals): Promise<HostileRun> {
    const database = await open();
    const installation = await Installation.start({
      isOnFiles: true,
      // Nearly every request finds its key cold.
      environment: { BUNDOC_KMS_DEADLINE_MS: '1000' },
      settings: { keyTtlMs: 20 },
      kmsEnvironment: {
        ...UNLIMITED,
        ...database.environment,
        BUNKMS_KEK: [randomBytes(32), randomBytes(32)].map((kek) => kek.toString('hex')).join('\n'),
      },
    });
    const admin = await installation.issue(adminRequest());
    const docs = await installation.client(['*'], ['docs:read', 'docs:write', 'docs:admin']);
    return new HostileRun(seed, { installation, database, admin, docs }, totals);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#installation[Symbol.asyncDispose]();
    await this.#operator.database[Symbol.asyncDispose]();
  }

  /** The whole sequence, with all judgements. */
  async all(): Promise<void> {
    await this.#traffic.begin();
    await this.#operator.keepCopy();
    for (let step = 0; step < STEPS; step++) {
      await this.#step();
      if (this.#draw.chance(0.2)) await this.#operator.keepCopy();
    }
    await this.#burst();
    await this.#settle();
    if (!this.#isPeaceful) return;
    this.#totals.peaceful++;
    await this.#traffic.probe();
    expect(await this.#ready()).toMatchObject({ status: 'ready' });
  }

  async #step(): Promise<void> {
    const draw = this.#draw;
    const at = draw.below(100);
    if (at < 38) return this.#burst();
    if (at < 43) return this.#restart(false);
    if (this.#isPeaceful) return this.#burst();
    if (at < 51) return this.#restart(true);
    if (at < 65) return this.#settle();
    if (at < 70) return this.#trafficFor(CHECKED_MS);
    if (at < 85) return this.#act();
    await Promise.all([this.#act(), this.#burst()]);
  }

  async #act(): Promise<void> {
    const told = await this.#operator.act(this.#draw);
    this.told.push(told);
    this.#totals.acts++;
    if (told.startsWith('refused')) this.#totals.refused++;
  }

  async #burst(): Promise<void> {
    if (this.#isRunning) await this.#traffic.burst(1 + this.#draw.below(6));
  }

  /** Requests until BunKMS is sealed, or at least one more check of it has ended. */
  async #trafficFor(ms: number): Promise<void> {
    for (const end = performance.now() + ms; this.#isRunning && performance.now() < end; ) {
      await this.#traffic.burst(3);
      if ((await this.#ready()).status === 'sealed') return;
    }
  }

  /** Restarts BunKMS, perhaps with an older copy of its whole store. */
  async #restart(isOlder: boolean): Promise<void> {
    await this.#installation.stopKms();
    if (isOlder) this.told.push(await this.#operator.goBack(this.#draw));
    this.told.push('a restart');
    await this.#start();
    if (isOlder && this.#isRunning) await this.#expectReceipts();
  }

  async #start(): Promise<void> {
    const isActing = this.#operator.isActing;
    const chain = await this.#operator.chain();
    this.#logAt = this.#installation.log.text.length;
    this.#chainAtStart = chain;
    this.#totals.restarts++;
    try {
      await this.#installation.startKms();
      this.#isRunning = true;
    } catch (error) {
      if (!isActing) throw error;
      this.#isRunning = false;
      this.told.push(`no start: ${(error as Error).message}`);
    }
    const ready = this.#isRunning ? await this.#ready() : { status: 'down' };
    // What `/ready` names, for the message of a failure.
    if (!isActing && ready.status !== 'ready') this.told.push(JSON.stringify(ready));
    if (!isActing) expect(ready).toMatchObject({ status: 'ready' });
    await this.#reckon(chain, ready.status === 'ready');
  }

  /**
   * What BunKMS cannot know: it started without the record, and nobody told it of that.
   */
  async #reckon(chain: ReadonlyMap<number, string>, isReady: boolean): Promise<void> {
    for (const ended of this.#traffic.ended) {
      const record = await ended.record;
      ended.isUnknown = !isReady || record === undefined || chain.get(record.seq) !== record.hash;
    }
  }

  /** After a start with an older copy, the receipt that Bundoc kept seals BunKMS. */
  async #expectReceipts(): Promise<void> {
    const path = join(this.#installation.dataDir, 'kms-receipts.json');
    const texts = existsSync(path)
      ? (JSON.parse(readFileSync(path, 'utf8')) as { receipts: string[] }).receipts
      : [];
    const kept = texts.flatMap((text) => parseReceipt(text) ?? []);
    const isCovered = kept.some(({ seq, hash }) => this.#chainAtStart.get(seq) !== hash);
    if (!isCovered || (await this.#ready()).status !== 'ready') return;
    this.told.push('a request of Bundoc with its receipts');
    await this.#traffic.document('PUT', `new-${this.#projects++}`);
    await expect.poll(() => this.#ready()).toMatchObject({ status: 'sealed' });
  }

  /** Judges the acts, takes them back, and waits until BunKMS is ready again. */
  async #settle(): Promise<void> {
    if (!this.#operator.isActing) return;
    if (this.#isRunning) {
      await this.#traffic.probe();
      await this.#judgeMissing();
    }
    const hasForked = await this.#operator.undo(this.#draw);
    this.told.push(`undone${hasForked ? ', forked' : ''}`);
    const begin = performance.now();
    if (hasForked) await this.#leaveFork();
    else if (!this.#isRunning || this.#installation.log.text.slice(this.#logAt).includes(WRONG_KEK))
      await this.#again();
    // What `/ready` says may be a second old.
    await expect.poll(() => this.#unserved(), { timeout: PATIENT_MS }).toBe('');
    await expect.poll(() => this.#ready(), { timeout: PATIENT_MS }).toMatchObject({ status: 'ready' });
    this.#totals.slowestMs = Math.max(this.#totals.slowestMs, Math.round(performance.now() - begin));
    await this.#reckon(await this.#operator.chain(), true);
    expect(await this.#verdict()).toBe('intact');
    await this.#traffic.probe();
  }

  /** Both ends of the chain are BunKMS's. An operator decides for one, and nobody may remember the other. */
  async #leaveFork(): Promise<void> {
    this.#totals.forks++;
    await this.#installation.stopBundoc();
    rmSync(join(this.#installation.dataDir, 'kms-receipts.json'), { force: true });
    this.#traffic.forgetReceipts(await this.#operator.chain());
    await this.#again();
    await this.#installation.startBundoc();
  }

  async #again(): Promise<void> {
    await this.#installation.stopKms();
    await this.#start();
  }

  /** Why no new key is released to a new token; empty when it is. */
  async #unserved(): Promise<string> {
    const { released } = this.#totals;
    await this.#traffic.releaseNew();
    return this.#totals.released > released ? '' : JSON.stringify(await this.#ready());
  }

  async #judge(release: Release): Promise<void> {
    this.#totals.released++;
    const { key, token, seq, hash, ended } = release;
    this.#releases.push({ seq, hash, start: this.#totals.restarts });
    this.#totals.unknown += ended.filter(({ isUnknown }) => isUnknown).length;
    const known = ended.filter(({ isUnknown }) => !isUnknown);
    if (known.length > 0)
      throw new Error(
        `${key.name} was released to ${token.jti} as record ${seq} after ${known.map(({ what }) => what).join(', ')}`,
      );
    const chain = await this.#operator.chain();
    // What the act that has just ended took away is noted in this turn.
    await new Promise(setImmediate);
    if (chain.get(seq) !== hash && !this.#operator.removed.has(hash))
      throw new Error(`${key.name} was released without record ${seq}`);
  }

  #judgeAnswer(answer: Answer, what: string): void {
    if (answer.status < 500) return;
    const { code } = answer.json();
    this.#totals.codes[String(code)] = (this.#totals.codes[String(code)] ?? 0) + 1;
    if (this.#isPeaceful && code === 'sealed') throw new Error(`${what} was answered ${answer.text}`);
  }

  /**
   * Every record of a release and of an end is there, or BunKMS is sealed, or the verification of the chain
   * tells. Nothing tells of an end that was cut off before the running BunKMS started.
   */
  async #judgeMissing(): Promise<void> {
    if ((await this.#missing()).length > 0 && (await this.#ready()).status === 'ready')
      await this.#trafficFor(2 * CHECKED_MS);
    const { status } = await this.#ready();
    if (status !== 'ready') {
      this.#totals.sealed++;
      return;
    }
    const missing = await this.#missing();
    if (missing.length === 0) return;
    if ((await this.#verdict()) !== 'intact') {
      this.#totals.holes++;
      return;
    }
    const untold = missing.filter(({ isKnown }) => isKnown);
    if (untold.length > 0)
      throw new Error(`nothing tells that these records are gone: ${JSON.stringify(untold)}`);
  }

  /** The records of releases and ends that the chain lacks, and whether the running BunKMS knows of them. */
  async #missing(): Promise<(RecordPlace & { readonly isKnown: boolean })[]> {
    const chain = await this.#operator.chain();
    const places = this.#releases.map(({ seq, hash, start }) => {
      const isKnown = start === this.#totals.restarts || this.#chainAtStart.get(seq) === hash;
      return { seq, hash, isKnown };
    });
    for (const { record, isUnknown } of this.#traffic.ended) {
      const place = await record;
      if (place !== undefined) places.push({ ...place, isKnown: !isUnknown });
    }
    return places.filter(({ seq, hash }) => chain.get(seq) !== hash);
  }

  /** As `bunkms audit verify` finds the chain. */
  async #verdict(): Promise<string> {
    try {
      return await withKms(this.#installation.kmsEnvironment, async ({ store, state }) => {
        const { items } = await store.listAudit({ limit: 100_000 });
        return (await verifyChain(state.chainKey, items)).intact ? 'intact' : 'broken';
      });
    } catch (error) {
      return (error as Error).message;
    }
  }

  async #ready(): Promise<Ready> {
    return (await call(this.#installation.kms.apiUrl, '/ready')).json() as unknown as Ready;
  }
}

function foreignReceipt(): string {
  const [installation, hash] = [randomBytes(8).toString('hex'), randomBytes(32).toString('hex')];
  return formatReceipt({ installation, epoch: 0, seq: 7, hash, mac: randomBytes(32).toString('base64url') });
}
