import type { ServiceInfo } from '@bundoc/shared/contract/service-info';
import type { ComponentChildren } from 'preact';
import { Head, Loaded } from '../parts/basics.tsx';
import { useRequest } from '../parts/use-request.ts';
import { getOpen } from './api.ts';
import { Checks, useReadiness } from './readiness.tsx';
import type { Service } from './service.ts';

/** The state of the service, and what to do about problems. */
export function StateView({
  service,
  children,
}: {
  readonly service: Service;
  readonly children?: ComponentChildren;
}) {
  const ready = useReadiness();
  const info = useRequest('info', (signal) => getOpen<ServiceInfo>('/', signal));
  return (
    <>
      <Head
        title="State"
        lead={
          <>
            {service.name}
            {info.data === undefined ? '' : ` ${info.data.version}`} · <a href="/docs">API reference</a> ·{' '}
            <a href="/openapi.json">OpenAPI document</a>
          </>
        }
      />
      <Loaded request={ready} what="the state">
        {(data) => <Checks ready={data} isPanel />}
      </Loaded>
      {children}
    </>
  );
}
