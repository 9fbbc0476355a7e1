// One object that keeps a document in step.

import { LoroDoc } from 'loro-crdt'
import type { Adapter, Storage, Store } from './adapter.js'
import { broadcastChannel } from './adapter/tabs.js'
import { Driver } from './driver.js'
import type { Stored } from './engine.js'
import type { PresenceValue } from './engine/entries.js'
import { DocumentReplica } from './engine/replica.js'
import { encodePresence, Presence, type PresenceParser } from './presence.js'
import { INITIAL, type PeerEvent, type Status, type StorageState } from './status.js'

/** How long closing waits for the disk and for the hubs to take what is left, in milliseconds. */
const FLUSH = 2000
/** The longest name of a room, in bytes. */
export const MAX_ROOM = 128

/** What a peer is to be made of. */
export interface PeerOptions<P> {
  /** The same name at hubs, at relays and in signaling. Any characters, 1 to 128 bytes. */
  room: string
  /**
   * The document to keep in step; a new one if there is none. Edit it and commit: that is all. It needs a peer id of its
   * own for each run, as `new LoroDoc()` draws one.
   */
  doc?: LoroDoc
  /** Hubs and relays, the local disk, other browsers. Without `broadcastChannel()` among them the tabs of this browser share too. */
  adapters?: readonly Adapter[]
  /** Whether the tabs of this browser that have the room open share without any network. On if nothing is said. */
  tabs?: boolean
  /** What to show of ourselves, at most 4 KiB as JSON. Nothing if nothing is said. */
  presence?: P
  /** Reads what others show, who may be anybody; everything is taken for a `P` if there is none. */
  parsePresence?: PresenceParser<P>
  /** Who the user is, by which sessions are grouped. Each session is a user of its own if nothing is said. */
  user?: string
}

/** A room whose name is empty or too long. */
export class RoomNameError extends Error {
  constructor (length: number) {
    super(`room name is ${length} bytes, expected 1 to ${MAX_ROOM}`)
    this.name = 'RoomNameError'
  }
}

/** A peer that runs: it keeps its document in step until it is closed. */
export class Peer<P = unknown> {
  /** The document. */
  readonly doc: LoroDoc
  readonly room: string
  /** What this run of the peer is called in presence and in signaling. */
  readonly session: string
  /** Shows what we are at, and sees the others. */
  readonly presence: Presence<P>
  /** Resolves once what is stored is in the document; the network is not touched before. */
  readonly loaded: Promise<void>
  private current: Status = INITIAL
  private driver: Driver | undefined
  private shows: PresenceValue | undefined
  private readonly listeners = new Set<() => void>()
  private readonly hearers = new Set<(event: PeerEvent) => void>()
  private readonly endings: Array<() => void> = []
  private closing: Promise<void> | undefined

  /** Starts at once. Throws when the room's name or the presence is too long. */
  constructor (options: PeerOptions<P>) {
    const { room, adapters = [] } = options
    const length = new TextEncoder().encode(room).length
    if (length < 1 || length > MAX_ROOM) throw new RoomNameError(length)
    this.room = room
    this.doc = options.doc ?? new LoroDoc()
    this.session = freshSession()
    const user = options.user ?? this.session
    if (options.presence !== undefined) this.shows = encodePresence(user, options.presence)
    const parse = options.parsePresence ?? ((shown: unknown) => shown as P)
    this.presence = new Presence<P>(user, options.presence, parse, value => {
      this.shows = value
      this.driver?.tell({ type: 'present', value })
    })
    const hasTabs = options.tabs === false || adapters.some(adapter => adapter.kind === 'tabs')
    this.loaded = this.start(hasTabs ? adapters : [...adapters, broadcastChannel()])
  }

  private async start (adapters: readonly Adapter[]): Promise<void> {
    const storage = adapters.find((adapter): adapter is Storage => adapter.kind === 'storage')
    if (storage !== undefined) this.set({ ...this.current, storage: 'loading' })
    const { store, state, stored } = await this.load(storage)
    if (this.closing !== undefined) return store?.close()
    const seed = crypto.getRandomValues(new BigUint64Array(1))[0] ?? 0n
    const transports = adapters.filter(adapter => adapter.kind === 'hub')
    const mesh = adapters.find(adapter => adapter.kind === 'mesh')
    const config = {
      room: this.room, session: this.session, seed, wall: Date.now(), uplinks: transports.map(({ auth }) => auth), channels: mesh?.maxConns ?? 0
    }
    const driver = new Driver(config, adapters, new DocumentReplica(this.doc), stored, store, state, {
      status: status => { this.set(status) },
      online: online => {
        const now = Date.now()
        // Its age is measured anew each time: what is shown must not change with it.
        this.presence.seen(online.map(({ session, value, since, path, roundTrip }) =>
          ({ session, value, since: Math.round((now - since) / 100) * 100, path, roundTrip })))
      },
      event: event => { for (const hear of [...this.hearers]) hear(event) }
    })
    this.driver = driver
    this.follow(driver)
    driver.tell({ type: 'present', value: this.shows })
    driver.tell({ type: 'edited' })
  }

