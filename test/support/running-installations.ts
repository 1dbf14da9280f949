/**
 * Installations whose Bundoc runs. Without an import of the services: every test file loads it first, and a
 * test may replace a module of theirs.
 */
export const runningInstallations = new Set<{ held(): Record<string, number> }>();
