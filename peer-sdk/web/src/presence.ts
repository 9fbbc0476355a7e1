// Who is there, and what they show: typed, over the bytes that an `EphemeralStore` has.
//
// Each session, that is each run of a peer, shows one value under the name of its user. What others show is a stranger's:
// who shows something that the parser does not take is there, without a value.

import type { Path } from './adapter.js'
import type { PresenceValue } from './engine/entries.js'
import { weightOf } from './engine/entries.js'
import { MAX_PRESENCE } from './engine/presence.js'

/** One session that is there. */
export interface Someone<P> {
  /** Drawn at random at each start. */
  session: string
  /** The name of its user, or its session's if nothing was said. At most 256 characters of a stranger's choice. */
  user: string
  /** What it shows; `undefined` if that is no `P`. */
  shows: P | undefined
  /** Since when we have seen it, in milliseconds since 1970. */
  since: number
  /** How we reach it. */
  path: Path
  /** How long a message takes there and back in milliseconds, where we reach it straight and have measured. */
  roundTrip: number | undefined
}

/** What is known of presence at one time. Never changed, but replaced. */
export interface PresenceView<P> {
  /** What we show; `undefined` if nothing. */
  self: P | undefined
  /** Everybody else's sessions, those that we have seen longest first. */
  peers: ReadonlyArray<Someone<P>>
  /** How many users are there who count, ourselves included if we show something. */
  online: number
}

/** Presence is larger than others take. What was shown before stays. */
export class PresenceTooLarge extends Error {
  constructor (readonly length: number, readonly limit: number) {
    super(`presence is ${length} bytes, limit is ${limit}`)
    this.name = 'PresenceTooLarge'
  }
}

/** Reads what a stranger shows; `undefined` if that is no `P`. May throw for the same. */
export type PresenceParser<P> = (shown: unknown) => P | undefined

const LONGEST_NAME = 256

/** Shows, and sees. */
export class Presence<P> {
  private readonly listeners = new Set<() => void>()
  private current: PresenceView<P>

  /** @internal */
  constructor (
    readonly user: string,
    self: P | undefined,
    private readonly parse: PresenceParser<P>,
    private readonly counts: (shows: unknown) => boolean,
    private readonly show: (value: PresenceValue | undefined) => void
  ) {
    this.current = { self, peers: [], online: self !== undefined && counts(self) ? 1 : 0 }
  }

  /** What we show; `undefined` if nothing. */
  get self (): P | undefined { return this.current.self }

  /** Everybody else's sessions. */
  get peers (): ReadonlyArray<Someone<P>> { return this.current.peers }

  /** How many users are there who count, ourselves included if we show something. */
  get online (): number { return this.current.online }

  /** All of it, the same object until something changes. */
  get view (): PresenceView<P> { return this.current }

  /**
   * Shows this to everybody in the room, at once or at most 50 ms after the last. Of several within that time the last is
   * shown. Throws {@link PresenceTooLarge} above 4 KiB.
   */
  set (value: P): void {
    this.show(encodePresence(this.user, value))
    this.update({ ...this.current, self: value })
  }

  /** Shows nothing more: to others we are gone, and still see them. */
  clear (): void {
    this.show(undefined)
    this.update({ ...this.current, self: undefined })
  }

  /** Calls back after each change; what this returns ends that. */
  subscribe (listener: () => void): () => void {
    this.listeners.add(listener)
    return () => { this.listeners.delete(listener) }
  }

  /** @internal */
  seen (others: Array<Omit<Someone<P>, 'user' | 'shows'> & { value: PresenceValue }>): void {
    const peers = others.map(({ value, ...other }) => ({ ...other, ...this.understood(other.session, value) }))
    peers.sort((a, b) => a.since - b.since || (a.session < b.session ? -1 : 1))
    if (!isSame(peers, this.current.peers)) this.update({ ...this.current, peers })
  }

  private understood (session: string, value: PresenceValue): { user: string, shows: P | undefined } {
    if (typeof value !== 'object' || value === null) return { user: session, shows: undefined }
    const { user, state } = value as { user?: unknown, state?: unknown }
    const name = typeof user === 'string' && user !== '' ? user.slice(0, LONGEST_NAME) : session
    try {
      return { user: name, shows: this.parse(state) }
    } catch {
      return { user: name, shows: undefined }
    }
  }

  private update (view: Omit<PresenceView<P>, 'online'>): void {
    const users = new Set(view.peers.filter(({ shows }) => this.counts(shows)).map(({ user }) => user))
    if (view.self !== undefined && this.counts(view.self)) users.add(this.user)
    this.current = { ...view, online: users.size }
    for (const listener of [...this.listeners]) listener()
  }
}

/** What goes out: a map of the user's name and what it shows. */
export function encodePresence (user: string, state: unknown): PresenceValue {
  const value = JSON.parse(JSON.stringify({ user, state })) as PresenceValue
  // What stands around it has room in the difference.
  const limit = MAX_PRESENCE / 2
  const length = weightOf({ key: '', value, stamp: 0 })
  if (length > limit) throw new PresenceTooLarge(length, limit)
  return value
}

function isSame (a: ReadonlyArray<Someone<unknown>>, b: ReadonlyArray<Someone<unknown>>): boolean {
  return a.length === b.length && a.every((one, at) => {
    const other = b[at]
    return other !== undefined && one.session === other.session && one.user === other.user && one.path === other.path &&
      one.roundTrip === other.roundTrip && JSON.stringify(one.shows) === JSON.stringify(other.shows)
  })
}
