// Who is there: what each session shows, and where we have it from.
//
// A session shows one entry, under its own name, stamped by its own clock; of two entries the later stamp counts, so
// clocks need not agree. It shows it again every 14 seconds, or 20 to 30 where there are data channels alone, and whoever is
// not heard of for 45 is gone. Who has a channel to everybody that is there does not, for whether it is still there, the
// channels tell. That is the backstop. Sooner:
//
// - who goes says so;
// - when a link that led straight to a session goes down or falls quiet, it is declared gone after a grace, unless it is
//   heard of again: a session whose link goes down shows itself at once over the others.
//
// A session that is declared gone by mistake shows itself with a later stamp.

import type { Dice } from './backoff.js'
import { type Entry, joinEntries, parseEntries, type PresenceValue, weightOf } from './entries.js'
import type { LinkId, Online } from './vocabulary.js'

/** The most bytes that one session may show. */
export const MAX_PRESENCE = 8 << 10
/**
 * How often a session shows itself when nothing changes, in milliseconds. At a hub there are those who judge by their own clock
 * how old it is; from peer to peer it goes over every channel that there is, and is told less often.
 */
const HEARTBEAT = 14_000
const HEARTBEAT_BETWEEN_PEERS = 20_000
const SPREAD = 10_000
/** How long a session is there that is not heard of. */
const LIFETIME = 45_000
/** How long a session may take to show itself over another link. */
const GRACE = 1500
/** The same, when its link was quiet for a while already. */
const QUIET_GRACE = 700
/** How long it is remembered that a session is gone, so that nobody brings it back. */
const MEMORY = 300_000
/** The least time between two showings of ours, and after somebody has contradicted us. */
const PACE = 50
const CONTRADICTED = 1000
/** Sessions and bytes that are known at most. More are ignored. */
const MOST_KEYS = 4096
const MOST_BYTES = 4 << 20
/** Presence travels in updates of about so many bytes. */
const UPDATE = 32 << 10

interface Known {
  entry: Entry
  weight: number
  since: number
  /** When its stamp was last seen to change. */
  at: number
  links: Set<LinkId>
  direct: LinkId | undefined
  /** When it is declared gone. */
  doomed: number | undefined
}

export class Presence {
  private ours: PresenceValue | undefined
  private showAt: number | undefined
  /** Then it is for nothing but that we are still there. */
  private isRoutine = false
  private shownAt: number | undefined
  private readonly known = new Map<string, Known>()
  private bytes = 0
  /** Nobody's time is over before. */
  private next: number | undefined

  /** `wall` is what our clock says, in milliseconds since 1970, at `start`. */
  constructor (private readonly start: number, private readonly session: string, private readonly wall: number) {}

  /** What others are to see of us. */
  present (now: number, value: PresenceValue | undefined): void {
    if (value === undefined && this.ours === undefined) return
    this.ours = value
    this.showSoon(now)
  }

  /** Shows nothing more, at once: there is no later. */
  leave (now: number): void {
    this.present(now, undefined)
    if (this.showAt !== undefined) this.showAt = now
  }

  get isPresent (): boolean { return this.ours !== undefined }

  private showSoon (now: number): void {
    // A store drops the second of two entries of one millisecond, so two never go out in one.
    this.showBy(Math.max(now, (this.shownAt ?? -Infinity) + PACE))
  }

  /** There is a reason to show ourselves then. */
  private showBy (at: number): void {
    if (this.showAt !== undefined && this.showAt <= at) return
    this.showAt = at
    this.isRoutine = false
  }

  /** Somebody's time may be over then. */
  private due (at: number): void { this.next = Math.min(this.next ?? Infinity, at) }

  /** Shows ourselves, with a stamp later than any of ours before. */
  private show (now: number): void {
    this.shownAt = now
    const before = this.known.get(this.session)?.entry.stamp ?? 0
    const stamp = Math.max(Math.floor(this.wall + now - this.start), before + 1)
    this.keep(now, undefined, { key: this.session, value: this.ours, stamp })
  }

  /**
   * Reads presence that has come over a link; `direct` is the session that the link leads straight to, if known. The keys
   * that are news, or `undefined` if it cannot be read.
   */
  receive (now: number, link: LinkId, direct: string | undefined, update: Uint8Array): Set<string> | undefined {
    const entries = parseEntries(update)
    if (entries === undefined) return undefined
    const changes = new Set<string>()
    for (const entry of entries) {
      const { key } = entry
      if (this.hear(now, link, entry)) changes.add(key)
      const known = this.known.get(key)
      if (known?.links.has(link) === true && direct === key) known.direct = link
    }
    return changes
  }

  /** Whether it is news. */
  private hear (now: number, link: LinkId, entry: Entry): boolean {
    const known = this.known.get(entry.key)
    if (known !== undefined && known.entry.stamp >= entry.stamp) {
      // The same entry: whoever sends it knows of it too.
      if (known.entry.stamp === entry.stamp) known.links.add(link)
      return false
    }
    if (entry.key === this.session) {
      // Somebody speaks for us: we speak louder, in a moment.
      if (known !== undefined) known.entry = { ...known.entry, stamp: entry.stamp }
      this.showBy(now + CONTRADICTED)
      return false
    }
    return this.keep(now, link, entry)
  }

