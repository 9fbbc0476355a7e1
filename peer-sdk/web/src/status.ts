// How a peer is doing, and what happens to it.

import type { PasswordProblem, Path, SignalingState } from './adapter.js'
import type { EngineEvent, LinkId } from './engine/vocabulary.js'

/** How one link is doing. */
export interface LinkState {
  /** Which. Hubs and relays count in the order in which they were given. */
  link: LinkId
  /** For hubs and relays the URL without what stands after `?`. */
  name: string | undefined
  /** The session at the other end, where it leads straight to one. */
  session: string | undefined
  /** It is there. */
  up: boolean
  /** Versions have been exchanged. */
  joined: boolean
  /** The other end is known to have everything. */
  holdsAll: boolean
  /** Updates that wait for an acknowledgement. */
  unacknowledged: number
  /** It takes what is edited here. */
  mayWrite: boolean
  /** Which way it goes. */
  path: Path | undefined
  /** How long a message takes there and back in milliseconds, where it was measured. */
  roundTrip: number | undefined
  /** Why it is not there, or was not the last time. */
  trouble: string | undefined
}

/**
 * What keeps the document: `none` if there is no such adapter; `loading`; `kept`; `memory` if this browser gives none, as
 * in private windows, so that closing the tab loses what no other peer has; `failing` while it refuses what it is given.
 */
export type StorageState = 'none' | 'loading' | 'kept' | 'memory' | 'failing'

/** How a peer is doing. Never changed, but replaced. */
export interface Status {
  /** What is stored is in the document, and others may be told of it. */
  loaded: boolean
  storage: StorageState
  /** Everything that is known here is on the local disk, if there is one. */
  stored: boolean
  /** Every link that is up has exchanged versions, and no hub or relay is just being dialled. */
  caughtUp: boolean
  /** Every hub and relay, and every other link that is up. */
  links: readonly LinkState[]
  /** Every signaling server. */
  signaling: readonly SignalingState[]
  /** Frames and updates that could not be read, ever. */
  garbage: number
  /** Why the local disk does not keep what it is given. */
  trouble: string | undefined
  /** The peer was closed. */
  closed: boolean
}

/** Something that an application may want to know. Changes of the document come from its own subscriptions. */
export type PeerEvent =
  | Exclude<EngineEvent, { type: 'storeFailed' }>
  /** The local disk did not keep what it was given. `quota` if it is full. It is tried again until it does. */
  | { type: 'storeFailed', why: string, quota: boolean }
  /** There is no local disk here: what no other peer has is lost when the tab is closed. */
  | { type: 'memoryOnly', why: string }
  /** What is stored cannot be read as a document; it was left as it is. Nothing is stored from here on. */
  | { type: 'storedDamaged', why: string }
  /** What comes from signaling is not encrypted as ours is. */
  | { type: 'password', problem: PasswordProblem }
  /** STUN and TURN servers could not be asked for. */
  | { type: 'iceFailed', why: string }

/** Whether a hub or relay has everything that is known here, and has acknowledged what it got from us. */
export function isAcknowledged (status: Status): boolean {
  return status.links.some(({ link, holdsAll, unacknowledged }) => link.startsWith('uplink') && holdsAll && unacknowledged === 0)
}

export const INITIAL: Status = {
  loaded: false, storage: 'none', stored: true, caughtUp: false, links: [], signaling: [], garbage: 0, trouble: undefined, closed: false
}

export function isSameStatus (a: Status, b: Status): boolean { return JSON.stringify(a) === JSON.stringify(b) }

export type { LinkId }
