/**
 * The line that stands where SQL would, if no changes are worth it: psql takes it for a comment, and `apply`
 * for no changes. So whoever applies a file after each run applies no earlier one again.
 */
export const NO_CHANGES = '-- No changes by synapse_compress_state.';

/** The same for JSON, which has no comments: a line of nothing. An empty file may be one that was cut off. */
export const NO_CHANGES_IN_JSON = '';
