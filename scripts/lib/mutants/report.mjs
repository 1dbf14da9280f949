import unchanged from './unchanged.json' with { type: 'json' };

/**
 * The known reason why a mutant has no observable effect; undefined without one.
 * @param {Pick<import('./make.mjs').Mutant, 'file' | 'lineText' | 'before' | 'after'>} mutant
 * @param {readonly { file: string, line: string, before: string, after: string, reason: string }[]} known
 */
export function reasonOf({ file, lineText, before, after }, known = unchanged) {
  return known.find(
    (one) => one.file === file && one.line === lineText && one.before === before && one.after === after,
  )?.reason;
}

/**
 * @param {readonly { mutant: Mutant, verdict: { caught: boolean, reason?: string } }[]} verdicts
 * @typedef {import('./make.mjs').Mutant} Mutant
 */
export function countVerdicts(verdicts) {
  const caught = verdicts.filter(({ verdict }) => verdict.caught).length;
  const unchanged = verdicts.filter(({ verdict }) => verdict.reason !== undefined).length;
  const survivors = verdicts
    .filter(({ verdict }) => !verdict.caught && verdict.reason === undefined)
    .map(({ mutant }) => mutant);
  const changing = verdicts.length - unchanged;
  return { caught, unchanged, survivors, percent: changing === 0 ? 100 : (100 * caught) / changing };
}
