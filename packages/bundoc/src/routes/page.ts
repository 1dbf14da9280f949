/** Sealed bytes after which a page of documents ends. */
export const PAGE_BYTES_MAX = 16_777_216;
