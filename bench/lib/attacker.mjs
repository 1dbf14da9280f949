// A process of attackers: `node attacker.mjs`, forked. It receives `{ name, url, attackers }` and attacks
// until it is stopped.

import { setMaxListeners } from 'node:events';
import { setPriority } from 'node:os';
import { ATTACKS } from './attacks.mjs';

setPriority(10);
const stop = new AbortController();
setMaxListeners(0, stop.signal);
process.on('message', (message) => {
  if (message === 'stop') {
    stop.abort();
    return;
  }
  const { name, url, attackers } = message;
  const all = attackers.map((attacker) => ATTACKS[name]({ ...attacker, url, signal: stop.signal }));
  void Promise.all(all).finally(() => process.disconnect());
});
