// Imported before everything else: libuv reads this when its pool is first used. With Node's four threads the journals of
// many projects, whose `fdatasync` each takes one, wait for each other and for file reads.
process.env['UV_THREADPOOL_SIZE'] ||= '16';
