import { path } from '../shell/api.ts';

/** Paths of the views. */
export const places = {
  projects: () => '/console/',
  state: () => '/console/state',
  receipt: () => '/console/receipt',
  project: (project: string) => `/console${path('projects', project)}`,
  changes: (project: string) => `/console${path('projects', project, 'changes')}`,
  operations: (project: string) => `/console${path('projects', project, 'operations')}`,
  shred: (project: string) => `/console${path('projects', project, 'shred')}`,
  collection: (project: string, collection: string) =>
    `/console${path('projects', project, 'collections', collection)}`,
  query: (project: string, collection: string) => `${places.collection(project, collection)}/query`,
  definition: (project: string, collection: string) => `${places.collection(project, collection)}/definition`,
  import: (project: string, collection: string) => `${places.collection(project, collection)}/import`,
  create: (project: string, collection: string) => `${places.collection(project, collection)}/new`,
  document: (project: string, collection: string, id: string) =>
    `${places.collection(project, collection)}${path('documents', id)}`,
};
