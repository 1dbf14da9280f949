import { Decimal } from '@bundoc/shared/json/decimal';
import { isArray, isObject, type Value } from './value.ts';

/** A value as JSON, with exact numbers. */
export function writeValue(value: Value): string {
  if (value instanceof Decimal) return writeDecimal(value);
  if (isArray(value)) return `[${value.map(writeValue).join(',')}]`;
  if (!isObject(value)) return JSON.stringify(value);
  const members = Object.entries(value).map(
    ([name, member]) => `${JSON.stringify(name)}:${writeValue(member)}`,
  );
  return `{${members.join(',')}}`;
}

/** In full if that is short, otherwise with an exponent. */
function writeDecimal({ negative, digits, point }: Decimal): string {
  const sign = negative ? '-' : '';
  if (point > 0 && point <= 40 && digits.length <= point) return `${sign}${digits.padEnd(point, '0')}`;
  if (point > 0 && digits.length > point) return `${sign}${digits.slice(0, point)}.${digits.slice(point)}`;
  if (point <= 0 && point > -10) return `${sign}0.${'0'.repeat(-point)}${digits}`;
  const rest = digits.slice(1);
  return `${sign}${digits[0]}${rest === '' ? '' : `.${rest}`}e${point - 1}`;
}
