import {
  createCipheriv,
  createDecipheriv,
  createHmac,
  createSecretKey,
  hkdfSync,
  timingSafeEqual,
} from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { needs } from '../testing/programs.ts';
import { loadWycheproof, unhex } from '../testing/wycheproof.ts';
import {
  aadOf,
  deriveBytes,
  deriveKey,
  KEY_BYTES,
  keyCheckValue,
  NONCE_BYTES,
  OpenError,
  open,
  SEAL_OVERHEAD_BYTES,
  seal,
  TAG_BYTES,
  takeKey,
} from './aead.ts';

const key = createSecretKey(Buffer.alloc(KEY_BYTES, 7));

interface GcmGroup {
  readonly keySize: number;
  readonly ivSize: number;
  readonly tagSize: number;
}
interface GcmTest {
  readonly key: string;
  readonly iv: string;
  readonly aad: string;
  readonly msg: string;
  readonly ct: string;
  readonly tag: string;
}
const gcm = loadWycheproof<GcmGroup, GcmTest>('aes_gcm_test.json');

describe('AES-GCM, published vectors', needs('vectors'), () => {
  const tests = gcm.flatMap((group) => group.tests.map((test) => ({ group, test })));
  const sealedOf = ({ iv, ct, tag }: GcmTest) => unhex(iv + ct + tag);
  const isOurs = (group: GcmGroup) =>
    group.keySize === KEY_BYTES * 8 && group.ivSize === NONCE_BYTES * 8 && group.tagSize === TAG_BYTES * 8;

  it('opens every valid vector of our parameters and refuses every invalid one', () => {
    let opened = 0;
    let refused = 0;
    for (const { group, test } of tests) {
      if (!isOurs(group)) continue;
      const vectorKey = takeKey(unhex(test.key));
      const attempt = () => open(vectorKey, sealedOf(test), unhex(test.aad)).toString('hex');
      if (test.result === 'valid') {
        expect(attempt(), `tcId ${test.tcId}`).toBe(test.msg);
        opened++;
      } else {
        expect(attempt, `tcId ${test.tcId} ${test.comment}`).toThrow(OpenError);
        refused++;
      }
    }
    expect(opened).toBeGreaterThanOrEqual(35);
    expect(refused).toBeGreaterThanOrEqual(25);
  });

  it('refuses every vector with another nonce size, because the layout differs', () => {
    let refused = 0;
    for (const { group, test } of tests) {
      if (group.keySize !== KEY_BYTES * 8 || isOurs(group)) continue;
      const vectorKey = takeKey(unhex(test.key));
      expect(() => open(vectorKey, sealedOf(test), unhex(test.aad)), `tcId ${test.tcId}`).toThrow(OpenError);
      refused++;
    }
    expect(refused).toBeGreaterThanOrEqual(30);
  });

  it('refuses keys of another size', () => {
    let refused = 0;
    for (const { group, test } of tests) {
      if (group.keySize === KEY_BYTES * 8) continue;
      expect(() => takeKey(unhex(test.key)), `tcId ${test.tcId}`).toThrow(/32 bytes/);
      refused++;
    }
    expect(refused).toBeGreaterThanOrEqual(150);
  });
});

describe('seal', () => {
  it('gives nonce(12) | ciphertext | tag(16), which another AES-GCM implementation opens', () => {
    const plaintext = Buffer.from('{"a":1}');
    const aad = aadOf('bundoc/doc/v1', 'project-a', '3fa9');
    const sealed = seal(key, plaintext, aad);
    expect(sealed.length).toBe(plaintext.length + SEAL_OVERHEAD_BYTES);

    const decipher = createDecipheriv('aes-256-gcm', key, sealed.subarray(0, 12));
    decipher.setAAD(aad);
    decipher.setAuthTag(sealed.subarray(sealed.length - 16));
    const ciphertext = sealed.subarray(12, sealed.length - 16);
    expect(Buffer.concat([decipher.update(ciphertext), decipher.final()])).toEqual(plaintext);
  });

  it('gives the ciphertext of AES-GCM for the nonce that it chose', () => {
    const plaintext = Buffer.from('the same bytes');
    const sealed = seal(key, plaintext, Buffer.from('aad'));
    const cipher = createCipheriv('aes-256-gcm', key, sealed.subarray(0, 12));
    cipher.setAAD(Buffer.from('aad'));
    const expected = Buffer.concat([cipher.update(plaintext), cipher.final(), cipher.getAuthTag()]);
    expect(sealed.subarray(12)).toEqual(expected);
  });

  it('never repeats a nonce in ten thousand seals', () => {
    const nonces = new Set<string>();
    for (let count = 0; count < 10_000; count++)
      nonces.add(seal(key, Buffer.alloc(1), Buffer.alloc(0)).toString('hex', 0, NONCE_BYTES));
    expect(nonces.size).toBe(10_000);
  });
});

