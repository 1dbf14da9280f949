import { autocompletion, completionKeymap } from '@codemirror/autocomplete';
import type { Extension } from '@codemirror/state';
import { keymap } from '@codemirror/view';

/** A completion inside quotes. */
export interface Word {
  readonly label: string;
  readonly detail: string;
}

/** Offers words after a typed quote. */
export function completing(words: readonly Word[]): Extension {
  const options = words.map(({ label, detail }) => ({ label, detail, type: 'keyword' }));
  return [
    autocompletion({
      override: [
        (context) => {
          const word = context.matchBefore(/"?\$?\w*/);
          if (word === null || (!word.text.startsWith('"') && !context.explicit)) return null;
          return { from: word.from, options };
        },
      ],
    }),
    keymap.of(completionKeymap),
  ];
}
