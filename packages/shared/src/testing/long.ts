/**
 * Whether this is `npm run test:long`, which sets `LONG_TESTS=1`. Each test that `npm test` shortens, to end
 * within its time on a machine of two cores, has its full form here.
 */
export const LONG = process.env['LONG_TESTS'] === '1';

/** How many runs, seeds or items a test takes: `short` in `npm test`, `long` in `npm run test:long`. */
export function runs(short: number, long: number): number {
  return LONG ? long : short;
}
