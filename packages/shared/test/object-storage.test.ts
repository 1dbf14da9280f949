import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { openObjectStorage } from '../src/object-storage/open.ts';
import { systemClock } from '../src/runtime/clock.ts';
import { conformsToPort } from './object-storage-conformance.ts';

conformsToPort('of a folder', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'object-storage-'));
  const options = { variable: 'BUNDOC_ARCHIVE', clock: systemClock };
  return {
    open: (place) => openObjectStorage(place === 'absent' ? join(folder, 'none') : folder, options),
    [Symbol.asyncDispose]: () => rm(folder, { recursive: true }),
  };
});
