import { expect, it } from 'vitest';
import { ConnectionTurns } from './connection-turns.ts';

/** Turns of an event loop by hand, and the order in which connections began. */
function start() {
  const begun: string[] = [];
  let ends: (() => void)[] = [];
  let nowMs = 0;
  const turns = new ConnectionTurns<string>({
    begin: (connection) => begun.push(connection),
    nowMs: () => nowMs,
    endOfTurn: (run) => ends.push(run),
  });
  /** One turn of a millisecond, in which a connection arrives or none does. */
  const turn = (address?: string, connection = address ?? '') => {
    if (address !== undefined) turns.add(address, connection);
    nowMs++;
    const all = ends;
    ends = [];
    for (const run of all) run();
  };
  return { turns, begun, turn, isIdle: () => ends.length === 0 };
}

it('begins a connection at once while no others arrive, and then asks for no further turns', () => {
  const { turns, begun, turn, isIdle } = start();
  turns.add('a', 'one');
  expect(begun).toEqual(['one']);
  turn();
  turn();
  expect(isIdle()).toBe(true);
  turns.add('a', 'two');
  expect(begun).toEqual(['one', 'two']);
});

it('reads none of many connections that arrive one after the other before all were accepted', () => {
  const { turns, begun, turn } = start();
  for (let n = 0; n < 8; n++) turn('a', `${n}`);
  expect([begun, turns.waiting]).toEqual([['0'], 7]);
  turn();
  turn();
  expect(begun).toEqual(['0', '1', '2', '3', '4', '5', '6', '7']);
});

it('lets addresses take turns, so that one connection does not wait for all that were opened before it', () => {
  const { begun, turn } = start();
  for (let n = 0; n < 7; n++) turn('flood', `flood ${n}`);
  turn('neighbour');
  turn();
  expect(begun.slice(0, 4)).toEqual(['flood 0', 'flood 1', 'neighbour', 'flood 2']);
});

it('begins connections also during an endless flood of others', () => {
  const { turns, begun, turn } = start();
  let accepted = 0;
  for (; accepted < 300; accepted++) turn('flood', `${accepted}`);
  expect(turns.waiting).toBe(accepted - begun.length);
  // A third of the time, up to four in each turn.
  expect(begun.length).toBeGreaterThan(250);
});

it('never begins a connection that has closed, and begins all others in the end', () => {
  const { turns, begun, turn, isIdle } = start();
  for (let n = 0; n < 6; n++) turn('a', `${n}`);
  turns.remove('a', '3');
  turns.remove('a', '0');
  turns.remove('b', '1');
  while (!isIdle()) turn();
  expect([begun, turns.waiting]).toEqual([['0', '1', '2', '4', '5'], 0]);
});
