import type { AdaptiveSettings } from './adaptive.js';

/** How groups are planned; what is not given is left to the planner. */
export type Strategy =
  | { readonly name: 'levels'; readonly sizes: readonly number[] | undefined }
  | { readonly name: 'adaptive'; readonly settings: AdaptiveSettings };
