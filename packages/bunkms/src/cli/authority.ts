import 'reflect-metadata';
import {
  createPrivateKey,
  generateKeyPairSync,
  type KeyObject,
  randomBytes,
  type webcrypto,
} from 'node:crypto';
import { isIP } from 'node:net';
import {
  AuthorityKeyIdentifierExtension,
  BasicConstraintsExtension,
  ExtendedKeyUsage,
  ExtendedKeyUsageExtension,
  type Extension,
  KeyUsageFlags,
  KeyUsagesExtension,
  SubjectAlternativeNameExtension,
  SubjectKeyIdentifierExtension,
  X509Certificate,
  X509CertificateGenerator,
} from '@peculiar/x509';

/** How the subject of every authority begins. */
export const AUTHORITY_NAME = 'Bundoc private authority';

/** The validity period of a certificate, milliseconds since 1970. */
export interface Validity {
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
}

/** A certificate and its private key, in PEM. */
export interface CertifiedKey {
  readonly cert: string;
  readonly key: string;
}

const ALGORITHM = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' } as const;

/**
 * Creates an authority: a self-signed certificate that may sign service certificates, but no other authority.
 */
export async function makeAuthority(validity: Validity): Promise<CertifiedKey> {
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: ALGORITHM.namedCurve });
  const keys = { privateKey: signingKeyOf(privateKey), publicKey: publicKeyOf(publicKey) };
  const name = `CN=${AUTHORITY_NAME} ${randomBytes(4).toString('hex')}`;
  const cert = await X509CertificateGenerator.create({
    ...(await commonOf(keys.publicKey, validity, [
      new BasicConstraintsExtension(true, 0, true),
      new KeyUsagesExtension(KeyUsageFlags.keyCertSign | KeyUsageFlags.cRLSign, true),
    ])),
    subject: name,
    issuer: name,
    signingKey: keys.privateKey,
  });
  return { cert: pemOf(cert), key: pemOfKey(privateKey) };
}

/**
 * Issues a certificate with a new key for a service with these names and addresses. It is valid for both TLS
 * servers and clients, because each service is a client of the other at times.
 */
export async function issueCertificate(
  authority: CertifiedKey,
  names: readonly string[],
  validity: Validity,
): Promise<CertifiedKey> {
  const issuer = new X509Certificate(authority.cert);
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: ALGORITHM.namedCurve });
  const cert = await X509CertificateGenerator.create({
    ...(await commonOf(publicKeyOf(publicKey), validity, [
      new BasicConstraintsExtension(false, undefined, true),
      new KeyUsagesExtension(KeyUsageFlags.digitalSignature, true),
      new ExtendedKeyUsageExtension([ExtendedKeyUsage.serverAuth, ExtendedKeyUsage.clientAuth]),
      new SubjectAlternativeNameExtension(
        names.map((value) => ({ type: isIP(value) === 0 ? ('dns' as const) : ('ip' as const), value })),
      ),
      await AuthorityKeyIdentifierExtension.create(issuer.publicKey),
    ])),
    subject: `CN=${names[0]}`,
    issuer: issuer.subject,
    signingKey: signingKeyOf(createPrivateKey(authority.key)),
  });
  return { cert: pemOf(cert), key: pemOfKey(privateKey) };
}

async function commonOf(
  publicKey: webcrypto.CryptoKey,
  validity: Validity,
  extensions: readonly Extension[],
) {
  const serial = randomBytes(16);
  // A serial number is positive and does not begin with a zero (RFC 5280, section 4.1.2.2).
  serial[0] = ((serial[0] ?? 0) & 0x7f) | 0x40;
  return {
    serialNumber: serial.toString('hex'),
    notBefore: new Date(validity.notBeforeMs),
    notAfter: new Date(validity.notAfterMs),
    publicKey,
    signingAlgorithm: ALGORITHM,
    extensions: [...extensions, await SubjectKeyIdentifierExtension.create(publicKey)],
  };
}

function signingKeyOf(key: KeyObject): webcrypto.CryptoKey {
  return key.toCryptoKey(ALGORITHM, false, ['sign']);
}

function publicKeyOf(key: KeyObject): webcrypto.CryptoKey {
  return key.toCryptoKey(ALGORITHM, true, ['verify']);
}

function pemOf(cert: X509Certificate): string {
  return `${cert.toString('pem')}\n`;
}

function pemOfKey(key: KeyObject): string {
  return String(key.export({ type: 'pkcs8', format: 'pem' }));
}
