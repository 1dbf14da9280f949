// Opens a key and prints the id of its process. After SIGUSR2 it begins a call, and says so: node use-key.ts
// <options>.

import { Pkcs11Key, type Pkcs11KeyOptions } from '../../../src/outside/pkcs11-key.ts';

const key = new Pkcs11Key(JSON.parse(process.argv[2] ?? '') as Pkcs11KeyOptions);
const signal = AbortSignal.timeout(600_000);
process.once('SIGUSR2', () => {
  key.wrap(new Uint8Array(32), signal).catch(() => undefined);
  process.stdout.write('begun\n');
});
await key.checkCredential(signal);
process.stdout.write(`${key.pid}\n`);
setInterval(() => undefined, 60_000);
