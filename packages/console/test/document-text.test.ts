import { describe, expect, it } from 'vitest';
import { faultOfText } from '../src/bundoc/document-text.ts';

describe('the fault of a text in the editor', () => {
  it.each([
    ['{"a":1}', undefined],
    ['[]', 'A document must be a JSON object.'],
    ['{"a":NaN}', 'Invalid JSON: line 1, column 6: JSON has no NaN and no Infinity; write null or a string.'],
    ['{"a":1,\n}', 'Invalid JSON: line 2, column 1: no comma may follow the last item.'],
    ['{"a":', 'Invalid JSON: line 1, column 6: the text ends too early.'],
  ])('of %j says where it is and what JSON wants', (text, fault) => {
    expect(faultOfText(text)).toBe(fault);
  });
});
