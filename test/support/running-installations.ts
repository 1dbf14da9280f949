/**
 * Installations whose Bundoc runs. This module does not import the services, because every test file loads it
 * first, and a test may mock one of their modules.
 */
export const runningInstallations = new Set<{ held(): Record<string, number> }>();
