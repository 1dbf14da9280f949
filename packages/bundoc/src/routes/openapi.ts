import {
  changePageSchema,
  documentBodySchema,
  documentMetadataSchema,
  documentPageSchema,
  documentSchema,
} from '@bundoc/shared/contract/documents';
import type { ServiceDescription } from '@bundoc/shared/openapi/document';

/** What Bundoc's OpenAPI document says beside its routes, each of which describes itself. */
export const BUNDOC_API: ServiceDescription = {
  title: 'Bundoc',
  description:
    'A document store that seals every document with the key of its project before it touches a disk.',
  tags: [
    { name: 'documents', description: 'Documents of a collection' },
    { name: 'collections', description: 'What collections there are, and how they are defined' },
    { name: 'queries', description: 'Documents by what is in them' },
    { name: 'changes', description: 'What changed in a project' },
    { name: 'projects', description: 'Projects as a whole' },
    { name: 'service', description: 'About the process' },
  ],
  schemas: {
    Document: documentSchema,
    DocumentBody: documentBodySchema,
    DocumentMetadata: documentMetadataSchema,
    DocumentPage: documentPageSchema,
    ChangePage: changePageSchema,
  },
  refusals: { always: [], authenticated: ['kms_unavailable'] },
};
