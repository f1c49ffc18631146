import { UsageError } from '../errors.js';
import { SYNAPSE_HOPS } from '../planner/chains-to-come.js';
import type { Strategy } from '../planner/strategy.js';
import { parseInteger } from './arguments.js';
import type { Arguments } from './arguments.js';

/** The bookkeeping of levels has integers of 32 bits. */
const LARGEST_LEVEL = 2 ** 31 - 1;

/** Chains of more groups than this would fill the memory before they saved anything. */
const MOST_HOPS = 1_000_000;

/** The strategy that `--strategy`, `-l` and the options of adaptive ask for; throws UsageError. */
export function chosenStrategy(given: Arguments): Strategy {
  const rebaseDeep = given.has('rebase-deep');
  const sizes = given.text('level-sizes')?.split(',').map(parseLevel);
  const name = given.text('strategy') ?? (sizes === undefined ? 'adaptive' : 'levels');
  const maxHops = given.integer('max-hops', 1, MOST_HOPS);
  const headroom = given.integer('headroom', 0);
  if (name === 'levels') {
    if (maxHops !== undefined || headroom !== undefined || rebaseDeep) {
      throw new UsageError(
        '--max-hops, --headroom and --rebase-deep are about adaptive, and levels are asked for.',
      );
    }
    return { name, sizes };
  }
  if (name !== 'adaptive') {
    throw new UsageError(`--strategy takes adaptive or levels, not '${name}'.`);
  }
  if (sizes !== undefined) {
    throw new UsageError(
      '-l (--level-sizes) is about levels, and --strategy adaptive is asked for.',
    );
  }
  if (headroom !== undefined && headroom >= (maxHops ?? SYNAPSE_HOPS)) {
    throw new UsageError('--headroom must be less than --max-hops.');
  }
  return {
    name,
    settings: {
      rebaseDeep,
      ...(maxHops !== undefined && { maxHops }),
      ...(headroom !== undefined && { headroom }),
    },
  };
}

function parseLevel(size: string): number {
  return parseInteger(size.trim(), 'Each size of -l', 1, LARGEST_LEVEL);
}
