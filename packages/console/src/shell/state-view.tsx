import type { ServiceInfo } from '@bundoc/shared/contract/service-info';
import type { ComponentChildren } from 'preact';
import { Badge, Fault, Head, Loading } from '../parts/basics.tsx';
import { useRequest } from '../parts/use-request.ts';
import { getOpen } from './api.ts';
import { checksOf, useReadiness } from './readiness.tsx';
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
      <Fault error={ready.error} retry={ready.reload} />
      {ready.data === undefined && ready.error === undefined ? <Loading what="the state" /> : null}
      {ready.data === undefined ? null : (
        <ul class="checks panel">
          {checksOf(ready.data).map(({ name, isGood, state, advice }) => (
            <li key={name}>
              <span>{name}</span>
              <Badge kind={isGood ? 'good' : 'bad'}>{state}</Badge>
              {isGood ? null : <p class="muted">{advice}</p>}
            </li>
          ))}
        </ul>
      )}
      {children}
    </>
  );
}
