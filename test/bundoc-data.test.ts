import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, existsSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { Bundoc } from '@bundoc/client';
import { spawnNode } from '@bundoc/shared/testing/node-process';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { bundocCommand, bundocProcess } from './support/bundoc-command.ts';
import { Installation } from './support/installation.ts';

const MAIN = fileURLToPath(new URL('../packages/bundoc/src/cli/main.ts', import.meta.url));

let installation: Installation;
let token: string;
let client: Bundoc;
beforeAll(async () => {
  installation = await Installation.start({ isOnFiles: true });
  token = await installation.client();
  client = new Bundoc({ url: installation.url, token });
});
afterAll(() => installation[Symbol.asyncDispose]());

const file = (name: string) => join(installation.folder, name);
function written(name: string, content: string): string {
  writeFileSync(file(name), content);
  return file(name);
}
/** Of shells, whose commands use the compile cache as well. */
const { PATH, NODE_COMPILE_CACHE } = process.env;
const environment = () => ({ BUNDOC_URL: installation.url, BUNDOC_TOKEN: token });
const bundoc = (...args: string[]) => bundocCommand(environment(), args);
const linesOf = (text: string) => text.split('\n').filter((line) => line !== '');

/** What a command prints on a terminal: a pseudo-terminal of util-linux. */
async function onTerminal(...args: string[]): Promise<string> {
  const quote = (word: string) => `'${word}'`;
  const command = [process.execPath, '--conditions=@bundoc/source', MAIN, ...args].map(quote).join(' ');
  const { stdout } = await promisify(execFile)('script', ['-qefc', `stty cols 60; ${command}`, '/dev/null'], {
    env: { PATH, NODE_COMPILE_CACHE, TERM: 'dumb', ...environment() },
  });
  return stdout.replaceAll('\r\n', '\n');
}

describe('bundoc update-where and delete-where', () => {
  const raise = () => written('raise.json', '{"$inc":{"n":0.10}}');
  const where = ['--where', '{"n":{"$lt":30}}'];

  it('write what matches in batches, and print the counts', async () => {
    const notes = client.project('by-query').collection('notes');
    for (let n = 0; n < 40; n++) await notes.put(`d${n}`, { n });
    const asked = ['by-query', 'notes', ...where, '--limit', '8'];
    const dry = await bundoc('update-where', 'by-query', 'notes', raise(), ...where, '--dry-run', '--json');
    expect(dry.code).toBe(0);
    expect(JSON.parse(dry.stdout)).toMatchObject({ matched: 30, written: 30, dry_run: true });
    const key = ['--key', 'run-1', '--confirm', 'notes', '--json'];
    for (let runs = 0; runs < 2; runs++) {
      const changed = await bundoc('update-where', 'by-query', 'notes', raise(), ...asked.slice(2), ...key);
      expect([changed.code, JSON.parse(changed.stdout)]).toMatchObject([0, { matched: 30, written: 30 }]);
    }
    expect((await notes.get('d7'))?.text).toContain('"n":7.10');
    const deleted = await bundoc('delete-where', ...asked, '--confirm', 'notes', '--json');
    expect(JSON.parse(deleted.stdout)).toMatchObject({ matched: 30, written: 30, dry_run: false });
    expect(await notes.count()).toBe(10);
    const shown = await onTerminal('delete-where', 'by-query', 'notes', '--where', '{}', '--dry-run');
    expect(shown).toContain('would write 10 documents of 10 that matched\nd30\nd31');
  });

  it('need a condition and a confirmation, and write nothing without', async () => {
    const refused = async (said: string, ...args: string[]) => {
      const { code, stderr } = await bundoc(...args);
      expect([code, stderr]).toEqual([2, expect.stringContaining(said)]);
    };
    await refused(
      '--confirm must repeat the name notes',
      'delete-where',
      'by-query',
      'notes',
      '--where',
      '{}',
    );
    await refused('--where', 'delete-where', 'by-query', 'notes', '--confirm', 'notes');
    await refused('is not JSON', 'delete-where', 'by-query', 'notes', '--where', '{', '--dry-run');
    expect(await client.project('by-query').collection('notes').count()).toBe(10);
  });

  it('name the key that continues an interrupted run', async () => {
    const notes = client.project('by-query').collection('notes');
    await notes.put('text', { n: 'text' });
    const all = ['update-where', 'by-query', 'notes', raise(), '--where', '{}', '--confirm', 'notes'];
    const stopped = await bundoc(...all, '--limit', '4');
    expect([stopped.code, stopped.stderr]).toEqual([2, expect.stringContaining('the document "text"')]);
    const key = String(/--key (\w+)/.exec(stopped.stderr)?.[1]);
    await notes.put('text', { n: 1 });
    const rest = await bundoc(...all, '--limit', '4', '--key', key, '--json');
    expect([rest.code, JSON.parse(rest.stdout)]).toMatchObject([0, { matched: 11, written: 11 }]);
    expect((await notes.get('d30'))?.text).toContain('"n":30.10');
    expect((await notes.get('text'))?.text).toContain('"n":1.10');
  });
});

