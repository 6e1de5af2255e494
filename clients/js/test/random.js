/** Random numbers that are the same in every run: mulberry32. */
export function seeded(seed) {
  let state = seed >>> 0;
  const random = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
  random.upTo = (most) => Math.floor(random() * (most + 1));
  random.of = (list) => list[random.upTo(list.length - 1)];
  return random;
}
