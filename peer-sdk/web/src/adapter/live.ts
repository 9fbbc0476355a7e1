// Whether a WebSocket is alive: by what comes, since a browser does not tell of the protocol's own pings.

/** How often to look, in milliseconds. */
const LOOK = 1000
/** How long after a question something must have come. */
const PATIENCE = 4000
/** How much longer while so much waits that an answer may be stuck behind it, in bytes. */
const LARGE = 16 << 10
const STUCK = 20_000

export interface Livable {
  /** How long nothing may come before it is asked for, in milliseconds. */
  idle: number
  ask: () => void
  dead: () => void
  buffered: () => number
  /** How long a question took to be answered. */
  answered?: (milliseconds: number) => void
}

export class Liveness {
  private heardAt = performance.now()
  private askedAt: number | undefined
  private looks = 0
  private readonly timer = setInterval(() => { this.look() }, LOOK)

  constructor (private readonly of: Livable) {}

  /** Something has come. */
  heard (): void {
    this.heardAt = performance.now()
    if (this.askedAt !== undefined) this.of.answered?.(this.heardAt - this.askedAt)
    this.askedAt = undefined
  }

  /** It has to prove itself, now. */
  prove (): void {
    if (this.askedAt !== undefined) return
    this.askedAt = performance.now()
    this.looks = 0
    this.of.ask()
  }

  private look (): void {
    const now = performance.now()
    if (this.askedAt === undefined) {
      if (now - this.heardAt >= this.of.idle) this.prove()
      return
    }
    const patience = this.of.buffered() > LARGE ? STUCK : PATIENCE
    // A tab that slept wakes to its timers first, and to what came meanwhile only then.
    if (now - this.askedAt >= patience && ++this.looks > 1) this.of.dead()
  }

  stop (): void { clearInterval(this.timer) }
}
