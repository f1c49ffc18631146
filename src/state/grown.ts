type Numbers = Int32Array | Uint8Array | Float64Array;

/** `array` if it has room for `length` elements, else a copy of at least twice its size. */
export function grown<T extends Numbers>(array: T, length: number): T {
  if (length <= array.length) return array;
  const Kind = array.constructor as new (length: number) => T;
  const larger = new Kind(Math.max(length, array.length * 2));
  larger.set(array);
  return larger;
}
