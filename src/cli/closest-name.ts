/** The one of `names` that is at most a third of its letters away from `given`, for "did you mean". */
export function closestName(given: string, names: readonly string[]): string | undefined {
  let closest: string | undefined;
  let least = Infinity;
  for (const name of names) {
    const distance = editDistance(given, name);
    if (distance < least && distance <= Math.ceil(name.length / 3)) {
      closest = name;
      least = distance;
    }
  }
  return closest;
}

/** Levenshtein's distance: insertions, deletions and replacements of one character each. */
function editDistance(from: string, to: string): number {
  let previous = Array.from({ length: to.length + 1 }, (_, column) => column);
  for (let row = 1; row <= from.length; row++) {
    const current = [row];
    for (let column = 1; column <= to.length; column++) {
      const replaced = previous[column - 1] + (from[row - 1] === to[column - 1] ? 0 : 1);
      current.push(Math.min(replaced, previous[column] + 1, current[column - 1] + 1));
    }
    previous = current;
  }
  return previous[to.length];
}
