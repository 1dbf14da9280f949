import { useState } from 'preact/hooks';
import { TextFrame } from '../parts/basics.tsx';
import { count } from '../parts/format.ts';

/** Characters of a slice: small enough to render at once on any machine. */
const SLICE = 32_768;

/** A long text in slices. */
export function LargeText({ text }: { readonly text: string }) {
  const [at, setAt] = useState(0);
  const slices = Math.ceil(text.length / SLICE);
  return (
    <>
      <div class="pager">
        <button type="button" disabled={at === 0} onClick={() => setAt(at - 1)}>
          Previous slice
        </button>
        <button type="button" disabled={at === slices - 1} onClick={() => setAt(at + 1)}>
          Next slice
        </button>
        <label class="slice">
          Slice{' '}
          <input
            type="number"
            min={1}
            max={slices}
            value={at + 1}
            onChange={(event) => {
              const wanted = event.currentTarget.valueAsNumber;
              if (Number.isInteger(wanted)) setAt(Math.min(slices, Math.max(1, wanted)) - 1);
            }}
          />{' '}
          of {count(slices)}
        </label>
      </div>
      <TextFrame label="A slice of the text" text={text.slice(at * SLICE, (at + 1) * SLICE)} />
    </>
  );
}
