import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { inspect } from 'node:util';
import { spawnNode } from '@bundoc/shared/testing/node-process';
import { needs } from '@bundoc/shared/testing/programs';
import { beforeAll, describe, expect, it, vi } from 'vitest';
import { BoundedKey } from '../src/outside/bounded-key.ts';
import { placeOfEntry, readEntries } from '../src/outside/entries.ts';
import { openOutsideKey } from '../src/outside/open-key.ts';
import { frameOf } from '../src/outside/pkcs11-frames.ts';
import { Pkcs11Key, type Pkcs11KeyOptions } from '../src/outside/pkcs11-key.ts';
import type { OutsideFault, OutsideKeyError } from '../src/outside/port.ts';
import { conformsToPort, faultOf } from './support/outside-providers.ts';
import type { AdminOrder } from './support/pkcs11/orders.ts';
import { buildFaultyModule, buildPkcs11js, PIN, TestToken } from './support/pkcs11/tokens.ts';

const RSA_3072 = (label: string): AdminOrder => ({ order: 'rsa', label, bits: 3_072 });
const AES = (label: string): AdminOrder => ({ order: 'aes', label });

/** Waits until its process has opened the token: on a busy machine that may take longer than a call may. */
async function opened(options: Pkcs11KeyOptions): Promise<Pkcs11Key> {
  const provider = new Pkcs11Key(options);
  await provider.checkCredential(AbortSignal.timeout(60_000));
  return provider;
}

const patient = () => AbortSignal.timeout(60_000);

/** Why a call fails, with a remedy; an empty text when it does not. */
async function failureOf(call: Promise<unknown>): Promise<[OutsideFault | undefined, string]> {
  const reason = await call.then(
    () => '',
    (error: OutsideKeyError) => [error.message, error.remedy].filter(Boolean).join('; '),
  );
  return [await faultOf(call), reason];
}

function isGone(pid: number | undefined): boolean {
  try {
    process.kill(pid as number, 0);
    // A zombie has ended.
    return /^\d+ \(.*\) Z/.test(readFileSync(`/proc/${pid}/stat`, 'utf8'));
  } catch (error) {
    // Other systems have no such file.
    return (error as NodeJS.ErrnoException).code === 'ESRCH' || process.platform === 'linux';
  }
}

function conforms(title: string, order: (label: string) => AdminOrder, changes: Partial<Pkcs11KeyOptions>) {
  conformsToPort(title, async () => {
    const token = await TestToken.soft(order('one'), order('two'));
    const allow = async (value: boolean) => {
      await token.admin({ order: 'allow', label: 'one', value });
    };
    return {
      kind: 'pkcs11',
      open: () => opened(token.options('one', changes)),
      openOther: () => opened(token.options('two', changes)),
      deny: () => allow(false),
      allow: () => allow(true),
      endCredential: async () => writeFileSync(token.pinFile, 'another'),
      [Symbol.asyncDispose]: () => token[Symbol.asyncDispose](),
    };
  });
}

