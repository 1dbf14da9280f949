import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { extname } from 'node:path';
import { fileURLToPath } from 'node:url';
import { printable } from '@bundoc/shared/logs/printable';
import type { Environment } from '@bundoc/shared/process/config';
import { z } from 'zod';
import { ANSWERS_FD, type Pkcs11Answer, type Pkcs11Call, type Pkcs11Settings } from './pkcs11-calls.ts';
import { FrameReader, frameOf } from './pkcs11-frames.ts';
import { OutsideKeyError } from './port.ts';

/** How long a module may take to open a token, milliseconds. Waiting calls end by their own signals. */
const OPEN_MS = 30_000;
/** A call that ends by its signal kills the process when it has been silent for this time, milliseconds. */
const SILENT_MS = 1_000;
/** How long a process that shall end may take to leave its token, milliseconds. */
const LEAVE_MS = 1_000;
/** Characters of a message of the process. It may name two paths. */
const MESSAGE_MAX = 4_096;

const EXTENSION = extname(import.meta.url);
const CHILD = fileURLToPath(new URL(`./pkcs11-child${EXTENSION}`, import.meta.url));
const NODE_OPTIONS = [
  // No debugger: SIGUSR1 would start one.
  '--disable-sigusr1',
  ...(EXTENSION === '.ts' ? ['--conditions=@bundoc/source', '--disable-warning=ExperimentalWarning'] : []),
];

/** A module can change what its process answers. */
const answerSchema = z.union([
  z.object({ id: z.int(), bytes: z.instanceof(Uint8Array) }),
  z.object({
    id: z.int(),
    fault: z.enum(['denied', 'unavailable', 'damaged']),
    message: z.string().max(MESSAGE_MAX),
    remedy: z.string().max(MESSAGE_MAX).optional(),
    isPinRefused: z.boolean(),
    isOver: z.boolean(),
  }),
]);

/** The token has refused the PIN. */
export class PinRefusedError extends OutsideKeyError {}

type Unsent = Pkcs11Call extends infer Call ? (Call extends unknown ? Omit<Call, 'id'> : never) : never;

/**
 * A process that has a PKCS#11 module loaded and a token open. It is killed when it hangs, and does not start
 * again. Nothing secret is in its arguments or environment.
 */
export class Pkcs11Process {
  readonly #child: ChildProcess;
  readonly #waiting = new Map<number, PromiseWithResolvers<Buffer>>();
  readonly #exited: Promise<unknown>;
  readonly #answers = new FrameReader();
  #isOpen = false;
  #lastId = 0;
  /** When it answered last, or got a call while it had none. */
  #heardMs = performance.now();
  #whyOver: OutsideKeyError | undefined;
  /** Resolves when the token is open. @throws OutsideKeyError `unavailable`. */
  readonly opened: Promise<unknown>;

