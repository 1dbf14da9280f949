/**
 * How long a test of behaviour waits before it calls something failed, milliseconds: a disk that other tests
 * keep busy may stall for seconds. Tests of faults pass deadlines of their own.
 */
export const PATIENT_MS = 40_000;
