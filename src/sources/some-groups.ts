const EXAMPLES = 5;

/** Some state groups: how many, and the first of them. */
export interface SomeGroups {
  readonly count: number;
  readonly examples: readonly number[];
}

/** The groups by their ids, as far as these are known. */
export function groupsText({ count, examples }: SomeGroups): string {
  return `${examples.join(', ')}${count > examples.length ? ', …' : ''}`;
}

/** Counts state groups as they come. */
export class GroupCount implements SomeGroups {
  count = 0;
  readonly examples: number[] = [];

  add(stateGroup: number): void {
    if (this.count++ < EXAMPLES) this.examples.push(stateGroup);
  }
}