  /** @param environment of this process: modules are configured by it. */
  constructor(settings: Pkcs11Settings, pinStamp: string, environment: Environment) {
    // The shell forbids core dumps, which Node cannot, and becomes the child.
    const command = [process.execPath, ...NODE_OPTIONS, CHILD, String(process.pid)];
    this.#child = spawn('/bin/sh', ['-c', 'ulimit -c 0 && exec "$0" "$@"', ...command], {
      env: environmentOfChild(environment),
      stdio: ['pipe', 'ignore', 'ignore', 'pipe'],
    });
    this.#exited = once(this.#child, 'exit').catch(() => undefined);
    this.#child
      .on('error', (error) => this.#end(`the process of the module failed: ${error.message}`))
      // Its last answer has been read by then.
      .on('close', (code, signal) => this.#end(`the process of the module ended (${signal ?? code})`));
    const answers = this.#child.stdio[ANSWERS_FD];
    // When it is gone, so are its pipes.
    for (const pipe of [this.#child.stdin, answers]) pipe?.on('error', () => undefined);
    answers?.on('data', (chunk: Buffer) => this.#receive(chunk));
    this.opened = this.#open(settings, pinStamp);
    this.opened.catch(() => undefined);
  }

  get isOver(): boolean {
    return this.#whyOver !== undefined;
  }

  get pid(): number | undefined {
    return this.#child.pid;
  }

  /** @throws OutsideKeyError, or the reason of the signal. */
  async call(call: Unsent, signal: AbortSignal): Promise<Buffer> {
    signal.throwIfAborted();
    const { promise: aborted, reject } = Promise.withResolvers<never>();
    const giveUp = () => {
      reject(signal.reason);
      // While it opens its token, OPEN_MS holds.
      const isHanging = this.#isOpen && performance.now() - this.#heardMs >= SILENT_MS;
      if (isHanging && this.#waiting.size > 0)
        this.#kill('the module did not answer, and its process was killed');
    };
    signal.addEventListener('abort', giveUp, { once: true });
    let answer: Promise<Buffer> | undefined;
    try {
      await Promise.race([this.opened, aborted]);
      answer = this.#send(call);
      return await Promise.race([answer, aborted]);
    } catch (error) {
      answer?.then((late) => late.fill(0)).catch(() => undefined);
      throw error;
    } finally {
      signal.removeEventListener('abort', giveUp);
    }
  }

  /** Lets it answer the calls that it has, and leave the token. Never throws. */
  async retire(): Promise<void> {
    await Promise.allSettled(Array.from(this.#waiting.values(), ({ promise }) => promise));
    await this.close();
  }

  /** Ends it; calls that wait fail. Resolves when it is gone. Never throws. */
  async close(): Promise<void> {
    this.#end('the key is closed');
    this.#child.stdin?.destroy();
    const timer = setTimeout(() => this.#child.kill('SIGKILL'), LEAVE_MS);
    await this.#exited;
    clearTimeout(timer);
  }

  async #open(settings: Pkcs11Settings, pinStamp: string): Promise<void> {
    const timer = setTimeout(() => this.#kill('the module did not open the token in time'), OPEN_MS);
    try {
      await this.#send({ operation: 'open', settings, pinStamp });
      this.#isOpen = true;
    } finally {
      clearTimeout(timer);
    }
  }

  #send(call: Unsent): Promise<Buffer> {
    if (this.#whyOver !== undefined) return Promise.reject(this.#whyOver);
    this.#lastId += 1;
    const settling = Promise.withResolvers<Buffer>();
    if (this.#waiting.size === 0) this.#heardMs = performance.now();
    this.#waiting.set(this.#lastId, settling);
    const frame = frameOf({ ...call, id: this.#lastId });
    this.#child.stdin?.write(frame, () => frame.fill(0));
    return settling.promise;
  }

  /** A module that harms its own process may send anything. */
  #receive(chunk: Buffer): void {
    try {
      for (const answer of this.#answers.read(chunk)) this.#settle(answer);
    } catch {
      this.#kill('the process of the module sent what is no answer');
    }
  }

  #settle(sent: unknown): void {
    this.#heardMs = performance.now();
    const answer: Pkcs11Answer = answerSchema.parse(sent);
    const settling = this.#waiting.get(answer.id);
    this.#waiting.delete(answer.id);
    // A call waits until its answer, also when nobody wants it any more.
    assert(settling !== undefined || this.isOver, 'an answer without its call');
    if ('bytes' in answer) {
      const { buffer, byteOffset, byteLength } = answer.bytes;
      settling?.resolve(Buffer.from(buffer, byteOffset, byteLength));
      return;
    }
    const { fault, message, remedy, isPinRefused, isOver } = answer;
    const Refusal = isPinRefused ? PinRefusedError : OutsideKeyError;
    const error = new Refusal(fault, printable(message), { remedy: remedy && printable(remedy) });
    settling?.reject(error);
    if (isOver) this.#end(printable(message));
  }

  /** Calls that wait fail, and no others are taken. The first reason stays. */
  #end(why: string): void {
    this.#whyOver ??= new OutsideKeyError('unavailable', why);
    for (const { reject } of this.#waiting.values()) reject(this.#whyOver);
    this.#waiting.clear();
  }

  #kill(why: string): void {
    this.#end(why);
    this.#child.kill('SIGKILL');
  }
}

/** What concerns BunKMS alone, and options of Node that could expose its memory, are left out. */
function environmentOfChild(environment: Environment): Record<string, string | undefined> {
  const kept = Object.entries(environment).filter(([name]) => !/^(?:BUNKMS_|NODE_OPTIONS$)/.test(name));
  return Object.fromEntries(kept);
}
