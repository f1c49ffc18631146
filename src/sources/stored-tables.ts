import type { Input } from './files/input.js';

/**
 * The tables that a compression changes, entire, in any order: all rooms, and what is of no room. Each
 * can be read once.
 */
export interface StoredTables {
  readonly edges: Input;
  readonly rows: Input;
}
