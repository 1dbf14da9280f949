// Attackers in a process of their own: `node attacker.mjs`, forked. Told `{ name, url, attackers }`, it
// attacks until it must stop.

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
