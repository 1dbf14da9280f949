import pg from 'pg';
import { expect, it } from 'vitest';
import { parseAddress } from './address.ts';
import { refusalOf } from './refusal.ts';

const address = parseAddress('postgres://shop:secret@db.internal/bundoc?sslmode=disable');
if (address === undefined) throw new Error('no URL of a database');
const place = { address, variable: 'BUNDOC_STORAGE' };
const told = (code: string, message: string) =>
  Object.assign(new pg.DatabaseError(message, 0, 'error'), { code });
const ofNode = (code: string) => Object.assign(new Error('certificate'), { code });

it.each([
  [
    'a wrong password',
    told('28P01', 'password authentication failed'),
    'put the password of the role "shop"',
  ],
  ['a server that wants TLS', told('28000', 'no pg_hba.conf entry, no encryption'), 'remove sslmode=disable'],
  ['a missing role', told('28000', 'role "shop" is not permitted to log in'), 'CREATE ROLE'],
  ['a missing database', told('3D000', 'database "bundoc" does not exist'), 'createdb --owner=shop bundoc'],
  ['no right to connect', told('42501', 'permission denied'), 'grant the role "shop" CONNECT'],
  ['too many connections', told('53300', 'too many clients'), 'lower connections in BUNDOC_STORAGE'],
  ['an expired certificate', ofNode('CERT_HAS_EXPIRED'), 'renew the certificate of the server'],
  ['an unknown authority', ofNode('UNABLE_TO_VERIFY_LEAF_SIGNATURE'), 'BUNDOC_POSTGRES_CA_FILE'],
  ['the name of another host', ofNode('ERR_TLS_CERT_ALTNAME_INVALID'), 'the host in BUNDOC_STORAGE'],
])('%s comes with its remedy, and without a password', (_what, error, remedy) => {
  const message = String(refusalOf(error, place)?.message);
  expect(message).toContain(remedy);
  expect(message).not.toContain('secret');
});

it.each([
  ['is starting', told('57P03', 'the database system is starting up')],
  ['is stopping', told('57P01', 'terminating connection due to administrator command')],
  ['has a full disk', told('53100', 'could not extend file')],
  ['is silent', Object.assign(new Error('connect ECONNREFUSED'), { code: 'ECONNREFUSED' })],
])('a server that %s does not refuse, and is waited for', (_what, error) => {
  expect(refusalOf(error, place)).toBeUndefined();
});