  /** What is stored, into the document. A disk that cannot be used is told of, and done without. */
  private async load (storage: Storage | undefined): Promise<{ store: Store | undefined, state: StorageState, stored: Stored }> {
    const nothing: Stored = { version: new Map(), entries: 0, bytes: 0 }
    if (storage === undefined) return { store: undefined, state: 'none', stored: nothing }
    let store: Store | undefined
    let updates: Uint8Array[]
    try {
      store = await storage.open(this.room)
      updates = await store.load()
    } catch (error) {
      store?.close()
      this.tellLater({ type: 'memoryOnly', why: messageOf(error) })
      return { store: undefined, state: 'memory', stored: nothing }
    }
    if (updates.length === 0) return { store, state: 'kept', stored: nothing }
    try {
      // Its own document tells which version is stored, whatever else the application's has.
      const stored = new LoroDoc()
      stored.detach()
      stored.importBatch(updates)
      const { version } = new DocumentReplica(stored)
      stored.free()
      this.doc.importBatch(updates)
      return { store, state: 'kept', stored: { version, entries: updates.length, bytes: updates.reduce((sum, update) => sum + update.length, 0) } }
    } catch (error) {
      // Nothing may be written over what cannot be read.
      store.close()
      this.tellLater({ type: 'storedDamaged', why: messageOf(error) })
      return { store: undefined, state: 'memory', stored: nothing }
    }
  }

  /** Who made us can listen before this is told. */
  private tellLater (event: PeerEvent): void {
    setTimeout(() => { for (const hear of [...this.hearers]) hear(event) })
  }

  /** Hears of the application's edits, and of the page's comings and goings. */
  private follow (driver: Driver): void {
    let rung = false
    const ring = (): void => {
      if (rung) return
      rung = true
      queueMicrotask(() => {
        rung = false
        driver.tell({ type: 'edited' })
      })
    }
    this.endings.push(this.doc.subscribeLocalUpdates(ring), this.doc.subscribe(event => { if (event.by === 'import') ring() }))
    if (typeof window === 'undefined') return
    const wake = (): void => { driver.wake() }
    this.on(window, 'online', wake)
    this.on(document, 'visibilitychange', () => { if (document.visibilityState === 'visible') wake() })
    // A page that may come back must not hold connections, and one that does not has no other time for a goodbye.
    this.on(window, 'pagehide', () => { driver.suspend() })
    this.on(window, 'pageshow', event => {
      if (!(event as PageTransitionEvent).persisted) return
      driver.tell({ type: 'present', value: this.shows })
      driver.resume()
    })
  }

  private on (target: EventTarget, name: string, listener: (event: Event) => void): void {
    target.addEventListener(name, listener)
    this.endings.push(() => { target.removeEventListener(name, listener) })
  }

  private set (status: Status): void {
    this.current = status
    for (const listener of [...this.listeners]) listener()
  }

  /** How all of it is doing; at most some 20 ms old. The same object until something changes. */
  get status (): Status { return this.current }

  /** Calls back after each change of {@link status}; what this returns ends that. */
  subscribe (listener: () => void): () => void {
    this.listeners.add(listener)
    return () => { this.listeners.delete(listener) }
  }

  /** Calls back with what happens from now on; what this returns ends that. */
  onEvent (hear: (event: PeerEvent) => void): () => void {
    this.hearers.add(hear)
    return () => { this.hearers.delete(hear) }
  }

  /** Resolves once the status is like this, or the peer is closed. */
  async waitUntil (isLikeThis: (status: Status) => boolean): Promise<void> {
    if (isLikeThis(this.current) || this.current.closed) return
    await new Promise<void>(resolve => {
      const end = this.subscribe(() => {
        if (!isLikeThis(this.current) && !this.current.closed) return
        end()
        resolve()
      })
    })
  }

  /**
   * Resolves once every link that is up has exchanged versions, the document has what they had to say, and no hub or relay
   * is just being dialled. One that cannot be reached is not waited for.
   */
  async caughtUp (): Promise<void> { await this.waitUntil(({ caughtUp }) => caughtUp) }

  /** Stop waiting before the next attempt to connect: the network may be back. Also tries those again that did not want us. */
  wake (): void { this.driver?.wake() }

  /**
   * Waits up to two seconds for the disk and the hubs to take what is left, tells the others that we go, and ends
   * everything. The document goes on to be the application's.
   */
  close (): Promise<void> {
    this.closing ??= this.end()
    return this.closing
  }

  private async end (): Promise<void> {
    const { driver } = this
    driver?.tell({ type: 'edited' })
    const until = performance.now() + FLUSH
    while (driver !== undefined && !driver.isFlushed && performance.now() < until) {
      await new Promise(resolve => { setTimeout(resolve, 10) })
    }
    for (const end of this.endings.splice(0)) end()
    await driver?.close()
    if (driver === undefined) this.set({ ...this.current, closed: true })
  }
}

function messageOf (error: unknown): string { return error instanceof Error ? error.message : String(error) }

/** 128 random bits, as y-webrtc's peers have. */
export function freshSession (): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16))
  bytes[6] = ((bytes[6] ?? 0) & 0x0f) | 0x40
  bytes[8] = ((bytes[8] ?? 0) & 0x3f) | 0x80
  const hex = [...bytes].map(byte => byte.toString(16).padStart(2, '0')).join('')
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5')
}
