import type { OutsideFault } from './port.ts';

/** Where a key is, and how it is used. */
export interface Pkcs11Settings {
  /** The library of the token's vendor, a path. */
  readonly module: string;
  /** The token's label. */
  readonly token: string;
  /** The token's serial number, when its label may not be enough. */
  readonly serial?: string | undefined;
  /** The key's label: of an AES key, or of both keys of an RSA pair. */
  readonly key: string;
  /** The user's PIN. Read again when it changes. */
  readonly pinFile: string;
  /** Of RSA-OAEP and its MGF1. Some tokens offer SHA-1 only. */
  readonly oaepHash: 'sha256' | 'sha1';
}

/** The child's pipe for answers. Modules may print to its standard output. */
export const ANSWERS_FD = 3;

/** What the parent sends to the child, one message a call. The child answers in order. */
export type Pkcs11Call = { readonly id: number } & (
  | {
      readonly operation: 'open';
      readonly settings: Pkcs11Settings;
      /** Of the file of the PIN. The child uses no other version of it. */
      readonly pinStamp: string;
    }
  | { readonly operation: 'wrap' | 'unwrap'; readonly bytes: Uint8Array }
  | { readonly operation: 'checkCredential' }
);

/** What the child answers. */
export type Pkcs11Answer = { readonly id: number } & (
  | { readonly bytes: Uint8Array }
  | {
      readonly fault: OutsideFault;
      readonly message: string;
      readonly remedy?: string | undefined;
      /** The token has refused the PIN. Each further try may lock it. */
      readonly isPinRefused: boolean;
      /** The child ends: another one may do better. */
      readonly isOver: boolean;
    }
);
