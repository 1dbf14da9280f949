/**
 * Time to decrypt or copy sealed bytes on the event loop's thread, microseconds a byte. AES-GCM with 256 bits
 * takes 0.3 ms a MiB, and each copy as much, on a machine of 2024.
 */
const US_OF_BYTE = 300 / 1_048_576;

/**
 * Estimated processor time of decrypting documents that were awaited: they are decrypted on arrival, between
 * the slices. Estimated from their bytes, because the engines do not measure it.
 *
 * @param copies number of additional copies.
 */
export function openingUs(bytes: number, copies = 0): number {
  return bytes * US_OF_BYTE * (1 + copies);
}