describe('open', () => {
  it('refuses bytes shorter than nonce and tag with the same error as a wrong tag', () => {
    const messages = new Set<string>();
    for (let length = 0; length <= SEAL_OVERHEAD_BYTES; length++) {
      try {
        open(key, Buffer.alloc(length), Buffer.alloc(0));
        expect.unreachable();
      } catch (error) {
        expect(error).toBeInstanceOf(OpenError);
        expect((error as Error).cause).toBeUndefined();
        messages.add((error as Error).message);
      }
    }
    expect(messages.size).toBe(1);
  });
});

interface HkdfTest {
  readonly ikm: string;
  readonly salt: string;
  readonly info: string;
  readonly size: number;
  readonly okm: string;
}
const hkdf = loadWycheproof<{ readonly keySize: number }, HkdfTest>('hkdf_sha256_test.json');

describe('HKDF-SHA256, published vectors', needs('vectors'), () => {
  const tests = hkdf.flatMap((group) => group.tests);

  it('derives every vector with an empty salt whose info is text', () => {
    let derived = 0;
    let notText = 0;
    for (const test of tests) {
      if (test.salt !== '' || test.result !== 'valid') continue;
      const info = unhex(test.info).toString('utf8');
      if (Buffer.from(info).toString('hex') !== test.info) {
        notText++;
        continue;
      }
      expect(deriveBytes(createSecretKey(unhex(test.ikm)), info, test.size).toString('hex')).toBe(test.okm);
      derived++;
    }
    expect(derived).toBeGreaterThanOrEqual(5);
    expect(derived + notText).toBeGreaterThanOrEqual(20);
  });

  it("agrees with Node's HKDF on every vector, whatever its salt and info", () => {
    let derived = 0;
    let refused = 0;
    for (const test of tests) {
      const derive = () =>
        hkdfSync('sha256', createSecretKey(unhex(test.ikm)), unhex(test.salt), unhex(test.info), test.size);
      if (test.result === 'valid') {
        expect(Buffer.from(derive()).toString('hex'), `tcId ${test.tcId}`).toBe(test.okm);
        derived++;
      } else {
        expect(derive, `tcId ${test.tcId}`).toThrow();
        refused++;
      }
    }
    expect(derived).toBeGreaterThanOrEqual(80);
    expect(refused).toBeGreaterThanOrEqual(3);
  });

  it('refuses to derive more than 255 blocks', () => {
    expect(() => deriveBytes(key, 'x', 255 * 32 + 1)).toThrow();
  });
});

interface HmacTest {
  readonly key: string;
  readonly msg: string;
  readonly tag: string;
}
const hmac = loadWycheproof<{ readonly tagSize: number }, HmacTest>('hmac_sha256_test.json');

describe('HMAC-SHA256, published vectors', needs('vectors'), () => {
  it('agrees on every tag, also truncated to 128 bits as in file names, and refuses every changed one', () => {
    let equal = 0;
    let different = 0;
    for (const group of hmac) {
      for (const test of group.tests) {
        const mac = createHmac('sha256', createSecretKey(unhex(test.key)))
          .update(unhex(test.msg))
          .digest();
        const isEqual = timingSafeEqual(mac.subarray(0, group.tagSize / 8), unhex(test.tag));
        expect(isEqual, `tcId ${test.tcId}`).toBe(test.result === 'valid');
        if (isEqual) equal++;
        else different++;
      }
    }
    expect(equal).toBeGreaterThanOrEqual(60);
    expect(different).toBeGreaterThanOrEqual(100);
  });
});

describe('keys', () => {
  it('wipes the raw bytes of a key that it takes over', () => {
    const bytes = Buffer.alloc(KEY_BYTES, 0x55);
    const taken = takeKey(bytes);
    expect(bytes).toEqual(Buffer.alloc(KEY_BYTES));
    expect(taken.export()).toEqual(Buffer.alloc(KEY_BYTES, 0x55));
  });

  it.each([0, 16, 31, 33, 64])('refuses a key of %i bytes, and still wipes it', (length) => {
    const bytes = Buffer.alloc(length, 0x55);
    expect(() => takeKey(bytes)).toThrow(/32 bytes/);
    expect(bytes).toEqual(Buffer.alloc(length));
  });

  it('derives a 256-bit key that equals the derived bytes', () => {
    expect(deriveKey(key, 'purpose/v1').export()).toEqual(deriveBytes(key, 'purpose/v1', KEY_BYTES));
  });

  it('derives a different subkey for each purpose', () => {
    expect(deriveBytes(key, 'a/v1', 32)).not.toEqual(deriveBytes(key, 'a/v2', 32));
  });

  it('keeps the key check value, which is stored in data folders', () => {
    expect(keyCheckValue(key)).toBe(
      Buffer.from(hkdfSync('sha256', Buffer.alloc(32, 7), '', 'bunkms/kcv/v1', 16)).toString('hex'),
    );
    expect(keyCheckValue(key)).toBe('30d2cd3b97456de0d41ece6664c86453');
  });
});

describe('aadOf', () => {
  it('refuses parts that would let two lists give the same bytes', () => {
    expect(() => aadOf()).toThrow(/at least one part/);
    expect(() => aadOf('a\0b')).toThrow(/NUL/);
    expect(() => aadOf('a', '\ud800')).toThrow(/well-formed/);
  });
});
