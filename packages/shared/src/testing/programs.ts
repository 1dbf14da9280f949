import { spawnSync } from 'node:child_process';
import { accessSync, constants, globSync, mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { vectorsFolder } from './wycheproof.ts';

/** What some tests need beyond Node, npm, git and the usual commands of a Unix system. */
export interface OptionalProgram {
  /** As in "PostgreSQL 15 or newer". */
  readonly title: string;
  /** The tests that need it, as in "tests of the consoles". */
  readonly tests: string;
  /** With the value 1, its lack is a failure. */
  readonly variable: string;
  /** Its packages in Debian; empty when none has it. */
  readonly debian: string;
  /** Its names in other systems, or what else to do. */
  readonly elsewhere: string;
  /** Where it is; undefined when it is missing or does not work. */
  readonly find: () => string | undefined;
}

/** Folders of programs besides `PATH`: Debian, Fedora, Homebrew on either processor. */
const USUAL_FOLDERS = [
  ...['/usr/local/bin', '/usr/bin', '/bin', '/usr/local/sbin', '/usr/sbin', '/sbin'],
  ...['/opt/homebrew/bin', '/opt/homebrew/sbin'],
];
/** Folders of PostgreSQL's own programs: Debian, the packages of its project, Fedora, Homebrew. */
const POSTGRES_FOLDERS = [
  '/usr/lib/postgresql/*/bin',
  '/usr/pgsql-*/bin',
  '/usr/bin',
  '/opt/homebrew/opt/postgresql@*/bin',
  '/usr/local/opt/postgresql@*/bin',
];
/** Folders of PKCS#11 modules: Debian, Fedora, Homebrew. */
const MODULE_FOLDERS = [
  ...['/usr/lib/softhsm', '/usr/lib/*/pkcs11', '/usr/lib64/pkcs11'],
  ...['/opt/homebrew/lib/softhsm', '/usr/local/lib/softhsm'],
];
const POSTGRES_PROGRAMS = ['postgres', 'initdb', 'psql', 'pg_dump', 'pg_basebackup'];
const POSTGRES_MAJOR_MIN = 15;
const ANSWERS_WITHIN_MS = 10_000;

export const PROGRAMS = {
  docker: {
    title: 'a Docker engine with compose',
    tests: 'the images and the compose file',
    variable: 'REQUIRE_DOCKER',
    debian: 'docker.io docker-compose',
    elsewhere: 'Fedora: moby-engine docker-compose; macOS: Docker Desktop',
    find: findDocker,
  },
  postgresql: {
    title: `PostgreSQL ${POSTGRES_MAJOR_MIN} or newer`,
    tests: 'both services on PostgreSQL; the tests start their own servers',
    variable: 'REQUIRE_POSTGRES',
    debian: 'postgresql',
    elsewhere: 'Fedora: postgresql-server; Homebrew: postgresql@17',
    find: findPostgres,
  },
  chromium: {
    title: 'Chromium',
    tests: 'the consoles and the site of the documentation in a browser',
    variable: 'REQUIRE_CHROMIUM',
    debian: 'chromium',
    elsewhere: 'Fedora and Homebrew: chromium',
    find: () =>
      findProgram('chromium', 'chromium-browser') ??
      whenRunnable('/Applications/Chromium.app/Contents/MacOS/Chromium'),
  },
  haproxy: {
    title: 'HAProxy',
    tests: 'rolling restarts and the proxy of the guides; the tests start it themselves',
    variable: 'REQUIRE_HAPROXY',
    debian: 'haproxy',
    elsewhere: 'Fedora and Homebrew: haproxy',
    find: () => findProgram('haproxy'),
  },
  nginx: {
    title: 'nginx',
    tests: 'the proxy of the guides; the tests start it themselves',
    variable: 'REQUIRE_NGINX',
    debian: 'nginx',
    elsewhere: 'Fedora and Homebrew: nginx',
    find: () => findProgram('nginx'),
  },
  zsh: {
    title: 'zsh',
    tests: 'completion of commands',
    variable: 'REQUIRE_SHELLS',
    debian: 'zsh',
    elsewhere: 'Fedora and Homebrew: zsh',
    find: () => findProgram('zsh'),
  },
  fish: {
    title: 'fish',
    tests: 'completion of commands',
    variable: 'REQUIRE_SHELLS',
    debian: 'fish',
    elsewhere: 'Fedora and Homebrew: fish',
    find: () => findProgram('fish'),
  },
  promtool: {
    title: 'promtool',
    tests: 'the metrics of both services',
    variable: 'REQUIRE_PROMTOOL',
    debian: 'promtool',
    elsewhere: 'Fedora and Homebrew: prometheus',
    find: () => findProgram('promtool'),
  },
  curl: {
    title: 'curl',
    tests: 'the commands of the documentation',
    variable: 'REQUIRE_CURL',
    debian: 'curl',
    elsewhere: 'Fedora and Homebrew: curl',
    find: () => findProgram('curl'),
  },
  python: {
    title: "Python with the package 'cryptography'",
    tests: 'opening a document by hand',
    variable: 'REQUIRE_PYTHON',
    debian: 'python3-cryptography',
    elsewhere: 'Fedora: python3-cryptography; elsewhere: pip install cryptography',
    find: () => findPython('cryptography'),
  },
  httpx: {
    title: "Python with the package 'httpx'",
    tests: 'the program of the guide for other languages',
    variable: 'REQUIRE_PYTHON',
    debian: 'python3-httpx',
    elsewhere: 'Fedora: python3-httpx; elsewhere: pip install httpx',
    find: () => findPython('httpx'),
  },
  moto: {
    title: "Python with the packages 'moto' and 'flask_cors'",
    tests: 'keys of AWS KMS, and archives in buckets',
    variable: 'REQUIRE_MOTO',
    debian: 'python3-moto python3-flask-cors',
    elsewhere: "elsewhere: pip install 'moto[server]'",
    find: () => findPython('moto.server', 'flask_cors'),
  },
  vectors: {
    title: 'published test vectors',
    tests: 'Wycheproof and the JSON Schema Test Suite, in the folder WYCHEPROOF_DIR',
    variable: 'REQUIRE_VECTORS',
    debian: '',
    elsewhere: 'a folder with the testvectors_v1 of C2SP/wycheproof, and json-schema-2020-12 beside them',
    find: vectorsFolder,
  },
  softhsm: {
    title: 'SoftHSM, OpenSC and a C++ compiler',
    tests: 'outside keys in PKCS#11 tokens',
    variable: 'REQUIRE_SOFTHSM',
    debian: 'softhsm2 opensc g++',
    elsewhere: 'Fedora: softhsm opensc gcc-c++; Homebrew: softhsm opensc',
    find: () => findModule('libsofthsm2.so'),
  },
  tpm: {
    title: 'a simulated TPM with its PKCS#11 module, OpenSC and a C++ compiler',
    tests: 'an outside key in a TPM',
    variable: 'REQUIRE_TPM',
    debian: 'swtpm libtpm2-pkcs11-1 libtss2-tcti-swtpm0 opensc g++',
    elsewhere: 'Fedora: swtpm tpm2-pkcs11 opensc gcc-c++',
    find: () => (findProgram('swtpm') === undefined ? undefined : findModule('libtpm2_pkcs11.so')),
  },
  systemd: {
    title: 'the programs systemd-creds and systemd-analyze',
    tests: 'the KEK as a credential of systemd',
    variable: 'REQUIRE_SYSTEMD',
    debian: 'systemd',
    elsewhere: 'Fedora: systemd',
    find: () => (findProgram('systemd-analyze') === undefined ? undefined : findProgram('systemd-creds')),
  },
  registry: {
    title: 'the npm registry',
    tests: 'a release, and the site of the documentation: both install packages',
    variable: 'REQUIRE_REGISTRY',
    debian: '',
    elsewhere: 'connect to the network',
    find: findRegistry,
  },
  mount: {
    title: 'the right to mount a file system',
    tests: 'a full disk',
    variable: 'REQUIRE_MOUNT',
    debian: '',
    elsewhere: 'run the tests as root on Linux',
    find: findMount,
  },
} as const satisfies Record<string, OptionalProgram>;

export type ProgramName = keyof typeof PROGRAMS;

declare module 'vitest' {
  interface TaskMeta {
    /** The missing program for which a test or the tests of a suite are skipped. */
    missing?: ProgramName;
  }
}

const found = new Map<ProgramName, string | undefined>();

/**
 * Where an optional program is: its path, or a folder of programs for PostgreSQL. `WITHOUT_PROGRAMS` hides
 * programs from the tests: names with commas, or `all`.
 *
 * @returns undefined when it is missing.
 */
export function pathOf(name: ProgramName): string | undefined {
  if (isHidden(name)) return undefined;
  if (!found.has(name)) found.set(name, PROGRAMS[name].find());
  return found.get(name);
}

function isHidden(name: ProgramName): boolean {
  const hidden = process.env['WITHOUT_PROGRAMS']?.split(',') ?? [];
  for (const one of hidden)
    if (one !== 'all' && one !== '' && !Object.hasOwn(PROGRAMS, one))
      throw new Error(
        `WITHOUT_PROGRAMS: ${one} is unknown; known are all, ${Object.keys(PROGRAMS).join(', ')}`,
      );
  return hidden.includes('all') || hidden.includes(name);
}

/**
 * Options of a `describe` or `it` that needs programs. Without one its tests are skipped, and the end of the
 * run names it.
 *
 * @throws when one is missing although its `REQUIRE_…` variable is 1.
 */
export function needs(...names: readonly ProgramName[]): { skip: boolean; meta: { missing?: ProgramName } } {
  const name = names.find((one) => pathOf(one) === undefined);
  if (name === undefined) return { skip: false, meta: {} };
  if (process.env[PROGRAMS[name].variable] === '1')
    throw new Error(`${PROGRAMS[name].variable}=1, but this is missing: ${howToGet(name)}`);
  return { skip: true, meta: { missing: name } };
}

/** As in "zsh (Debian: zsh; Fedora and Homebrew: zsh)". */
export function howToGet(name: ProgramName): string {
  const { title, debian, elsewhere } = PROGRAMS[name];
  return `${title} (${debian === '' ? '' : `Debian: ${debian}; `}${elsewhere})`;
}

/** A PKCS#11 module in a usual folder, when the addon that loads it can be compiled, and tokens be made. */
function findModule(name: string): string | undefined {
  if (['c++', 'cc', 'pkcs11-tool'].some((program) => findProgram(program) === undefined)) return undefined;
  return MODULE_FOLDERS.flatMap((folder) => globSync(`${folder}/${name}`))[0];
}

/** The first of these programs on `PATH` or in a usual folder. */
export function findProgram(...names: readonly string[]): string | undefined {
  const folders = [...(process.env['PATH'] ?? '').split(delimiter).filter(Boolean), ...USUAL_FOLDERS];
  for (const name of names)
    for (const folder of folders) {
      const path = whenRunnable(join(folder, name));
      if (path !== undefined) return path;
    }
  return undefined;
}

function whenRunnable(path: string): string | undefined {
  try {
    accessSync(path, constants.X_OK);
    return statSync(path).isFile() ? path : undefined;
  } catch {
    return undefined;
  }
}

/** Unlike "docker info", this fails when the command line is installed but no engine runs. */
function findDocker(): string | undefined {
  const docker = findProgram('docker');
  if (docker === undefined) return undefined;
  const works = (...args: string[]) => spawnSync(docker, args, { timeout: ANSWERS_WITHIN_MS }).status === 0;
  return works('compose', 'version') && works('version', '--format', '{{.Server.Version}}')
    ? docker
    : undefined;
}

/** The folder with the programs of the newest PostgreSQL. */
function findPostgres(): string | undefined {
  const config = findProgram('pg_config');
  const named =
    config === undefined ? [] : [spawnSync(config, ['--bindir'], { encoding: 'utf8' }).stdout.trim()];
  const path = (process.env['PATH'] ?? '').split(delimiter).filter(Boolean);
  const folders = [...named, ...path, ...POSTGRES_FOLDERS.flatMap((pattern) => globSync(pattern))];
  const whole = folders.filter((folder) =>
    POSTGRES_PROGRAMS.every((name) => whenRunnable(join(folder, name)) !== undefined),
  );
  const versions = whole.map((folder) => ({ folder, major: majorOf(join(folder, 'postgres')) }));
  return versions.filter(({ major }) => major >= POSTGRES_MAJOR_MIN).sort((a, b) => b.major - a.major)[0]
    ?.folder;
}

/** The major version of PostgreSQL, from "postgres (PostgreSQL) 17.2"; 0 when it does not run. */
function majorOf(postgres: string): number {
  const { stdout } = spawnSync(postgres, ['--version'], { encoding: 'utf8' });
  return Number(/\) (\d+)/.exec(stdout ?? '')?.[1] ?? 0);
}

