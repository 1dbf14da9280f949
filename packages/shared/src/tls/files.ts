import { createPrivateKey, X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { createSecureContext } from 'node:tls';
import { defined } from '../contract/defined.ts';
import { stampOf } from '../files/file-stamp.ts';
import { printable } from '../logs/printable.ts';
import { ConfigError, unreadable } from '../process/config.ts';

/** A file, and the variable that names it, for messages. */
export interface NamedFile {
  readonly variable: string;
  readonly path: string;
}

/** PEM files of one TLS endpoint. The configuration ensures that a certificate and its key come together. */
export interface TlsFiles {
  /** The certificate, followed by the intermediate certificates. */
  readonly cert?: NamedFile | undefined;
  /** The unencrypted private key of the certificate. */
  readonly key?: NamedFile | undefined;
  /** The authorities that are trusted for the peer's certificate. */
  readonly ca?: NamedFile | undefined;
}

/** The file that a variable of a parsed environment names. @returns undefined when it is not set. */
export function namedFile<V extends string>(
  variable: V,
  values: Readonly<Partial<Record<V, string | undefined>>>,
): NamedFile | undefined {
  const path = values[variable];
  return path === undefined ? undefined : { variable, path };
}

/**
 * The TLS files in a parsed environment.
 *
 * @param variables names of the variables for the certificate, its key and the authorities.
 * @returns undefined when none is set.
 */
export function tlsFilesOf<V extends string>(
  values: Readonly<Partial<Record<V, string | undefined>>>,
  [cert, key, ca]: readonly [V, V, V?],
): TlsFiles | undefined {
  const files = {
    cert: namedFile(cert, values),
    key: namedFile(key, values),
    ca: ca && namedFile(ca, values),
  };
  return Object.values(files).every((file) => file === undefined) ? undefined : files;
}

/** The checked content of {@link TlsFiles}. */
export interface TlsMaterial {
  readonly cert?: Buffer;
  readonly key?: Buffer;
  readonly ca?: Buffer;
  /** When the certificate expires, milliseconds since 1970; absent without one. */
  readonly notAfterMs?: number;
}

/**
 * Reads the files and checks that they are usable and belong together. It accepts an expired certificate, so
 * that the service can start and report it.
 *
 * @throws ConfigError with all faults. It quotes no content.
 */
export function readTlsMaterial(files: TlsFiles): TlsMaterial {
  const faults: string[] = [];
  const attempt = <T>(file: NamedFile | undefined, why: string, read: () => T): T | undefined => {
    if (file === undefined) return undefined;
    try {
      return read();
    } catch (error) {
      const isOfSystem = (error as NodeJS.ErrnoException).syscall !== undefined;
      faults.push(
        `${file.variable}: ${isOfSystem ? unreadable(file.path, error) : `the file ${printable(resolve(file.path))} ${why}`}`,
      );
      return undefined;
    }
  };
  const bytesOf = (file: NamedFile | undefined) =>
    attempt(file, 'cannot be read', () => readFileSync(String(file?.path)));
  const [cert, key, ca] = [bytesOf(files.cert), bytesOf(files.key), bytesOf(files.ca)];

  const leaf = cert && attempt(files.cert, 'holds no certificate in PEM', () => new X509Certificate(cert));
  const privateKey =
    key && attempt(files.key, 'holds no unencrypted private key in PEM', () => createPrivateKey(key));
  if (ca !== undefined) attempt(files.ca, 'holds no certificate in PEM', () => new X509Certificate(ca));
  if (leaf !== undefined && privateKey !== undefined && !leaf.checkPrivateKey(privateKey))
    faults.push(`${files.key?.variable}: is not the key of the certificate in ${files.cert?.variable}`);
  if (faults.length > 0) throw new ConfigError(faults);

  const material = defined({ cert, key, ca });
  // OpenSSL reads more than was checked above: the rest of the chain, and all authorities.
  attempt(files.cert ?? files.ca, 'is not usable for TLS, or another one of its files', () =>
    createSecureContext(material),
  );
  if (faults.length > 0) throw new ConfigError(faults);
  return leaf === undefined ? material : { ...material, notAfterMs: leaf.validToDate.getTime() };
}

/** A value that differs after any of the files has changed. A file that cannot be read also has one. */
export function stampOfTlsFiles(files: TlsFiles): string {
  return [files.cert, files.key, files.ca]
    .map((file) => (file === undefined ? '' : stampOf(file.path)))
    .join();
}
