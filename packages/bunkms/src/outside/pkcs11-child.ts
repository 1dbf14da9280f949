// The process of one PKCS#11 key: node pkcs11-child.js <pid of the parent>. Calls come by standard input, and
// answers go to a pipe. Here the module of a vendor may hang, crash or leak without harm to other keys.

import { writeFileSync, writeSync } from 'node:fs';
import { Worker } from 'node:worker_threads';
import { ANSWERS_FD, type Pkcs11Answer, type Pkcs11Call } from './pkcs11-calls.ts';
import { FrameReader, frameOf } from './pkcs11-frames.ts';
import { Pkcs11Error } from './pkcs11-library.ts';
import { Pkcs11Token } from './pkcs11-token.ts';

// A dump of this process would hold the PIN and secrets. The shell that started it has set the limit of dumps
// to 0, which programs that receive dumps from the kernel may ignore.
if (process.platform === 'linux') writeFileSync('/proc/self/coredump_filter', '0');

// While the module hangs, this thread cannot notice that the parent is gone. The parent may go before the
// other thread runs, so its id is an argument.
new Worker(
  `const { workerData: parent } = require('node:worker_threads');
   setInterval(() => process.ppid === parent || process.kill(process.pid, 'SIGKILL'), 1_000);`,
  { eval: true, workerData: Number(process.argv[2]) },
).unref();

// A service manager sends them to all processes of a service, which needs its keys until it has stopped.
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => undefined);

let token: Pkcs11Token | undefined;

const calls = new FrameReader();
process.stdin.on('data', (chunk) => {
  for (const call of calls.read(chunk) as Pkcs11Call[]) {
    const answer = serve(call);
    const frame = frameOf(answer);
    writeSync(ANSWERS_FD, frame);
    frame.fill(0);
    if ('bytes' in answer) answer.bytes.fill(0);
    else if (answer.isOver) end();
  }
});
process.stdin.on('error', end).on('close', end);

function serve(call: Pkcs11Call): Pkcs11Answer {
  const { id } = call;
  try {
    return { id, bytes: resultOf(call) };
  } catch (error) {
    const { fault, message, remedy, isPinRefused, isOver } = Pkcs11Error.of(error);
    return { id, fault, message, remedy, isPinRefused, isOver: isOver || call.operation === 'open' };
  } finally {
    if ('bytes' in call) call.bytes.fill(0);
  }
}

function resultOf(call: Pkcs11Call): Uint8Array {
  if (call.operation === 'open') {
    token = Pkcs11Token.open(call.settings, call.pinStamp);
    return new Uint8Array();
  }
  if (token === undefined) throw new Pkcs11Error('unavailable', 'the token is not open');
  if (call.operation === 'wrap') return token.wrap(call.bytes);
  if (call.operation === 'unwrap') return token.unwrap(call.bytes);
  token.checkCredential();
  return new Uint8Array();
}

function end(): void {
  token?.close();
  process.exit();
}
