/** What the owner of a token does with it. */
export type AdminOrder =
  | { readonly order: 'init' }
  | { readonly order: 'aes'; readonly label: string; readonly bytes?: number; readonly extractable?: boolean }
  | { readonly order: 'rsa'; readonly label: string; readonly bits: number }
  | { readonly order: 'allow'; readonly label: string; readonly value: boolean }
  | { readonly order: 'remove' | 'steal'; readonly label: string };