describe('PKCS#11', needs('softhsm'), () => {
  beforeAll(buildPkcs11js, 120_000);

  conforms('a PKCS#11 token, by SoftHSM, that is an AES key', AES, {});
  // SoftHSM refuses SHA-256 for it.
  conforms('a PKCS#11 token, by SoftHSM, that is an RSA pair', RSA_3072, { oaepHash: 'sha1' });

  describe('a key in a token', () => {
    it('is found by an entry of the file, whose paths count from its folder', async () => {
      await using token = await TestToken.soft(AES('one'));
      const file = join(token.folder, 'outside.json');
      const { module, label, serial } = token;
      const entry = { kind: 'pkcs11', module, token: label, serial, key: 'one', pin_file: 'pin' };
      writeFileSync(file, JSON.stringify({ keys: { hsm: entry } }));
      const read = readEntries(file).get('hsm');
      expect(read).toEqual({ ...entry, pin_file: token.pinFile, oaep_hash: 'sha256' });
      expect(placeOfEntry(read as NonNullable<typeof read>)).toBe('token held one');
      vi.stubEnv('SOFTHSM2_CONF', token.environment['SOFTHSM2_CONF']);
      await using key = await openOutsideKey('hsm', read as NonNullable<typeof read>);
      await expect.poll(() => faultOf(key.check())).toBeUndefined();
    });

    it('serves 64 calls at once, and gives each caller its own answer', async () => {
      await using token = await TestToken.soft(AES('one'));
      await using key = new BoundedKey('held', 'pkcs11', await opened(token.options('one')));
      const secrets = Array.from({ length: 64 }, () => randomBytes(32));
      const blobs = await Promise.all(secrets.map((secret) => key.wrap(secret)));
      const unwrapped = await Promise.all(blobs.map((blob) => key.unwrap(blob)));
      expect(unwrapped).toEqual(secrets);
    });

    it('is given away by no function of the token', async () => {
      await using token = await TestToken.soft(AES('one'), RSA_3072('two'));
      const answers = await token.admin({ order: 'steal', label: 'one' }, { order: 'steal', label: 'two' });
      const [aes, rsa] = answers as [string[], string[]];
      expect(aes[0]).toBe('CKR_ATTRIBUTE_SENSITIVE');
      expect(rsa).toContain('CKR_ATTRIBUTE_SENSITIVE');
      expect([...aes, ...rsa]).toContain('CKR_KEY_UNEXTRACTABLE');
      expect([...aes, ...rsa]).not.toContain('stolen');
    });

    it('is refused when the token would give it away, or when it is too weak', async () => {
      await using token = await TestToken.soft(
        { order: 'aes', label: 'open', extractable: true },
        { order: 'aes', label: 'short', bytes: 16 },
        { order: 'rsa', label: 'weak', bits: 1_024 },
        { order: 'rsa', label: 'long', bits: 4_096 },
        RSA_3072('refused'),
      );
      const why = async (key: string) => {
        await using provider = await opened(token.options(key));
        return await failureOf(provider.wrap(randomBytes(32), patient()));
      };
      expect(await why('open')).toEqual(['unavailable', expect.stringContaining('CKA_EXTRACTABLE false')]);
      expect(await why('short')).toEqual(['unavailable', expect.stringContaining('256 bits')]);
      expect(await why('weak')).toEqual(['unavailable', expect.stringContaining('has 1024 bits')]);
      expect(await why('long')).toEqual(['unavailable', expect.stringContaining('has 4096 bits')]);
      expect(await why('refused')).toEqual(['unavailable', expect.stringContaining('oaep_hash')]);
    });

    it('is denied once its owner has removed it, and the cause says so', async () => {
      await using token = await TestToken.soft(AES('one'));
      await using provider = await opened(token.options('one'));
      const blob = await provider.wrap(randomBytes(32), patient());
      await token.admin({ order: 'remove', label: 'one' });
      await expect
        .poll(() => failureOf(provider.unwrap(blob, patient())))
        .toEqual(['denied', expect.stringContaining('no key of the token has the label "one"')]);
    });

    it('is unavailable without its module, its token or its PIN, and the cause names what is missing', async () => {
      await using token = await TestToken.soft(AES('one'));
      const why = async (changes: Partial<Pkcs11KeyOptions>) => {
        await using provider = new Pkcs11Key(token.options('one', changes));
        return await failureOf(provider.wrap(randomBytes(32), patient()));
      };
      const [module, pinFile] = [join(token.folder, 'none.so'), join(token.folder, 'none')];
      expect(await why({ module })).toEqual(['unavailable', expect.stringContaining('none.so')]);
      expect(await why({ token: 'other', serial: undefined })).toEqual([
        'unavailable',
        expect.stringContaining('no token has the label "other"'),
      ]);
      expect(await why({ serial: '1' })).toEqual(['unavailable', expect.stringContaining('the serial 1')]);
      expect(await why({ pinFile })).toEqual(['unavailable', expect.stringContaining('pin_file')]);
      writeFileSync(pinFile, '\n');
      expect(await why({ pinFile })).toEqual(['unavailable', expect.stringContaining('holds no PIN')]);
    });
  });

  describe('the process of a module', () => {
    it('has no secret and no variable of BunKMS in its arguments or environment, and dumps no core', async ({
      skip,
    }) => {
      // Not by runIf: that would run it where the suite is skipped.
      skip(process.platform !== 'linux', 'it reads /proc');
      await using token = await TestToken.soft(AES('one'));
      const environment = {
        ...token.environment,
        BUNKMS_PLANTED: 'planted-1',
        NODE_OPTIONS: '--no-warnings',
      };
      await using provider = await opened(token.options('one', { environment }));
      const secret = randomBytes(32);
      await provider.unwrap(await provider.wrap(secret, patient()), patient());
      const read = (name: string) => readFileSync(`/proc/${provider.pid}/${name}`, 'utf8');
      const shown = read('cmdline') + read('environ');
      expect(shown).toContain('SOFTHSM2_CONF');
      for (const planted of [PIN, 'planted-1', 'BUNKMS_', 'NODE_OPTIONS', secret.toString('latin1')])
        expect(shown).not.toContain(planted);
      expect(read('limits')).toMatch(/^Max core file size +0 +0 /m);
      expect(Number.parseInt(read('coredump_filter'), 16)).toBe(0);
    });

    it('tries a wrong PIN once, names neither it nor a secret, and tries again when its file changes', async () => {
      await using faulty = await withFaults();
      writeFileSync(faulty.token.pinFile, 'wrong-77c1d2');
      await using provider = new Pkcs11Key(faulty.options);
      const secret = randomBytes(32);
      for (let call = 0; call < 5; call++) {
        const error = await provider.wrap(secret, patient()).catch((reason: unknown) => reason);
        expect(error).toMatchObject({ fault: 'unavailable' });
        const text = inspect(error, { depth: 10, showHidden: true });
        expect(text).toContain('CKR_PIN_INCORRECT');
        expect(text).not.toContain('wrong-77c1d2');
        expect(text).not.toContain(secret.toString('hex'));
      }
      expect(faulty.logins()).toBe(1);
      writeFileSync(faulty.token.pinFile, PIN);
      expect(await provider.wrap(secret, patient())).toHaveLength(61);
      expect(faulty.logins()).toBe(2);
    });

    it('tries no PIN that the token has locked, or locks after one more try', async () => {
      await using faulty = await withFaults();
      for (const [fault, cause] of [
        ['locked', 'has locked the PIN'],
        ['final-try', 'after one more wrong try'],
      ] as const) {
        faulty.is(fault);
        await using provider = new Pkcs11Key(faulty.options);
        const failure = await failureOf(provider.wrap(randomBytes(32), patient()));
        expect(failure).toEqual(['unavailable', expect.stringContaining(cause)]);
      }
      expect(faulty.logins()).toBe(0);
    });

    it('is killed when the module hangs; then another serves, and no other key has waited', async () => {
      await using faulty = await withFaults();
      await using provider = await opened(faulty.options);
      await using key = new BoundedKey('held', 'pkcs11', provider);
      await using other = await opened(faulty.token.options('one'));
      const blob = await provider.wrap(randomBytes(32), patient());
      const { pid } = provider;
      faulty.is('hang');
      const hanging = Array.from({ length: 8 }, () => failureOf(key.unwrap(blob)));
      // Through another process, while the first one hangs.
      expect(await other.unwrap(blob, patient())).toHaveLength(32);
      expect(isGone(pid)).toBe(false);
      for (const failure of await Promise.all(hanging))
        expect(failure).toEqual(['unavailable', expect.any(String)]);
      await expect.poll(() => isGone(pid)).toBe(true);
      faulty.is('');
      expect(await provider.unwrap(blob, patient())).toHaveLength(32);
      expect(provider.pid).not.toBe(pid);
    });

    it('is killed when it is stopped, and a late answer reaches nobody', async () => {
      await using token = await TestToken.soft(AES('one'));
      await using provider = await opened(token.options('one'));
      const [secret, { pid }] = [randomBytes(32), provider];
      const blob = await provider.wrap(secret, patient());
      process.kill(pid as number, 'SIGSTOP');
      // A call that ends soon after another process may still serve kills nothing.
      await expect(provider.unwrap(blob, AbortSignal.timeout(10))).rejects.toThrow('timeout');
      expect(isGone(pid)).toBe(false);
      await expect(provider.unwrap(blob, AbortSignal.timeout(1_200))).rejects.toThrow();
      await expect.poll(() => isGone(pid)).toBe(true);
      expect(await provider.unwrap(blob, patient())).toEqual(secret);
    });

    it.each(['crash', 'kill'])(
      'may end in the middle of calls by a %s: they fail, and later ones work',
      async (how) => {
        await using faulty = await withFaults();
        await using provider = await opened(faulty.options);
        const blob = await provider.wrap(randomBytes(32), patient());
        const { pid } = provider;
        faulty.is(how === 'crash' ? 'crash' : 'hang');
        const calls = Array.from({ length: 8 }, () => failureOf(provider.unwrap(blob, patient())));
        if (how === 'kill') process.kill(pid as number, 'SIGKILL');
        const signal = how === 'crash' ? 'SIGABRT' : 'SIGKILL';
        for (const failure of await Promise.all(calls))
          expect(failure).toEqual(['unavailable', `the process of the module ended (${signal})`]);
        faulty.is('');
        expect(await provider.unwrap(blob, patient())).toHaveLength(32);
      },
    );

    it('is killed when the module writes to its pipes: the parent stays, and another one serves', async () => {
      await using faulty = await withFaults();
      await using provider = await opened(faulty.options);
      const blob = await provider.wrap(randomBytes(32), patient());
      faulty.is('scribble');
      const failure = await failureOf(provider.unwrap(blob, patient()));
      expect(failure).toEqual(['unavailable', 'the process of the module sent what is no answer']);
      faulty.is('');
      expect(await provider.unwrap(blob, patient())).toHaveLength(32);
    });

    it('is killed when the module forges an answer, whose content reaches nobody', async () => {
      await using faulty = await withFaults();
      await using provider = await opened(faulty.options);
      const blob = await provider.wrap(randomBytes(32), patient());
      const cyclic: unknown[] = [];
      cyclic.push(cyclic);
      const refusal = { id: 3, fault: 'denied', message: 'forged', isPinRefused: false, isOver: false };
      for (const forged of [
        ...[null, 7, 'forged', cyclic, {}, new Error('forged'), { id: 'forged', bytes: Buffer.alloc(32) }],
        ...[
          { ...refusal, fault: 'forged' },
          { ...refusal, message: {} },
          { ...refusal, isOver: 'forged' },
        ],
        { ...refusal, message: 'forged'.repeat(1_000) },
        // No call has this id.
        ...[refusal, { id: 3, bytes: Buffer.alloc(32) }].map((answer) => ({ ...answer, id: 1e6 })),
      ]) {
        writeFileSync(faulty.frame, frameOf(forged));
        faulty.is('forge');
        const failure = await failureOf(provider.unwrap(blob, patient()));
        expect(failure).toEqual(['unavailable', 'the process of the module sent what is no answer']);
        faulty.is('');
        expect(await provider.unwrap(blob, patient())).toHaveLength(32);
      }
    });

    it('ends when the device is away, and another one serves when it is back', async () => {
      await using faulty = await withFaults();
      await using provider = await opened(faulty.options);
      const blob = await provider.wrap(randomBytes(32), patient());
      const { pid } = provider;
      faulty.is('away');
      const failure = await failureOf(provider.unwrap(blob, patient()));
      expect(failure).toEqual(['unavailable', expect.stringContaining('CKR_DEVICE_REMOVED')]);
      await expect.poll(() => isGone(pid)).toBe(true);
      faulty.is('');
      expect(await provider.unwrap(blob, patient())).toHaveLength(32);
    });

    it('is killed when the module never opens the token', async () => {
      await using faulty = await withFaults();
      faulty.is('hang-at-start');
      vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
      await using provider = new Pkcs11Key(faulty.options);
      const call = failureOf(provider.wrap(randomBytes(32), patient()));
      const { pid } = provider;
      vi.advanceTimersByTime(30_000);
      vi.useRealTimers();
      expect(await call).toEqual(['unavailable', 'the module did not open the token in time']);
      await expect.poll(() => isGone(pid)).toBe(true);
    });

    it('says which mechanism the token lacks', async () => {
      await using faulty = await withFaults();
      faulty.is('no-mechanism');
      await using provider = new Pkcs11Key(faulty.options);
      const failure = await failureOf(provider.wrap(randomBytes(32), patient()));
      expect(failure).toEqual(['unavailable', expect.stringContaining('CKM_AES_GCM')]);
    });

    it('is gone after its key is closed, even while the module hangs', async () => {
      await using faulty = await withFaults();
      const pids = [];
      for (const fault of ['', 'hang']) {
        const provider = await opened(faulty.options);
        faulty.is(fault);
        const call = failureOf(provider.wrap(randomBytes(32), patient()));
        if (fault === '') await call;
        pids.push(provider.pid);
        await provider[Symbol.asyncDispose]();
        expect(pids.map(isGone)).not.toContain(false);
        expect(await failureOf(provider.wrap(randomBytes(32), patient()))).toEqual([
          'unavailable',
          'the key is closed',
        ]);
        await call;
      }
      expect(new Set(pids).size).toBe(2);
    });

    it.each(['', 'hang'])('ends when its parent dies (fault: %j)', async (fault) => {
      await using faulty = await withFaults();
      const program = fileURLToPath(new URL('./support/pkcs11/use-key.ts', import.meta.url));
      const parent = spawnNode([program, JSON.stringify(faulty.options)], faulty.token.environment);
      const [line] = (await once(parent.stdout, 'data')) as [Buffer];
      const pid = Number(line.toString());
      expect(isGone(pid)).toBe(false);
      faulty.is(fault);
      parent.kill('SIGUSR2');
      await once(parent.stdout, 'data');
      parent.kill('SIGKILL');
      await expect.poll(() => isGone(pid)).toBe(true);
    });
  });
});

