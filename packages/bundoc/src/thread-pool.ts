// Imported before everything else: libuv reads this when its pool is first used. With Node's four threads,
// reads of
// documents and openings of projects wait for each other and for the syncs of checkpoints.
process.env['UV_THREADPOOL_SIZE'] ||= '16';