describe('bundoc put, get, patch and delete', () => {
  const TEXT = '{ "amount": 12345678901234567890.10,\n  "é": "\\u00e9",  "list": [1.0, 1e2] }';

  it('write and read the text of a document byte for byte', async () => {
    const put = await bundoc('put', 'exact', 'notes', 'one', written('one.json', TEXT));
    expect([put.code, JSON.parse(put.stdout)]).toMatchObject([0, { _id: 'one', _collection: 'notes' }]);
    const content = await bundoc('get', 'exact', 'notes', 'one', '--content');
    expect([content.code, content.stdout, content.stderr]).toEqual([0, TEXT, '']);
    const whole = await bundoc('get', 'exact', 'notes', 'one');
    expect(whole.stdout).toBe((await client.project('exact').collection('notes').get('one'))?.text);
  });

  it('write back a document that they have read, unless it has changed since', async () => {
    const read = await bundoc('get', 'exact', 'notes', 'one');
    expect(
      (await bundocProcess(environment(), ['put', 'exact', 'notes', 'one', '-'], read.stdout)).code,
    ).toBe(0);
    const stale = await bundocProcess(environment(), ['put', 'exact', 'notes', 'one', '-'], read.stdout);
    expect([stale.code, stale.stderr]).toEqual([2, expect.stringContaining('precondition_failed')]);
    expect((await bundoc('get', 'exact', 'notes', 'one', '--content')).stdout).toBe(TEXT);
  });

  it('create a document only if none exists, or under a new id', async () => {
    const path = written('new.json', '{"n":1}');
    expect((await bundoc('put', 'exact', 'notes', 'one', path, '--if-none-match')).code).toBe(2);
    const created = await bundoc('create', 'exact', 'notes', path);
    const { _id: id } = JSON.parse(created.stdout) as { _id: string };
    expect((await bundoc('get', 'exact', 'notes', id, '--content')).stdout).toBe('{"n":1}');
  });

  it('write a member with the name of an operator of MongoDB, and say that it is one', async () => {
    await bundoc('put', 'exact', 'notes', 'set', written('set.json', '{"n":1}'));
    const patched = await bundoc('patch', 'exact', 'notes', 'set', written('set.json', '{"$set":{"n":2}}'));
    expect(patched).toMatchObject({ code: 0, stderr: expect.stringContaining('$set is no operator here') });
    const content = await bundoc('get', 'exact', 'notes', 'set', '--content');
    expect(JSON.parse(content.stdout)).toEqual({ n: 1, $set: { n: 2 } });
  });

  it('update by operators, with exact decimals and only of the revision that is given', async () => {
    const { stdout } = await bundoc(
      'put',
      'exact',
      'notes',
      'up',
      written('up.json', '{ "n":1.10, "a":[] }'),
    );
    const { _rev: rev } = JSON.parse(stdout) as { _rev: string };
    const update = written('update.json', '{"$inc":{"n":0.1},"$push":{"a":"x"}}');
    const updated = await bundoc('update', 'exact', 'notes', 'up', update, '--if-match', rev);
    expect(updated).toMatchObject({ code: 0, stderr: '' });
    expect(JSON.parse(updated.stdout)).toMatchObject({ _id: 'up', _rev: expect.not.stringMatching(rev) });
    const content = await bundoc('get', 'exact', 'notes', 'up', '--content');
    expect(content.stdout).toBe('{ "n":1.20, "a":["x"] }');
    const stale = await bundoc('update', 'exact', 'notes', 'up', update, '--if-match', rev);
    expect([stale.code, stale.stderr]).toEqual([2, expect.stringContaining('precondition_failed')]);
    const wrong = await bundoc('update', 'exact', 'notes', 'up', written('wrong.json', '{"$incr":{"n":1}}'));
    expect([wrong.code, wrong.stderr]).toEqual([
      2,
      expect.stringContaining('body $incr (did you mean $inc?): unknown; known are $set, '),
    ]);
  });

  it('patch with an object or an array, and keep numbers as they are written', async () => {
    const merge = written('merge.json', '{"amount": 1.10}');
    expect(await bundoc('patch', 'exact', 'notes', 'one', merge)).toMatchObject({ code: 0, stderr: '' });
    const patch = written('patch.json', ' [{"op":"add","path":"/more","value":2.50}]');
    expect((await bundoc('patch', 'exact', 'notes', 'one', patch)).code).toBe(0);
    const { stdout } = await bundoc('get', 'exact', 'notes', 'one', '--content');
    expect(stdout).toContain('1.10');
    expect(stdout).toMatch(/"more": ?2\.50/);
  });

  it('exit with code 1 when the document does not exist, and with code 2 for input that is not text', async () => {
    expect(await bundoc('delete', 'exact', 'notes', 'one')).toEqual({ code: 0, stdout: '', stderr: '' });
    for (const command of ['get', 'delete']) {
      const { code, stdout, stderr } = await bundoc(command, 'exact', 'notes', 'one');
      expect([code, stdout, stderr]).toEqual([1, '', 'bundoc: there is no document "one" in notes\n']);
      const unmade = await bundoc(command, 'unmade', 'notes', 'one');
      expect([unmade.code, unmade.stderr]).toEqual([
        1,
        'bundoc: there is no project unmade at this service\n',
      ]);
    }
    writeFileSync(file('bad.json'), Buffer.from([0x7b, 0xff, 0x7d]));
    for (const [path, reason] of [
      [file('none.json'), 'there is no file at'],
      [file('bad.json'), 'is not UTF-8'],
      [installation.folder, 'is a folder'],
    ] as const)
      expect(await bundoc('put', 'exact', 'notes', 'x', path)).toMatchObject({
        code: 2,
        stderr: expect.stringContaining(reason),
      });
  });
});