describe('PKCS#11 of a TPM', needs('tpm'), () => {
  beforeAll(buildPkcs11js, 120_000);

  it('wraps and unwraps with an RSA key by SHA-256, and tells damaged bytes from a wrong PIN', async () => {
    // One key and one process at a time: this TPM has no resource manager, and three places for objects.
    await using token = await TestToken.tpm(RSA_3072('one'));
    const secrets = [32, 64].map((bytes) => randomBytes(bytes));
    const blobs: Buffer[] = [];
    {
      await using provider = await opened(token.options('one'));
      for (const secret of secrets) blobs.push(await provider.wrap(secret, patient()));
    }
    await using provider = await opened(token.options('one'));
    for (const [index, blob] of blobs.entries()) {
      expect(blob).toHaveLength(384);
      expect(await provider.unwrap(blob, patient())).toEqual(secrets[index]);
      blob[100] = (blob[100] ?? 0) ^ 1;
      expect(await faultOf(provider.unwrap(blob, patient()))).toBe('damaged');
    }
    writeFileSync(token.pinFile, 'wrong');
    const failure = await failureOf(provider.wrap(randomBytes(32), patient()));
    expect(failure).toEqual(['unavailable', expect.stringContaining('CKR_PIN_INCORRECT')]);
  });
});

/** A token with one key, behind a module with faults. */
async function withFaults() {
  const token = await TestToken.soft(AES('one'));
  const [fault, logins, frame] = ['fault', 'logins', 'frame'].map((name) => join(token.folder, name)) as [
    ...[string, string, string],
  ];
  const environment = {
    ...token.environment,
    REAL_MODULE: token.module,
    FAULT: fault,
    LOGINS: logins,
    FRAME: frame,
  };
  return {
    token,
    frame,
    options: token.options('one', { module: buildFaultyModule(token.folder), environment }),
    is: (name: string) => writeFileSync(fault, name),
    logins: () => (existsSync(logins) ? readFileSync(logins, 'utf8').split('\n').length - 1 : 0),
    [Symbol.asyncDispose]: () => token[Symbol.asyncDispose](),
  };
}
