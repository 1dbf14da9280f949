/** Present names of variables by their former ones, which stop the start when they are set. */
export const RENAMED_VARIABLES: Readonly<Record<string, string>> = {
  BUNDOC_POSTGRES_IDLE_TIMEOUT_MS: 'BUNDOC_POSTGRES_IDLE_IN_TRANSACTION_TIMEOUT_MS',
};
