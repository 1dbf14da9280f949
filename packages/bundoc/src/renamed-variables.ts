/** Current names of variables by their former names; setting a former one prevents the start. */
export const RENAMED_VARIABLES: Readonly<Record<string, string>> = {
  BUNDOC_POSTGRES_IDLE_TIMEOUT_MS: 'BUNDOC_POSTGRES_IDLE_IN_TRANSACTION_TIMEOUT_MS',
};