/** A Python that has all of these packages. */
function findPython(...names: readonly string[]): string | undefined {
  // The Python of the system, too: its package is there, while PATH may name another Python.
  const candidates = [findProgram('python3'), whenRunnable('/usr/bin/python3')];
  return candidates.find(
    (python) => python !== undefined && spawnSync(python, ['-c', `import ${names.join(', ')}`]).status === 0,
  );
}

/** Whether npm gets an answer. @returns npm's path. */
function findRegistry(): string | undefined {
  const npm = findProgram('npm');
  if (npm === undefined) return undefined;
  // Unlike "npm view", this needs the network: nothing of it is cached.
  const args = ['ping', '--fetch-retries=0', `--fetch-timeout=${ANSWERS_WITHIN_MS / 2}`];
  return spawnSync(npm, args, { timeout: ANSWERS_WITHIN_MS }).status === 0 ? npm : undefined;
}

function findMount(): string | undefined {
  const mount = findProgram('mount');
  if (mount === undefined || process.platform !== 'linux' || process.getuid?.() !== 0) return undefined;
  const folder = mkdtempSync(join(tmpdir(), 'bundoc-mount-'));
  try {
    if (spawnSync(mount, ['-t', 'tmpfs', 'tmpfs', folder]).status !== 0) return undefined;
    spawnSync('umount', [folder]);
    return mount;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
