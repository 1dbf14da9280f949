// Imported before everything else: libuv reads it at the first use of its pool. With Node's four threads,
// reads of documents and openings of projects would wait for each other and for the syncs of checkpoints.
process.env['UV_THREADPOOL_SIZE'] ||= '16';