it('A command without a token in its variables, or with a file that has none, says so and asks nothing', async () => {
  const configHome = { XDG_CONFIG_HOME: file('no-config') };
  const url = { BUNDOC_URL: installation.url };
  const blank = await bundocCommand({ ...url, ...configHome, BUNDOC_TOKEN: ' ' }, ['projects']);
  expect([blank.code, blank.stderr]).toEqual([2, expect.stringContaining('a token is needed: ')]);
  for (const content of ['\n', '# A title\n', 'Bearer e30.e30.x\n']) {
    const path = written('no-token', content);
    const refused = await bundocCommand(url, ['projects', '--token-file', path]);
    expect([refused.code, refused.stderr]).toEqual([
      2,
      `bundoc: ${path} has no token in it: a token is one word, without "Bearer"\n`,
    ]);
  }
});

describe('bundoc query, changes, collections and projects', () => {
  beforeAll(async () => {
    const notes = client.project('lists').collection('notes');
    for (let n = 1; n <= 5; n++) await notes.put(`n${n}`, { n, text: 'a\nb' });
    await client.project('lists').collection('other').put('o', { big: 1 });
  });

  it('print NDJSON, or the names of projects alone, when the output is not a terminal', async () => {
    const found = await bundoc('query', 'lists', 'notes', '--where', '{"n":{"$gte":3}}', '--order', 'n:desc');
    expect(linesOf(found.stdout).map((line) => JSON.parse(line)._id)).toEqual(['n5', 'n4', 'n3']);
    const some = await bundoc('query', 'lists', 'notes', '--limit', '2', '--fields', 'n');
    expect(linesOf(some.stdout).map((line) => JSON.parse(line).text)).toEqual([undefined, undefined]);
    // The first page reads one document more than it gives.
    const asked = await bundoc('query', 'lists', 'notes', '--explain', '--limit', '2');
    expect(JSON.parse(asked.stderr.split('\n')[0] ?? '')).toMatchObject({ documents_scanned: 3 });
    expect(some.stderr).toBe('bundoc: there are more than 2 documents: raise --limit\n');
    expect((await bundoc('query', 'lists', 'notes', '--count', '--where', '{"n":1}')).stdout).toBe('1\n');
    for (const unused of [
      ['--fields', 'n'],
      ['--order', 'n'],
      ['--limit', '1'],
    ])
      expect(await bundoc('query', 'lists', 'notes', '--count', ...unused)).toMatchObject({
        code: 2,
        stderr: expect.stringContaining(`cannot be used with option '${unused[0]}`),
      });
    const descending = await bundoc('query', 'lists', 'notes', '--order', '-n');
    expect([descending.code, descending.stderr]).toEqual([2, expect.stringContaining('field:desc')]);
    const collections = await bundoc('collections', 'lists');
    expect(linesOf(collections.stdout).map((line) => JSON.parse(line))).toMatchObject([
      { name: 'notes', documents: 5, defined: false },
      { name: 'other', documents: 1 },
    ]);
    expect(JSON.parse((await bundoc('collections', 'lists', 'notes')).stdout)).toMatchObject({
      name: 'notes',
    });
    expect(linesOf((await bundoc('projects')).stdout)).toContain('lists');
    const projects = linesOf((await bundoc('projects', '--json')).stdout).map((line) => JSON.parse(line));
    expect(projects).toContainEqual(expect.objectContaining({ project: 'lists', documents: 6, open: true }));
    expect(JSON.parse((await bundoc('projects', 'lists')).stdout)).toMatchObject({ documents: 6 });
  });

  it('print figures by group, exactly, and refuse what is none', async () => {
    const sales = client.project('figures').collection('sales');
    for (let n = 1; n <= 4; n++)
      await sales.put(`s${n}`, { country: n < 4 ? 'fr' : 'de', amount: 0.1, 'of.': n });
    const asked = (...more: string[]) => bundoc('aggregate', 'figures', 'sales', ...more);
    const figures = ['--figure', 'total=sum:amount', '--figure', 'half=percentile:amount:50'];
    const found = await asked(...figures, '--figure', 'n=count', '--group-by', 'country');
    expect(linesOf(found.stdout)).toEqual([
      '{"group":{"country":"de"},"figures":{"total":0.1,"half":0.1,"n":1}}',
      '{"group":{"country":"fr"},"figures":{"total":0.3,"half":0.1,"n":3}}',
    ]);
    const having = ['--group-by', 'country', '--having', '{"total":{"$gt":0.2}}'];
    expect(linesOf((await asked(...figures, ...having)).stdout)).toHaveLength(1);
    const some = await asked(...figures, '--where', '{"country":"de"}');
    expect(JSON.parse(some.stdout)).toMatchObject({ group: {}, figures: { total: 0.1 } });
    for (const wrong of [
      'n',
      'n=counted',
      'n=count:amount',
      'n=sum',
      'n=percentile:amount',
      'n=sum:amount:5',
    ])
      expect(await asked('--figure', wrong)).toMatchObject({
        code: 2,
        stderr: expect.stringContaining('name=percentile:field:percent'),
      });
    const twice = await asked('--figure', 'n=count', '--figure', 'n=sum:amount');
    expect([twice.code, twice.stderr]).toEqual([2, expect.stringContaining('a name of its own')]);
    expect(await asked()).toMatchObject({ code: 2, stderr: expect.stringContaining('--figure') });
    const over = await asked('--figure', 'n=percentile:amount:101');
    expect([over.code, over.stderr]).toEqual([2, expect.stringContaining('percent')]);
  });

  it('say on standard error alone that a collection without documents does not exist', async () => {
    for (const more of [[], ['--json'], ['--count']]) {
      const found = await bundoc('query', 'lists', 'note', ...more);
      expect([found.code, found.stdout]).toEqual([0, more[0] === '--count' ? '0\n' : '']);
      expect(found.stderr).toBe(
        'bundoc: there is no collection note in lists: "bundoc collections lists" lists those that are there\n',
      );
    }
    const none = await bundoc('query', 'lists', 'notes', '--where', '{"n":9}');
    expect(none).toEqual({ code: 0, stdout: '', stderr: '' });
  });

  it('query numbers that no double can hold, and print each document on one line with its exact numbers', async () => {
    const text = '{\n "n": 12345678901234567890.5 }';
    await bundoc('put', 'lists', 'exact', 'e', written('e.json', text));
    const condition = written('where.json', '{"n":12345678901234567890.5}');
    const found = await bundoc('query', 'lists', 'exact', '--where', `@${condition}`);
    expect(linesOf(found.stdout)).toHaveLength(1);
    expect(found.stdout).toContain(' "n": 12345678901234567890.5 }');
    const other = await bundoc('query', 'lists', 'exact', '--where', '{"n":12345678901234567890}');
    expect(other).toEqual({ code: 0, stdout: '', stderr: '' });
    const excess = await bundoc('query', 'lists', 'exact', '{"n":1}');
    expect([excess.code, excess.stderr]).toEqual([2, expect.stringContaining('condition goes into --where')]);
    const bad = await bundoc('query', 'lists', 'exact', '--where', '{n:1}');
    expect([bad.code, bad.stderr]).toEqual([
      2,
      expect.stringMatching(/^bundoc: --where is not JSON, such as \{"done":true\}: line 1, column \d+.*\n$/),
    ]);
  });

  it('print tables with a header on a terminal, no wider than the terminal and without control characters', async () => {
    await client
      .project('lists')
      .collection('wide')
      .put('w', { text: `\u009b2J${'x'.repeat(200)}` });
    const lines = linesOf(await onTerminal('query', 'lists', 'wide'));
    expect(lines[0]).toMatch(/^id +updated +document$/);
    expect(lines[1]).toMatch(/^w .*…$/);
    expect(Math.max(...lines.map((line) => line.length))).toBe(60);
    expect(await onTerminal('collections', 'lists')).toMatch(/^collection +documents +bytes +defined\n/);
    expect(await onTerminal('projects')).toMatch(/^project +documents +bytes +key +open\n(.*\n)*lists +\d+ /);
    const columns = linesOf(
      await onTerminal('query', 'lists', 'notes', '--order', 'n', '--fields', 'n,text,none'),
    );
    expect([columns[0], columns[1]]).toEqual([
      expect.stringMatching(/^id +n +text +none$/),
      expect.stringMatching(/^n1 +1 +a\\u000ab$/),
    ]);
    expect(await onTerminal('get', 'lists', 'wide', 'w')).toContain('\\u009b2J');
    expect(linesOf(await onTerminal('projects', '--json'))[0]).toMatch(/^\{"project":/);
  });

  it('print changes and the position to continue from', async () => {
    const first = await bundoc('changes', 'lists', '--collection', 'notes');
    expect(linesOf(first.stdout).map((line) => JSON.parse(line)._id)).toEqual(['n1', 'n2', 'n3', 'n4', 'n5']);
    const since = /--since (\S+)/.exec(first.stderr)?.[1] ?? '';
    await client.project('lists').collection('notes').delete('n1');
    const next = await bundoc('changes', 'lists', '--since', since, '--collection', 'notes', '--documents');
    expect(linesOf(next.stdout).map((line) => JSON.parse(line))).toMatchObject([
      { _id: 'n1', deleted: true },
    ]);
    const followed = bundoc('changes', 'lists', '--since', since, '--follow', '--documents', '--limit', '2');
    await client.project('lists').collection('notes').put('n6', { n: 6 });
    expect(linesOf((await followed).stdout).map((line) => JSON.parse(line))).toMatchObject([
      { _id: 'n1', deleted: true },
      { _id: 'n6', doc: { n: 6 } },
    ]);
  });

  it('follow changes until a signal stops them, with exit code 0', async () => {
    const child = spawnNode([MAIN, 'changes', 'lists', '--since', 'now', '--follow'], environment());
    let errors = '';
    child.stderr.on('data', (chunk) => {
      errors += String(chunk);
    });
    let isSeen = false;
    child.stdout.once('data', () => {
      isSeen = true;
    });
    // It sees writes only once it follows.
    await expect
      .poll(async () => {
        await client.project('lists').collection('notes').put('again', {});
        return isSeen;
      })
      .toBe(true);
    child.kill('SIGINT');
    expect([(await once(child, 'close'))[0], errors]).toEqual([0, expect.stringContaining('--since ')]);
  });

  it('exit silently when the reader closes the pipe', async () => {
    const notes = client.project('pipe').collection('notes');
    for (let n = 0; n < 40; n++) await notes.put(`n${n}`, { text: 'x'.repeat(10_000) });
    const command = `"${process.execPath}" --conditions=@bundoc/source "${MAIN}" query pipe notes | head -c 10; echo " \${PIPESTATUS[0]}"`;
    const env = { PATH, NODE_COMPILE_CACHE, ...environment() };
    const { stdout } = await promisify(execFile)('bash', ['-c', `${command} 2>&1`], { env });
    expect(stdout).toBe('{"_id":"n0 0\n');
  });
});

describe('bundoc login', () => {
  const config = () => file('config');
  const profiles = () => join(config(), 'bundoc', 'profiles.json');
  const asUser = (args: readonly string[], more: Record<string, string> = {}) =>
    bundocCommand({ XDG_CONFIG_HOME: config(), ...more }, args);
  const tokenFile = () => written('token', `${token}\n`);

  it('stores URL and token in a file that only the user can read, and commands use them', async () => {
    const refused = await asUser(['projects']);
    expect([refused.code, refused.stderr]).toEqual([2, expect.stringContaining('run "bundoc login"')]);
    const login = await asUser(['login', '--url', installation.url, '--token-file', tokenFile()]);
    expect([login.code, login.stdout, login.stderr]).toEqual([0, '', expect.stringContaining(profiles())]);
    expect(statSync(profiles()).mode & 0o777).toBe(0o600);
    expect(statSync(join(config(), 'bundoc')).mode & 0o777).toBe(0o700);
    expect((await asUser(['projects'])).code).toBe(0);
    const shown = await asUser(['token']);
    expect(shown.stdout).toMatch(/^may +docs:read: read documents, run queries and follow changes$/m);
    expect(shown.stdout).not.toContain(token);
  });

  it('reads the token from standard input, and stores a second profile next to the first', async () => {
    const made = await bundocProcess(
      { XDG_CONFIG_HOME: config(), NODE_ENV: 'test' },
      ['login', '--profile', 'second', '--url', `${installation.url}/`],
      token,
    );
    expect([made.code, made.stdout]).toEqual([0, '']);
    expect(Object.keys(JSON.parse(readFileSync(profiles(), 'utf8')).profiles)).toEqual(['default', 'second']);
    for (const use of [['--profile', 'second'], []])
      expect((await asUser(['projects', ...use], { BUNDOC_PROFILE: 'second' })).code).toBe(0);
    expect((await asUser(['projects', '--profile', 'third'])).stderr).toContain(
      'bundoc login --profile third',
    );
  });

  it('sends the token of a profile to no other service, and the environment takes precedence', async () => {
    const elsewhere = await asUser(['projects', '--url', 'http://127.0.0.1:1']);
    expect([elsewhere.code, elsewhere.stderr]).toEqual([
      2,
      expect.stringContaining('is for http://127.0.0.1'),
    ]);
    const wrong = await asUser(['projects'], { BUNDOC_URL: installation.url, BUNDOC_TOKEN: 'a.b.c' });
    expect([wrong.code, wrong.stderr]).toEqual([2, expect.stringMatching(/unauthenticated.*bundoc login/)]);
  });

  it('says what is wrong with a token that the service refuses, as far as the token says it', async () => {
    const expired = await installation.issue({
      sub: 'late',
      typ: 'client',
      scope: ['docs:read'],
      projects: ['p'],
      ttl_s: 1,
    });
    const projects = async (text: string) => {
      const asked = await asUser(['projects'], { BUNDOC_URL: installation.url, BUNDOC_TOKEN: text });
      expect(asked).toMatchObject({
        code: 2,
        stdout: '',
        stderr: expect.stringMatching(/^bundoc: unauth.*\n$/),
      });
      return asked.stderr;
    };
    expect(await projects('a.b.c')).toContain('that is no token: ');
    expect(await projects(readFileSync(installation.tokenFile, 'utf8').trim())).toContain('is for BunKMS');
    expect(await projects(`${token.slice(0, -8)}AAAAAAAA`)).toContain('required; "bundoc token"');
    const { exp } = JSON.parse(Buffer.from(String(expired.split('.')[1]), 'base64url').toString());
    await expect.poll(() => projects(expired)).toContain(`expired at ${new Date(exp * 1_000).toISOString()}`);
  });

  it('says when a variable has a token that commands use before the stored one', async () => {
    const args = ['login', '--url', installation.url, '--token-file', tokenFile()];
    const { code, stderr } = await asUser(args, { BUNDOC_TOKEN: 'a.b.c' });
    expect(code).toBe(0);
    expect(stderr).toContain('BUNDOC_TOKEN is set, and commands use it before the profile: unset it');
  });

  it('stores no token that the service refuses or that is for BunKMS', async () => {
    const before = readFileSync(profiles(), 'utf8');
    const revoked = `${token.slice(0, -8)}AAAAAAAA`;
    for (const [text, reason] of [
      ['nonsense', 'that is no token'],
      ['\n', 'there is no token: give it on standard input, or its file with --token-file'],
      [revoked, 'unauthenticated'],
      [readFileSync(installation.tokenFile, 'utf8'), 'the token is for BunKMS'],
    ] as const) {
      const login = await asUser([
        'login',
        '--url',
        installation.url,
        '--token-file',
        written('other', text),
      ]);
      expect([login.code, login.stderr]).toEqual([2, expect.stringContaining(reason)]);
    }
    expect(readFileSync(profiles(), 'utf8')).toBe(before);
  });

  it('says that a service speaks no TLS when its URL begins with https', async () => {
    const url = installation.url.replace('http:', 'https:');
    const { code, stderr } = await asUser(['projects'], { BUNDOC_URL: url, BUNDOC_TOKEN: token });
    expect([code, stderr]).toEqual([
      2,
      expect.stringContaining(
        'does not speak TLS: use http:// if that is right; the address is from BUNDOC_URL',
      ),
    ]);
  });

  it('uses no file that other users can read, and says what to do', async () => {
    chmodSync(profiles(), 0o640);
    const open = await asUser(['projects']);
    expect([open.code, open.stderr]).toEqual([2, expect.stringContaining(`chmod 600 ${profiles()}`)]);
    chmodSync(profiles(), 0o600);
    expect((await asUser(['logout', '--profile', 'second'])).code).toBe(0);
    expect((await asUser(['logout'])).code).toBe(0);
    expect(readFileSync(profiles(), 'utf8')).not.toContain('"token"');
    expect((await asUser(['logout'])).code).toBe(2);
  });
});

describe('bundoc backup and import', () => {
  it('a backup is written whole to standard output, and its summary to standard error', async () => {
    await client.project('saved').collection('notes').put('a', { n: 1 });
    const admin = await installation.client(['saved'], ['docs:admin']);
    const child = spawnNode([MAIN, 'backup', 'saved', '-'], { ...environment(), BUNDOC_TOKEN: admin });
    const pieces: Buffer[] = [];
    let errors = '';
    child.stdout.on('data', (chunk: Buffer) => pieces.push(chunk));
    child.stderr.on('data', (chunk) => {
      errors += String(chunk);
    });
    expect([(await once(child, 'close'))[0], errors]).toEqual([0, expect.stringContaining('project saved')]);
    writeFileSync(file('saved.backup'), Buffer.concat(pieces));
    expect((await bundocCommand({}, ['verify-backup', file('saved.backup')])).code).toBe(0);
  });

  it('an import that is refused before its first write leaves no state file', async () => {
    const path = written('refused.ndjson', '{"n":1}\n');
    const other = await installation.client(['another']);
    for (const refused of [
      await bundocCommand({ ...environment(), BUNDOC_TOKEN: other }, [
        'import',
        'p',
        path,
        '--collection',
        'notes',
      ]),
      await bundocCommand({ ...environment(), BUNDOC_TOKEN: 'a.b.c' }, [
        'import',
        'p',
        path,
        '--collection',
        'notes',
      ]),
      await bundoc('import', 'p', path),
    ])
      expect([refused.code, existsSync(`${path}.import-state`)]).toEqual([2, false]);
  });

  it('a state file of another import is refused, and the message names that import', async () => {
    const good = Array.from({ length: 300 }, (_, n) => `{"n":${n}}`);
    const path = written('half.ndjson', [...good, '{'].join('\n'));
    expect((await bundoc('import', 'half', path, '--collection', 'notes')).code).toBe(2);
    const other = await bundoc('import', 'elsewhere', path, '--collection', 'notes');
    expect([other.code, other.stderr]).toEqual([
      2,
      expect.stringContaining('another import, into collection notes of half, with 200 lines done'),
    ]);
  });

  it('a count of one is in the singular', async () => {
    const path = written('single.ndjson', '{"n":1}\n');
    const { stdout } = await bundoc('import', 'single', path, '--collection', 'notes');
    expect(stdout).toBe('1 document written to single\n');
  });
});
