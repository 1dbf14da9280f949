// Makes and changes tokens and keys, as their owner does: node admin.ts <orders>. The environment configures
// the module. Prints what each order gave, as JSON.

import { createRequire } from 'node:module';
import type * as Pkcs11js from 'pkcs11js';
import type { AdminOrder } from './orders.ts';

const pkcs11 = createRequire(import.meta.url)('pkcs11js') as typeof Pkcs11js;
const { module, token, pin, orders } = JSON.parse(process.argv[2] ?? '') as {
  module: string;
  token: string;
  pin: string;
  orders: AdminOrder[];
};
const SO_PIN = 'so-87654321';
const library = new pkcs11.PKCS11();
library.load(module);
library.C_Initialize();

const slotWith = (accepts: (info: Pkcs11js.TokenInfo) => boolean) => {
  const slot = library.C_GetSlotList(true).find((one) => accepts(library.C_GetTokenInfo(one)));
  if (slot === undefined) throw new Error('there is no such token');
  return slot;
};
const open = (slot: Buffer) => library.C_OpenSession(slot, pkcs11.CKF_SERIAL_SESSION | pkcs11.CKF_RW_SESSION);

let session: Buffer | undefined;
const user = () => {
  if (session !== undefined) return session;
  session = open(slotWith(({ label }) => label.trim() === token));
  library.C_Login(session, pkcs11.CKU_USER, pin);
  return session;
};

const objectsOf = (label: string) => {
  library.C_FindObjectsInit(user(), [{ type: pkcs11.CKA_LABEL, value: label }]);
  const found = library.C_FindObjects(user(), 10);
  library.C_FindObjectsFinal(user());
  return found;
};

const nameOf = (steal: () => void): string => {
  try {
    steal();
    return 'stolen';
  } catch (error) {
    return (error as Error).message;
  }
};

const flag = (type: number, value: boolean) => ({ type, value });
const common = (label: string) => [
  flag(pkcs11.CKA_TOKEN, true),
  { type: pkcs11.CKA_LABEL, value: label },
  { type: pkcs11.CKA_ID, value: Buffer.from(label) },
];
const hidden = (extractable: boolean) => [
  flag(pkcs11.CKA_PRIVATE, true),
  flag(pkcs11.CKA_SENSITIVE, !extractable),
  flag(pkcs11.CKA_EXTRACTABLE, extractable),
  flag(pkcs11.CKA_DECRYPT, true),
];

function init(): string {
  library.C_InitToken(
    slotWith(({ flags }) => (flags & pkcs11.CKF_TOKEN_INITIALIZED) === 0),
    SO_PIN,
    token.padEnd(32),
  );
  // A module may show a new token in another slot.
  const slot = slotWith(({ label }) => label.trim() === token);
  const officer = open(slot);
  library.C_Login(officer, pkcs11.CKU_SO, SO_PIN);
  library.C_InitPIN(officer, pin);
  library.C_Logout(officer);
  library.C_CloseSession(officer);
  return library.C_GetTokenInfo(slot).serialNumber.trim();
}

function carryOut(order: AdminOrder): unknown {
  switch (order.order) {
    case 'init':
      return init();
    case 'aes':
      library.C_GenerateKey(user(), { mechanism: pkcs11.CKM_AES_KEY_GEN }, [
        ...common(order.label),
        { type: pkcs11.CKA_VALUE_LEN, value: order.bytes ?? 32 },
        flag(pkcs11.CKA_ENCRYPT, true),
        ...hidden(order.extractable ?? false),
      ]);
      return undefined;
    case 'rsa':
      library.C_GenerateKeyPair(
        user(),
        { mechanism: pkcs11.CKM_RSA_PKCS_KEY_PAIR_GEN },
        [
          ...common(order.label),
          { type: pkcs11.CKA_MODULUS_BITS, value: order.bits },
          { type: pkcs11.CKA_PUBLIC_EXPONENT, value: Buffer.of(1, 0, 1) },
          flag(pkcs11.CKA_ENCRYPT, true),
        ],
        [...common(order.label), ...hidden(false)],
      );
      return undefined;
    case 'allow':
      for (const object of objectsOf(order.label))
        for (const type of [pkcs11.CKA_ENCRYPT, pkcs11.CKA_DECRYPT])
          try {
            library.C_SetAttributeValue(user(), object, [flag(type, order.value)]);
          } catch {
            // One key of a pair encrypts, the other decrypts.
          }
      return undefined;
    case 'remove':
      for (const object of objectsOf(order.label)) library.C_DestroyObject(user(), object);
      return undefined;
    case 'steal': {
      const wrapping = library.C_GenerateKey(user(), { mechanism: pkcs11.CKM_AES_KEY_GEN }, [
        { type: pkcs11.CKA_VALUE_LEN, value: 32 },
        flag(pkcs11.CKA_WRAP, true),
      ]);
      const [parts] = [[pkcs11.CKA_VALUE, pkcs11.CKA_PRIVATE_EXPONENT, pkcs11.CKA_PRIME_1]];
      return objectsOf(order.label).flatMap((object) => [
        ...parts.map((type) => nameOf(() => library.C_GetAttributeValue(user(), object, [{ type }]))),
        nameOf(() =>
          library.C_WrapKey(
            user(),
            { mechanism: pkcs11.CKM_AES_KEY_WRAP_PAD },
            wrapping,
            object,
            Buffer.alloc(4_096),
          ),
        ),
      ]);
    }
  }
}

process.stdout.write(JSON.stringify(orders.map((order) => carryOut(order) ?? null)));
library.C_Finalize();
