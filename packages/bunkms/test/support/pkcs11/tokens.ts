import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, mkdtempSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { createConnection, createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { runNode } from '@bundoc/shared/testing/node-process';
import { findProgram, pathOf } from '@bundoc/shared/testing/programs';
import { expect } from 'vitest';
import type { Pkcs11KeyOptions } from '../../../src/outside/pkcs11-key.ts';
import type { AdminOrder } from './orders.ts';

const ADMIN = fileURLToPath(new URL('./admin.ts', import.meta.url));
const require = createRequire(import.meta.url);
const PACKAGE = dirname(require.resolve('pkcs11js/package.json'));

/** A PIN that occurs nowhere else. */
export const PIN = 'pin-3f9a61c07d';

/**
 * Compiles the addon of pkcs11js where the package is, once for all runs. The install of the workspace does
 * not build it.
 */
export function buildPkcs11js(): void {
  const addon = join(PACKAGE, 'build', 'Release', 'pkcs11.node');
  if (existsSync(addon)) return;
  mkdirSync(dirname(addon), { recursive: true });
  const headers = join(dirname(require.resolve('node-api-headers/package.json')), 'include');
  const sources = ['dl', 'common', 'main'].map((name) => join(PACKAGE, 'src', `${name}.cpp`));
  const mac = process.platform === 'darwin' ? ['-undefined', 'dynamic_lookup'] : [];
  compile('c++', addon, ['-std=c++17', '-DNODE_GYP_MODULE_NAME=pkcs11', `-I${headers}`, ...mac, ...sources]);
}

/** Compiles the module with faults. @returns its path. */
export function buildFaultyModule(folder: string): string {
  const module = join(folder, 'faulty.so');
  compile('cc', module, [join(import.meta.dirname, 'faulty-module.c'), '-ldl']);
  return module;
}

/** Other files of tests may compile the same. */
function compile(compiler: string, to: string, args: readonly string[]): void {
  const made = `${to}.${process.pid}`;
  const include = `-I${join(PACKAGE, 'includes')}`;
  const { status, stderr } = spawnSync(compiler, ['-O1', '-shared', '-fPIC', include, ...args, '-o', made]);
  assert.equal(status, 0, `${compiler}: ${stderr}`);
  renameSync(made, to);
}

/** Objects that a TPM has in memory at most, with their first handle. */
const TRANSIENT = { first: 0x80000000, count: 3 } as const;

/**
 * Serves a TPM to one process after the other, as a resource manager does: none finds what a former one has
 * left in the TPM's memory. A process opens the control channel once, before anything else.
 */
async function manageResources(tpm: string, managed: string): Promise<Server> {
  symlinkSync(tpm, managed);
  const server = createServer(async (client) => {
    client.on('error', () => undefined);
    for (let at = 0; at < TRANSIENT.count; at++) {
      // TPM2_FlushContext of the TPM 2.0 library, part 3: tag, size, command, handle.
      const command = Buffer.from('80010000000e0000016500000000', 'hex');
      command.writeUInt32BE(TRANSIENT.first + at, 10);
      const connection = createConnection(tpm);
      connection.write(command);
      await once(connection, 'data');
      await once(connection.end().resume(), 'close');
    }
    const control = createConnection(`${tpm}.ctrl`);
    control.on('error', () => undefined);
    client.pipe(control).pipe(client);
  });
  await once(server.listen(`${managed}.ctrl`), 'listening');
  return server;
}

/** Starts a simulated TPM with its files in a folder. The environment names it to its PKCS#11 module. */
export async function startTpm(
  folder: string,
): Promise<{ readonly environment: Record<string, string>; readonly stop: () => Promise<void> }> {
  const [socket, state, managed] = [join(folder, 'tpm'), join(folder, 'state'), join(folder, 'managed')];
  mkdirSync(state);
  const places = [`dir=${state}`, '--server', `type=unixio,path=${socket}`];
  const control = ['--ctrl', `type=unixio,path=${socket}.ctrl`, '--flags', 'startup-clear'];
  const args = ['socket', '--tpm2', '--tpmstate', ...places, ...control];
  const swtpm = spawn(findProgram('swtpm') ?? '', args, { stdio: 'ignore' });
  const exited = once(swtpm, 'exit');
  await expect.poll(() => existsSync(socket) && existsSync(`${socket}.ctrl`)).toBe(true);
  const manager = await manageResources(socket, managed);
  const stop = async () => {
    manager.close();
    swtpm.kill('SIGKILL');
    await exited;
  };
  return { environment: { TPM2_PKCS11_TCTI: `swtpm:path=${managed}` }, stop };
}

/** A token of a test, with its PIN in a file. */
export class TestToken implements AsyncDisposable {
  readonly folder: string;
  readonly label = 'held';
  readonly pinFile: string;
  readonly module: string;
  /** Configures the module. */
  readonly environment: Record<string, string>;
  serial = '';
  readonly #stop: () => Promise<void>;

  private constructor(
    folder: string,
    module: string,
    environment: Record<string, string>,
    stop: () => Promise<void>,
  ) {
    this.folder = folder;
    this.module = module;
    this.environment = { PATH: process.env['PATH'] ?? '', ...environment };
    this.pinFile = join(folder, 'pin');
    this.#stop = stop;
    writeFileSync(this.pinFile, `${PIN}\n`);
  }

  /** By SoftHSM. */
  static async soft(...orders: readonly AdminOrder[]): Promise<TestToken> {
    const module = pathOf('softhsm');
    assert(module !== undefined);
    const folder = mkdtempSync(join(tmpdir(), 'bunkms-softhsm-'));
    const tokens = join(folder, 'tokens');
    mkdirSync(tokens);
    const SOFTHSM2_CONF = join(folder, 'softhsm2.conf');
    writeFileSync(SOFTHSM2_CONF, `directories.tokendir = ${tokens}\nobjectstore.backend = file\n`);
    return await TestToken.#made(
      new TestToken(folder, module, { SOFTHSM2_CONF }, async () => undefined),
      orders,
    );
  }

  /** A simulated TPM. */
  static async tpm(...orders: readonly AdminOrder[]): Promise<TestToken> {
    const module = pathOf('tpm');
    assert(module !== undefined);
    const folder = mkdtempSync(join(tmpdir(), 'bunkms-tpm-'));
    const TPM2_PKCS11_STORE = join(folder, 'store');
    mkdirSync(TPM2_PKCS11_STORE);
    const { environment, stop } = await startTpm(folder);
    const all = { TPM2_PKCS11_STORE, ...environment };
    return await TestToken.#made(new TestToken(folder, module, all, stop), orders);
  }

  static async #made(token: TestToken, orders: readonly AdminOrder[]): Promise<TestToken> {
    try {
      const [serial] = await token.admin({ order: 'init' }, ...orders);
      token.serial = String(serial);
    } catch (error) {
      await token[Symbol.asyncDispose]();
      throw error;
    }
    return token;
  }

  /** Does what the owner of the token does. */
  async admin(...orders: readonly AdminOrder[]): Promise<unknown[]> {
    const sent = { module: this.module, token: this.label, pin: PIN, orders };
    const { code, stdout, stderr } = await runNode([ADMIN, JSON.stringify(sent)], this.environment);
    assert.equal(code, 0, stderr);
    return JSON.parse(stdout) as unknown[];
  }

  /** Options of a provider for one of its keys. */
  options(key: string, changes: Partial<Pkcs11KeyOptions> = {}): Pkcs11KeyOptions {
    const { module, label: token, serial, pinFile, environment } = this;
    return { module, token, serial, key, pinFile, oaepHash: 'sha256', environment, ...changes };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#stop();
    rmSync(this.folder, { recursive: true, force: true });
  }
}
