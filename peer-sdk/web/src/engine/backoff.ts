// Delays between attempts, and the dice that they are drawn with.

const MASK = (1n << 64n) - 1n

/** Randomness from a seed: enough to spread peers in time, no secret. */
export class Dice {
  constructor (private state: bigint) {}

  /** The next number of 64 bits, by splitmix64. */
  roll (): bigint {
    this.state = (this.state + 0x9e37_79b9_7f4a_7c15n) & MASK
    let z = this.state
    z = ((z ^ (z >> 30n)) * 0xbf58_476d_1ce4_e5b9n) & MASK
    z = ((z ^ (z >> 27n)) * 0x94d0_49bb_1331_11ebn) & MASK
    return z ^ (z >> 31n)
  }

  /** At least 0, less than 1. */
  unit (): number { return Number(this.roll() >> 11n) / 2 ** 53 }

  /** Less than `end`; 0 if that is 0. */
  below (end: number): number { return Math.floor(this.unit() * end) }

  /** A time between the two. */
  between (least: number, most: number): number { return least + Math.max(0, most - least) * this.unit() }
}

/** The longest delay is this at first, in milliseconds, and doubles up to `MOST`. */
const LEAST = 500
const MOST = 30_000
/** A connection that held so long counts as a good one. */
const STABLE = 60_000

/**
 * When to try again: after a time drawn from between nothing and a limit that doubles, for ever. The limit falls back
 * only when a connection has held for a minute, since one that is closed at once has cured nothing.
 */
export class Backoff {
  failures = 0
  private upSince: number | undefined

  up (now: number): void { this.upSince = now }

  /** It failed or ended: how long to wait, where `unit` is drawn from between 0 and 1. */
  down (now: number, unit: number): number {
    if (this.upSince !== undefined && now - this.upSince >= STABLE) this.failures = 0
    this.upSince = undefined
    const limit = Math.min(LEAST * 2 ** Math.min(this.failures, 6), MOST)
    this.failures++
    return limit * unit
  }

  reset (): void { this.failures = 0 }
}
