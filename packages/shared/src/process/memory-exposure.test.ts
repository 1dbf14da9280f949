import { describe, expect, it } from 'vitest';
import { ConfigError } from './config.ts';
import { type ProcessFacts, refuseMemoryExposure } from './memory-exposure.ts';

const CLEAN: ProcessFacts = { execArgv: [], environment: {}, inspectorUrl: undefined, writesReports: false };

describe('in production', () => {
  it('a process with ordinary options is accepted', () => {
    refuseMemoryExposure(CLEAN);
    refuseMemoryExposure({
      ...CLEAN,
      execArgv: ['--conditions=@bundoc/source', '--disable-sigusr1', '--max-old-space-size=512'],
      environment: { NODE_ENV: 'production', NODE_OPTIONS: '--enable-source-maps "--no-warnings"' },
    });
  });

  it.each([
    '--inspect',
    '--inspect=0.0.0.0:9229',
    '--inspect-brk',
    '--inspect_wait=1',
    '--heapsnapshot-signal=SIGUSR2',
    '--heapsnapshot_near_heap_limit=3',
    '--heap-prof',
    '--cpu-prof',
    '--prof',
    '--report-on-signal',
    '--report-uncaught-exception',
    '--report-on-fatalerror',
    '--abort-on-uncaught-exception',
    '--perf-basic-prof',
    '--experimental-default-config-file',
  ])('%s is refused, on the command line and in NODE_OPTIONS', (option) => {
    const name = option.split('=')[0]?.replaceAll('_', '-');
    for (const facts of [
      { ...CLEAN, execArgv: ['--no-warnings', option] },
      { ...CLEAN, environment: { NODE_OPTIONS: `--no-warnings  ${option}` } },
      { ...CLEAN, environment: { NODE_ENV: 'production', NODE_OPTIONS: `"${option}"` } },
    ])
      expect(() => refuseMemoryExposure(facts)).toThrow(name);
  });

  it('the error names all such options at once, without their values', () => {
    const start = () =>
      refuseMemoryExposure({
        ...CLEAN,
        execArgv: ['--inspect=planted', '--heap-prof'],
        environment: { NODE_OPTIONS: '--report-directory=planted' },
      });
    expect(start).toThrow(ConfigError);
    for (const name of ['--inspect:', '--heap-prof:', 'NODE_OPTIONS: --report-directory:'])
      expect(start).toThrow(name);
    expect(start).not.toThrow('planted');
  });

  it('an inspector or reports that were enabled in another way are refused', () => {
    expect(() => refuseMemoryExposure({ ...CLEAN, inspectorUrl: 'ws://127.0.0.1:9229' })).toThrow(
      'inspector',
    );
    expect(() => refuseMemoryExposure({ ...CLEAN, writesReports: true })).toThrow('reports');
  });
});

it.each(['development', 'test'])('with NODE_ENV=%s these options are allowed', (NODE_ENV) => {
  refuseMemoryExposure({
    execArgv: ['--inspect'],
    environment: { NODE_ENV, NODE_OPTIONS: '--heap-prof' },
    inspectorUrl: 'ws://127.0.0.1:9229',
    writesReports: true,
  });
});
