/**
 * What is looked for, in the order in which it is told.
 *
 * - `edge-from-missing-group`, `edge-to-missing-group`: an edge of, or to, a group that `state_groups`
 *   does not have.
 * - `edge-between-rooms`: an edge between groups of different rooms.
 * - `predecessor-not-smaller`: an edge to the group itself or to one with a larger id.
 * - `several-edges`: a group with edges to different predecessors.
 * - `repeated-edge`: an edge that is stored once more.
 * - `own-ancestor`: a group whose edges lead back to it.
 * - `deep-chain`: a group with a chain of more than 100 groups, itself included; not wrong,
 *   for levels makes such.
 * - `contradictory-key`: a key that has different events in one group.
 * - `repeated-row`: a row that is stored once more, with the same event.
 * - `row-of-no-group`: a row of a group that `state_groups` does not have.
 * - `empty-group`: a group that has neither rows nor an edge, as the first of a room may; not wrong.
 */
export const KINDS = [
  'edge-from-missing-group',
  'edge-to-missing-group',
  'edge-between-rooms',
  'predecessor-not-smaller',
  'several-edges',
  'repeated-edge',
  'own-ancestor',
  'deep-chain',
  'contradictory-key',
  'repeated-row',
  'row-of-no-group',
  'empty-group',
] as const;

export type FindingKind = (typeof KINDS)[number];

/** Where something was found: a group, an edge of it, or a key in it. */
export interface Example {
  readonly stateGroup: number;
  readonly predecessor?: number;
  readonly type?: string;
  readonly stateKey?: string;
}

export interface Finding {
  readonly kind: FindingKind;
  /** Whether it is told for information only. */
  readonly isInformation: boolean;
  /** Edges, groups, keys or rows, as the kind is about. */
  readonly count: number;
  /** The first few, in ascending id of group. */
  readonly examples: readonly Example[];
}

const EXAMPLES = 5;

/** Counts what is found. */
export class Findings {
  readonly #findings = KINDS.map((kind) => ({
    kind,
    isInformation: kind === 'empty-group' || kind === 'deep-chain',
    count: 0,
    examples: [] as Example[],
  }));

  /** `example` is asked only while examples are wanted; undefined if there is one of the same already. */
  add(kind: FindingKind, example: (() => Example) | undefined): void {
    const finding = this.#findings[KINDS.indexOf(kind)];
    finding.count++;
    if (example !== undefined && finding.examples.length < EXAMPLES) {
      finding.examples.push(example());
    }
  }

  /** All kinds, also those of which there are none. */
  get all(): readonly Finding[] {
    return this.#findings;
  }
}
