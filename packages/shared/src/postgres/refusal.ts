import pg from 'pg';
import { StartRefused } from '../process/lifecycle.ts';
import { formatAddress } from './address.ts';
import type { ConnectionSettings } from './connection.ts';

/** What the operator must do. */
interface Remedies {
  readonly password: string;
  readonly role: string;
  readonly database: string;
  readonly rights: string;
  readonly connections: string;
  readonly noTls: string;
  readonly tls: string;
  readonly certificate: string;
  readonly validity: string;
  readonly server: string;
}

function remediesFor({ address, passwordFile, variable }: ConnectionPlace): Remedies {
  const service = variable.slice(0, variable.indexOf('_'));
  const { database, user } = address;
  const role = `"${user}"`;
  return {
    password: `put the password of the role ${role} into ${passwordFile === undefined ? `the URL (${variable}) or the file of ${service}_POSTGRES_PASSWORD_FILE` : `the file of ${passwordFile.variable}`}`,
    role: `let the role ${role} connect from here (CREATE ROLE … LOGIN, pg_hba.conf), or correct ${variable}`,
    database: `create it (createdb --owner=${user} ${database}), or correct ${variable}`,
    rights: `grant the role ${role} CONNECT on the database`,
    connections: `lower connections in ${variable}, or raise max_connections of the server`,
    noTls: `turn TLS on at the server, or, if the network is trusted, add sslmode=disable to ${variable}`,
    tls: `the server wants TLS: remove sslmode=disable from ${variable}`,
    validity: 'renew the certificate of the server, or correct the clock that is wrong',
    certificate: `name the authority of its certificate in ${service}_POSTGRES_CA_FILE, and the host in ${variable} as the certificate does`,
    server: 'the log of the server says why',
  };
}

const BY_STATE: Readonly<Record<string, keyof Remedies>> = {
  '28P01': 'password',
  '28000': 'role',
  '3D000': 'database',
  '42501': 'rights',
  '53300': 'connections',
};
/** Messages of the driver, which have no code. */
const BY_MESSAGE: readonly (readonly [pattern: RegExp, remedy: keyof Remedies, meaning: string])[] = [
  [/password must be a/i, 'password', 'the server asks for a password, and there is none'],
  [/does not support SSL/, 'noTls', 'the server does not support TLS'],
];
/** Codes of Node for certificates that it does not accept. */
const OF_CERTIFICATES =
  /^(ERR_TLS_CERT_.*|CERT_.*|UNABLE_TO_.*|.*SELF_SIGNED.*|HOSTNAME_MISMATCH|INVALID_PURPOSE)$/;
const OF_VALIDITY = /^CERT_(HAS_EXPIRED|NOT_YET_VALID)$/;
/** A server that starts, stops or has a full disk says so, and is waited for. */
const PASSING = /^57P|^53100$/;

type ConnectionPlace = Pick<ConnectionSettings, 'address' | 'passwordFile' | 'variable'>;

/** The server answers, and does not let this service connect. */
export class ConnectionRefused extends StartRefused {
  override readonly name = 'ConnectionRefused';
  /** What the server says. */
  readonly found: string;
  readonly remedy: string;
  constructor(found: string, remedy: string, options: ErrorOptions) {
    super(`${found}; ${remedy}`, options);
    this.found = found;
    this.remedy = remedy;
  }
}

/**
 * Tells a server that refuses a connection from one that does not answer. The message quotes the server,
 * which never repeats a password.
 *
 * @param error of an attempt to connect.
 * @returns undefined when the server does not answer, or only for now.
 */
export function refusalOf(error: unknown, place: ConnectionPlace): ConnectionRefused | undefined {
  const { code = '', message = '' } = Object(error) as { code?: string; message?: string };
  const remedies = remediesFor(place);
  const refused = (reason: string, remedy: keyof Remedies = 'server') =>
    new ConnectionRefused(
      `PostgreSQL refuses the connection to ${formatAddress(place.address)}: ${reason}`,
      remedies[remedy],
      { cause: error },
    );
  if (error instanceof pg.DatabaseError) {
    if (PASSING.test(code)) return undefined;
    const remedy = code === '28000' && message.includes('no encryption') ? 'tls' : BY_STATE[code];
    return refused(`${message} (${code})`, remedy);
  }
  if (OF_CERTIFICATES.test(code))
    return refused(`${message} (${code})`, OF_VALIDITY.test(code) ? 'validity' : 'certificate');
  const [, remedy, meaning] = BY_MESSAGE.find(([pattern]) => pattern.test(message)) ?? [];
  return remedy === undefined ? undefined : refused(String(meaning), remedy);
}

/** The refusal among an error and its causes. */
export function refusalIn(error: unknown): ConnectionRefused | undefined {
  for (let cause = error; cause instanceof Error; cause = cause.cause)
    if (cause instanceof ConnectionRefused) return cause;
  return undefined;
}
