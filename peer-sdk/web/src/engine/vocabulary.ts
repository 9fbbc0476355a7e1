// What the engine hears and says. Times are milliseconds on one clock that never goes back.

import type { PresenceValue } from './entries.js'
import type { Version } from './version.js'

/**
 * One way to one other end: `uplink 0` is the first hub or relay, the same after a reconnect; `channel 7` a data channel,
 * minted by the engine; `tab 3` another tab of this browser. Frames of a link that has gone down are never given to the
 * engine again.
 */
export type LinkId = `uplink ${number}` | `channel ${number}` | `tab ${number}`

/** What an engine is made of. */
export interface Config {
  /** The room, at every hub and relay and in signaling. At most 128 bytes. */
  room: string
  /** What this run of the peer is called in signaling and in presence. Fresh for each run. */
  session: string
  /** Where all randomness comes from. Two engines of one seed behave alike. */
  seed: bigint
  /** Milliseconds since 1970 at the instant that the engine is made, by our clock. Others need not agree. */
  wall: number
  /** What to show to each hub or relay when joining; its length is how many there are. */
  uplinks: Uint8Array[]
  /** Most data channels at once; 0 is none at all, and then signaling is ignored. */
  channels: number
}

/** One thing that happened. */
export type Input =
  /** The application has changed the document. */
  | { type: 'edited' }
  /** What others are to see of us; `undefined` takes it away. */
  | { type: 'present', value: PresenceValue | undefined }
  /** A link is there. `frame` is the longest message that it carries; for a tab, whether we are the one who asks first. */
  | { type: 'up', link: LinkId, frame: number, asks?: boolean, session?: string }
  /** A message has come. */
  | { type: 'frame', link: LinkId, frame: Uint8Array }
  /** So many bytes of what was sent have left our memory for the network. */
  | { type: 'drained', link: LinkId, bytes: number }
  /** A link is gone, or could not be made. */
  | { type: 'down', link: LinkId, end: End }
  /** Nothing has come over a link for longer than the network explains: whoever is there has to show itself anew. */
  | { type: 'quiet', link: LinkId }
  /** After that something comes again. */
  | { type: 'resumed', link: LinkId }
  /** The answer to `append` and `compact`. */
  | { type: 'stored', ticket: number, kept: boolean }
  /** A signaling server has taken our subscription: at the start, and after each reconnect. */
  | { type: 'signalingUp' }
  /** Somebody says over signaling that it is there. */
  | { type: 'announced', from: string }
  /** Somebody says something to us over signaling. */
  | { type: 'signalled', from: string, kind: SignalKind, token: number | undefined, data: unknown }
  /** A connection that we make has something to say to its other end. */
  | { type: 'local', channel: number, data: unknown }
  /** Stop waiting: the network may be back. */
  | { type: 'wake' }
  /** Say goodbye. Links should be closed once what this makes us send has been sent. */
  | { type: 'close' }
  /** Nothing, but time has passed. */
  | { type: 'tick' }

/** What to do about it. */
export type Output =
  /** Connect to a hub or relay, and answer with `up` or `down`. */
  | { type: 'dial', uplink: number }
  /** Send a message. */
  | { type: 'send', link: LinkId, frame: Uint8Array }
  /** End a link. No `down` is needed; nothing is sent there any more. */
  | { type: 'cut', link: LinkId, reason: Reason }
  /** Keep an update on disk, and answer. The next write is asked for only after the answer. */
  | { type: 'append', ticket: number, update: Uint8Array }
  /** Keep this in place of everything that was stored before, and answer. */
  | { type: 'compact', ticket: number, snapshot: Uint8Array }
  /** Say over every signaling server that we are there. */
  | { type: 'announce' }
  /** Say something to one peer over signaling. */
  | { type: 'signal', to: string, token: number, data: unknown }
  /** Make a connection with one data channel. Answer with `local` as often as needed, then with `up` or `down`. */
  | { type: 'connect', channel: number, peer: string, initiator: boolean }
  /** Give a connection what its other end has said over signaling. */
  | { type: 'deliver', channel: number, data: unknown }
  /** Something that an application may want to know. */
  | { type: 'event', event: EngineEvent }

/** Something that an application may want to know. */
export type EngineEvent =
  /** Somebody came, changed or left. */
  | { type: 'presence' }
  /** Versions have been exchanged over a link for the first time since it came up. */
  | { type: 'joined', link: LinkId }
  /** The other end lets us read only: it is sent nothing. */
  | { type: 'readOnly', link: LinkId }
  /** The other end does not take what we have written. It is tried again now and then. */
  | { type: 'refused', link: LinkId, status: Refusal }
  /** The disk does not keep what it is given. It is tried again. */
  | { type: 'storeFailed' }
  /** A link was ended from here. */
  | { type: 'ended', link: LinkId, reason: Reason }
  /** The document does not work any more: nothing reaches it. Start again, with what is stored. */
  | { type: 'documentBroken' }

/** Whether a link that ended may be tried again: `refused` means not before `wake`, `foreign` not for a long while. */
export type End = 'lost' | 'refused' | 'foreign'

/** What kind of thing a y-webrtc signal is. */
export type SignalKind = 'offer' | 'answer' | 'other'

/** Why an update was not taken. */
export type Refusal = 'unknown' | 'permission denied' | 'invalid update' | 'too large' | 'too many' | 'fragments too late'

/** Why a link is ended from here. */
export type Reason =
  /** What comes is not the Loro Protocol: another application in the same room. */
  | 'foreign'
  /** Too much of what came could not be read. */
  | 'garbage'
  /** What came broke the document. */
  | 'hostile'
  /** So much waits for it that it will be brought up to date afresh. */
  | 'too slow'
  /** It does not answer. */
  | 'silent'
  /** It does not let us in, with these credentials. */
  | 'auth failed'
  /** It does not let us in for another reason, which may pass. */
  | 'join refused'
  /** It has put us out. */
  | 'evicted'
  /** There are better data channels to keep. */
  | 'surplus'
  /** A connection did not come about in time. */
  | 'timeout'
  /** Both ends made an offer, and the other one's counts. */
  | 'glare'

/** Whether trying again is of no use before something is changed. */
export function isFinal (reason: Reason): boolean { return reason === 'auth failed' || reason === 'evicted' }

/** Thrown by whatever handles a frame, and ends its link. */
export class Cut extends Error {
  constructor (readonly reason: Reason) { super(reason) }
}

/** Somebody who is there. */
export interface Online {
  /** Which run of which peer. */
  session: string
  /** What it shows: a stranger's, of any shape. */
  value: PresenceValue
  /** For how long it has been there, as far as we have seen, in milliseconds. */
  since: number
  /** The links over which it was heard of. */
  links: LinkId[]
  /** The link that leads straight to it. */
  direct: LinkId | undefined
}

/** How one link is doing. */
export interface LinkStatus {
  /** Which. */
  link: LinkId
  /** Versions have been exchanged since it came up. */
  joined: boolean
  /** The other end is known to hold everything that we hold. */
  holdsAll: boolean
  /** Updates that wait for an acknowledgement. */
  unacknowledged: number
  /** Updates are sent there; `false` if it lets us read only. */
  mayWrite: boolean
}

/** How all of it is doing. */
export interface EngineStatus {
  /** What we hold. */
  version: Version
  /** Everything that we hold is on disk. */
  stored: boolean
  /** Every link that is up. */
  links: LinkStatus[]
  /** How many hubs and relays are being dialled. */
  dialling: number
  /** Frames and updates that could not be read, ever. */
  garbage: number
}
