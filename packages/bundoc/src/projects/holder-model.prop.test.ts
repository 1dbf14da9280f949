import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type Copy, type Fate, Violation } from '../testing/holder-copy.ts';
import { World } from '../testing/holder-model.ts';
import { RULES, type Rules } from '../testing/holder-state.ts';

const fate: fc.Arbitrary<Fate> = fc.oneof(
  { weight: 6, arbitrary: fc.constant<Fate>('answered') },
  { weight: 3, arbitrary: fc.constantFrom<Fate>('request lost', 'answer lost', 'late', 'doubled') },
);
const index = fc.nat(4);
const step = fc.oneof(
  { weight: 8, arbitrary: fc.tuple(fc.constant('proceed' as const), index, index, fate) },
  { weight: 8, arbitrary: fc.tuple(fc.constant('proceedMove' as const), index, index, fate) },
  { weight: 4, arbitrary: fc.tuple(fc.constant('write' as const), index, index, fate) },
  {
    weight: 3,
    arbitrary: fc.tuple(fc.constantFrom('deliver', 'start', 'sweep' as const), index, index, fate),
  },
  {
    weight: 2,
    arbitrary: fc.tuple(
      fc.constantFrom(
        ...([
          'crash',
          'clone',
          'tick',
          'delete',
          'takeOverStorage',
          'takeOverKey',
          'takeBackDeletion',
        ] as const),
        ...(['backUpKms', 'restoreKms'] as const),
      ),
      index,
      index,
      fate,
    ),
  },
);
type Step = typeof step extends fc.Arbitrary<infer S> ? S : never;

function take(world: World, [action, first, second, how]: Step): void {
  const copy = world.copy(first);
  switch (action) {
    case 'proceed':
    case 'sweep':
      world[action](copy, how);
      break;
    case 'proceedMove':
      world.proceedMove(copy, world.copy(second), how);
      break;
    case 'write':
    case 'delete':
    case 'start':
    case 'clone':
    case 'takeOverStorage':
      world[action](copy);
      break;
    case 'takeOverKey':
      world.takeOverKey(copy, how !== 'answered');
      break;
    case 'crash':
      copy.crash();
      break;
    case 'deliver':
      world.deliver(first);
      break;
    case 'tick':
      world.tick(1 + first * 3);
      break;
    default:
      world[action]();
  }
  world.requireWhole();
}

/** Both storages are running and the project has a write. */
function began(rules: Rules): World {
  const world = new World(rules);
  for (const copy of [world.copy(0), world.copy(1)]) {
    world.start(copy);
    world.proceed(copy, 'answered');
  }
  const source = world.copy(0);
  proceed(world, source, 2);
  world.write(source);
  return world;
}

function proceed(world: World, copy: Copy, times = 1): void {
  for (let n = 0; n < times; n++) world.proceed(copy, 'answered');
}

/** All messages arrive, and BunKMS answers: every interrupted operation must end. */
function end(world: World): void {
  for (let n = 0; n < 40; n++) world.deliver(0);
  for (let n = 0; n < 30; n++) {
    for (const copy of world.copies) {
      if (world.isCurrent(copy)) world.start(copy);
      if (!world.isCurrent(copy)) continue;
      if (copy.move !== undefined) world.proceedMove(copy, copy.move.target, 'answered');
      world.sweep(copy, 'answered');
      world.proceed(copy, 'answered');
    }
    world.resolve();
    world.requireWhole();
  }
}

function requireEnd(rules: Rules, steps: readonly Step[]): void {
  const world = began(rules);
  for (const one of steps) take(world, one);
  end(world);
  if (world.keyState === 'enabled' && world.kept.size > 0) world.requireServed();
  else if (world.keyState === 'intended') throw new Violation('a deletion does not end');
}

const RUNS = Number(process.env['MODEL_RUNS'] ?? 60_000);

describe('a project of two storages and BunKMS, with lost, late and duplicate messages, crashes and older copies', () => {
  it('is written only by its holder, loses nothing, is destroyed only on request, and ends complete in one place', () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60, size: 'max' }), (steps) => requireEnd(RULES, steps)),
      { numRuns: RUNS },
    );
  });

  const move = (how: Fate, from = 0): Step => ['proceedMove', from, 1 - from, how];
  const moves = (times: number, from = 0): Step[] =>
    Array.from({ length: times }, () => move('answered', from));
  /** Up to the complete copy at the target, without the offer. */
  const untilWhole = (from = 0) => moves(4, from);
  const on = (action: 'clone' | 'start' | 'write' | 'takeOverStorage' | 'delete', copy: number): Step => [
    action,
    copy,
    0,
    'answered',
  ];
  const go = (copy: number, how: Fate = 'answered'): Step => ['proceed', copy, 0, how];
  const takeBack: Step = ['takeBackDeletion', 0, 0, 'answered'];

  it.each<[rule: keyof Rules, name: string, steps: Step[]]>([
    [
      'offersEndWithGeneration',
      'an older copy of the source starts and serves while the offer of its original stands',
      [
        on('clone', 0),
        ...untilWhole(),
        on('start', 2),
        move('answered'),
        go(2),
        go(2),
        on('write', 2),
      ].concat(moves(1)),
    ],
    [
      'doubtAdvances',
      'the source withdraws and serves, and then an earlier try of its offer arrives',
      [...untilWhole(), move('doubled'), move('late'), move('answered'), on('write', 0)],
    ],
    [
      'moverStartsTarget',
      'the project moves away and back, and then earlier tries of the first offer and its acceptance arrive',
      [...untilWhole(), move('doubled'), move('doubled'), move('answered'), go(1), ...moves(8, 1), go(0)],
    ],
    [
      'moverStartsTarget',
      'the project moves into a stopped copy of the target',
      [on('clone', 1), ...Array.from({ length: 8 }, (): Step => ['proceedMove', 0, 2, 'answered'])],
    ],
    [
      'targetKeepsWhole',
      'the target gives up what is whole while its acceptance is on its way',
      [...untilWhole(), go(1, 'doubled'), move('answered')],
    ],
    [
      'callsNameGeneration',
      'a deletion is answered as refused, and then its intent arrives',
      [on('delete', 0), go(0, 'late'), go(0)],
    ],
    [
      'intentIsTriedOnce',
      'an administrator takes a deletion back, and then an earlier try of its intent arrives',
      [on('delete', 0), go(0, 'doubled'), takeBack],
    ],
    [
      'takeOverWaits',
      'an administrator lets a copy take over while the original still has its lease',
      [on('clone', 0), on('start', 2), on('takeOverStorage', 2), on('write', 0)],
    ],
  ])('needs the rule %s: %s', (rule, _name, steps) => {
    expect(() => requireEnd({ ...RULES, [rule]: false }, steps)).toThrow(Violation);
    expect(() => requireEnd(RULES, steps)).not.toThrow();
  });
});
