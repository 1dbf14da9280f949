import type { Work } from './work.ts';

/** Characters compared before other work gets its turn; each comparison counts for some. */
const STEP_CHARACTERS = 262_144;
const COMPARISON_CHARACTERS = 16;

/** Sorts texts unit by unit with a merge sort that yields between its steps. */
export async function sortInSteps(texts: readonly string[], work: Work): Promise<string[]> {
  let from = [...texts];
  let spent = 0;
  for (let width = 1; width < from.length; width *= 2) {
    const merged: string[] = [];
    for (let start = 0; start < from.length; start += 2 * width) {
      const middle = Math.min(start + width, from.length);
      const end = Math.min(start + 2 * width, from.length);
      let [left, right] = [start, middle];
      while (left < middle || right < end) {
        const [a, b] = [from[left] as string, from[right] as string];
        const isLeft = right >= end || (left < middle && a <= b);
        merged.push(isLeft ? a : b);
        if (isLeft) left++;
        else right++;
        spent += COMPARISON_CHARACTERS + Math.min(a?.length ?? 0, b?.length ?? 0);
        if (spent < STEP_CHARACTERS) continue;
        spent = 0;
        const turn = work.pause();
        if (turn !== undefined) await turn;
      }
    }
    from = merged;
  }
  return from;
}
