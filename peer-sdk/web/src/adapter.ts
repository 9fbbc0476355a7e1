// The ways to other peers and to the local disk, and the seams that they fill.
//
// An adapter knows sockets, stores and formats, and nothing of documents; the engine knows documents, and nothing of
// sockets. They meet in the driver, which gives every connection a `Door` to it.

import type { End, SignalKind } from './engine/vocabulary.js'

/** Which way a link goes: straight to the other peer, to it through a TURN server, to a hub or relay, to another tab. */
export type Path = 'direct' | 'turn' | 'hub' | 'tab'

/** A connection's way to the driver. After `down` nothing more is told. */
export interface Door {
  /** The connection is there, and carries messages of at most `frame` bytes. */
  open: (frame: number) => void
  /** A message has come. */
  received: (frame: Uint8Array) => void
  /** So many bytes of what was sent have left for the network. */
  drained: (bytes: number) => void
  /** It has ended, or never was. */
  down: (end: End, why?: string) => void
  /** Which way the packets go, and how long a message takes there and back in milliseconds, where it was measured. */
  path: (path: Path, roundTrip?: number) => void
  /** Nothing has come for longer than the network explains. */
  quiet: () => void
  /** It was interrupted or quiet, and is back: the network may be, too. */
  resumed: () => void
  /** A data channel's connection has something to say over signaling. */
  signal: (data: unknown) => void
}

/** A connection, as the driver sees it. */
export interface Port {
  /** Sends a message, once the door is open. */
  send: (frame: Uint8Array) => void
  /** Ends it, after what waits has been sent as far as that is quick. Nothing more is told through the door. */
  close: () => void
  /** The network may be back: prove that this is alive. */
  wake?: () => void
  /** The other end of a data channel says this over signaling. */
  hear?: (data: unknown) => void
}

/** Dials one hub or relay. */
export interface Transport {
  kind: 'hub'
  /** As it can be shown: without what stands after `?`. */
  name: string
  /** What to show when joining. */
  auth: Uint8Array
  dial: (door: Door) => Port
}

/** How a signaling server is doing. */
export interface SignalingState {
  /** Scheme, host and port. Path and query may hold a token and are left out. */
  name: string
  state: 'connecting' | 'connected' | 'waiting'
}

/** What is heard from signaling servers. What is not for us, and what we said ourselves, is left out. */
export interface Ear {
  /** A server has taken our subscription. */
  up: () => void
  announced: (from: string) => void
  signalled: (from: string, kind: SignalKind, token: number | undefined, data: unknown) => void
  /** What comes cannot be decrypted, or is not encrypted as ours is; or this browser cannot encrypt here. */
  password: (problem: PasswordProblem) => void
  /** {@link MeshPort.signaling} differs. */
  changed: () => void
  /** STUN and TURN servers could not be asked for, for this reason. Connections are tried without. */
  iceFailed: (why: string) => void
}

/** Why we and somebody in the room do not understand each other. Anybody can cause it, so it is a hint for a person. */
export type PasswordProblem = 'different' | 'missing' | 'superfluous' | 'unavailable'

/** Finds remote peers, and connects to them by data channels. */
export interface Mesh {
  kind: 'mesh'
  /** Most data channels at once. */
  maxConns: number
  start: (room: string, session: string, ear: Ear) => MeshPort
}

/** A mesh that runs. */
export interface MeshPort {
  readonly signaling: SignalingState[]
  announce: () => void
  signal: (to: string, token: number, data: unknown) => void
  connect: (peer: string, initiator: boolean, door: Door) => Port
  wake: () => void
  close: () => void
}

/** Keeps documents on the local disk. */
export interface Storage {
  kind: 'storage'
  open: (room: string) => Promise<Store>
}

/** What is kept of one room. */
export interface Store {
  /** Everything, in order. */
  load: () => Promise<Uint8Array[]>
  /** Keeps one more update. When this resolves, closing the browser does not lose it. */
  append: (update: Uint8Array) => Promise<void>
  /** Keeps this in place of everything that was loaded or appended through this store. */
  compact: (snapshot: Uint8Array) => Promise<void>
  close: () => void
}

/** The other tabs of this browser that have the same room open. */
export interface Tabs {
  kind: 'tabs'
  start: (room: string, session: string, found: TabFound) => { close: () => void }
}

/** Another tab is there: who, and whether we are the one who asks first. */
export type TabFound = (session: string, asks: boolean, connect: (door: Door) => Port) => void

/** Whatever a peer can be made of. */
export type Adapter = Transport | Mesh | Storage | Tabs