  private keep (now: number, link: LinkId | undefined, entry: Entry): boolean {
    const weight = weightOf(entry)
    const known = this.known.get(entry.key)
    const before = known?.weight ?? 0
    const full = (known === undefined && this.known.size >= MOST_KEYS) || this.bytes - before + weight > MOST_BYTES
    if (link !== undefined && (full || weight > MAX_PRESENCE)) return false
    this.bytes += weight - before
    this.due(now + LIFETIME)
    this.known.set(entry.key, {
      entry,
      weight,
      since: known?.entry.value === undefined ? now : known.since,
      at: now,
      links: new Set(link === undefined ? [] : [link]),
      direct: known?.direct,
      doomed: undefined
    })
    return true
  }

  /** A link has gone down. */
  down (now: number, link: LinkId): void {
    for (const [key, known] of this.known) {
      known.links.delete(link)
      if (known.direct !== link) continue
      known.direct = undefined
      this.doom(key, known, now + GRACE)
    }
    if (this.ours !== undefined) this.showSoon(now)
  }

  /** A link has fallen quiet: whoever it leads to is gone, unless it shows itself. */
  quiet (now: number, link: LinkId): void {
    for (const [key, known] of this.known) if (known.direct === link) this.doom(key, known, now + QUIET_GRACE)
    if (this.ours !== undefined) this.showSoon(now)
  }

  /** Something comes again. Who was declared gone meanwhile hears of us, and shows itself. */
  resumed (now: number, link: LinkId): void {
    for (const known of this.known.values()) if (known.direct === link) known.doomed = undefined
    if (this.ours !== undefined) this.showSoon(now)
  }

  private doom (key: string, known: Known, at: number): void {
    if (key === this.session || known.entry.value === undefined) return
    known.doomed = Math.min(known.doomed ?? Infinity, at)
    this.due(at)
  }

  /** Does what time alone brings about: the keys that others are to be told of, and whether anybody left. */
  keepTime (now: number, hasHub: boolean, dice: Dice): { changes: Set<string>, left: boolean } {
    const changes = new Set<string>()
    let left = false
    if (this.showAt !== undefined && this.showAt <= now) {
      if (!this.isRoutine || hasHub || ![...this.known.values()].every(known => this.isSeen(known))) {
        this.show(now)
        changes.add(this.session)
      }
      this.isRoutine = true
      this.showAt = this.ours === undefined ? undefined : now + (hasHub ? HEARTBEAT : HEARTBEAT_BETWEEN_PEERS + dice.between(0, SPREAD))
    }
    if (this.next === undefined || this.next > now) return { changes, left }
    this.next = undefined
    for (const [key, known] of this.known) {
      if (key === this.session) continue
      if (endOf(known) <= now) left = this.end(now, key, known, changes) || left
      if (this.known.has(key)) this.due(endOf(known))
    }
    return { changes, left }
  }

  /** Whether it need not be told that we are still there. */
  private isSeen ({ entry: { key, value }, direct }: Known): boolean {
    return key === this.session || value === undefined || direct?.startsWith('channel') === true
  }

  /** One entry's time is over. Whether somebody left. */
  private end (now: number, key: string, known: Known, changes: Set<string>): boolean {
    this.bytes -= known.weight
    if (known.entry.value === undefined) {
      this.known.delete(key)
      return false
    }
    // Later than what it showed, by its own clock: so others believe it, unless it has shown itself since.
    const stamp = known.entry.stamp + (known.doomed === undefined ? 0 : 1)
    if (known.doomed !== undefined) changes.add(key)
    known.entry = { key, value: undefined, stamp }
    known.weight = weightOf(known.entry)
    this.bytes += known.weight
    known.at = now
    known.doomed = known.direct = undefined
    known.links.clear()
    return true
  }

  /** The updates that tell of these keys. Who told us needs not be told. */
  updates (keys: Iterable<string>, to: LinkId): Uint8Array[] {
    const updates: Uint8Array[] = []
    let entries: Entry[] = []
    let length = 0
    const flush = (): void => {
      if (entries.length > 0) updates.push(joinEntries(entries))
      entries = []
      length = 0
    }
    for (const key of keys) {
      const known = this.known.get(key)
      if (known === undefined || known.links.has(to)) continue
      if (length + known.weight > UPDATE) flush()
      entries.push(known.entry)
      length += known.weight
    }
    flush()
    return updates
  }

  /** The key under which we are known. */
  get ownKey (): string { return this.session }

  /** Every key, those of sessions that are gone included. */
  keys (): string[] { return [...this.known.keys()] }

  /** The sessions that are there, but for ours. */
  sessions (): Set<string> {
    const there = [...this.known.values()].filter(known => known.entry.value !== undefined)
    return new Set(there.map(known => known.entry.key).filter(key => key !== this.session))
  }

  /** Who is there, but for us. */
  online (now: number): Online[] {
    const online: Online[] = []
    for (const { entry, since, links, direct } of this.known.values()) {
      if (entry.key === this.session || entry.value === undefined) continue
      online.push({ session: entry.key, value: entry.value, since: now - since, links: [...links], direct })
    }
    return online
  }

  get deadline (): number | undefined {
    const deadline = Math.min(this.next ?? Infinity, this.showAt ?? Infinity)
    return deadline === Infinity ? undefined : deadline
  }
}

/** When it is over, one way or the other. Of whom a channel leads to, the channel tells. */
function endOf ({ entry, at, direct, doomed }: Known): number {
  const lifetime = entry.value === undefined ? MEMORY : direct?.startsWith('channel') === true ? Infinity : LIFETIME
  return Math.min(at + lifetime, doomed ?? Infinity)
}
