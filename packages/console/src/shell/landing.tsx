import type { ServiceInfo } from '@bundoc/shared/contract/service-info';
import { Fault, Loading } from '../parts/basics.tsx';
import { useRequest } from '../parts/use-request.ts';
import { getOpen } from './api.ts';
import { Checks, useReadiness } from './readiness.tsx';
import type { Service } from './service.ts';
import { ThemeSwitch } from './theme-switch.tsx';
import { TokenCommand } from './token-command.tsx';

/** The page at `/`: the service, its state and its links. */
export function Landing({ service }: { readonly service: Service }) {
  const info = useRequest('info', (signal) => getOpen<ServiceInfo>('/', signal));
  const ready = useReadiness();
  const [what, why] = service.about;
  return (
    <div class="landing">
      <header class="landing-top">
        <span class="mark" aria-hidden="true" />
        <ThemeSwitch />
      </header>
      <main>
        <h1>{service.name}</h1>
        <p class="landing-what">{what}</p>
        <p class="muted">{why}</p>
        <p class="landing-go">
          <a class="button primary" href="/console/">
            Open the console
          </a>
          <a class="button" href="/docs">
            API reference
          </a>
          <a class="button" href="/openapi.json">
            OpenAPI document
          </a>
        </p>
        <section class="panel" aria-labelledby="state">
          <h2 id="state">State</h2>
          {ready.data === undefined ? (
            ready.error === undefined ? (
              <Loading what="the state" />
            ) : (
              <Fault error={ready.error} retry={ready.reload} />
            )
          ) : (
            <Checks ready={ready.data} />
          )}
          {info.data === undefined ? null : <p class="muted">Version {info.data.version}</p>}
        </section>
        <section class="panel" aria-labelledby="token">
          <h2 id="token">Get a token</h2>
          <p>The console and each request need a token.</p>
          <TokenCommand service={service} />
        </section>
        <p class="muted">
          The documentation is in <code>docs/</code> of the repository. <code>npm run docs -- --serve</code>{' '}
          shows it as a site.
        </p>
      </main>
    </div>
  );
}
