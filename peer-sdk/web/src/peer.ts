// One object that keeps a document in step.

import { LoroDoc } from 'loro-crdt'
import type { Adapter, Storage, Store } from './adapter.js'
import { broadcastChannel } from './adapter/tabs.js'
import { Driver, type Opened } from './driver.js'
import type { PresenceValue } from './engine/entries.js'
import { DocumentReplica } from './engine/replica.js'
import { encodePresence, Presence, type PresenceParser } from './presence.js'
import { INITIAL, type PeerEvent, type Status } from './status.js'

/** How long closing waits for the disk and for the hubs to take what is left, in milliseconds. */
const FLUSH = 2000
/** How much later Loro is loaded than others are looked for, at most, in milliseconds. */
const HEAD_START = 50
/** The longest name of a room, in bytes. */
export const MAX_ROOM = 128

/** A document, or how there will be one. */
export type Given = LoroDoc | Promise<LoroDoc> | (() => Promise<LoroDoc>)

/** What a peer is to be made of. */
export interface PeerOptions<P> {
  /** The same name at hubs, at relays and in signaling. Any characters, 1 to 128 bytes. */
  room: string
  /**
   * The document to keep in step; a new one if there is none. Edit it and commit: that is all. It needs a peer id of its
   * own for each run, as `new LoroDoc()` draws one. A page that has yet to load Loro gives a function that does so. It is
   * called as soon as a server is reached, or after a moment if none is: everybody is looked for first, and connected to
   * meanwhile. A promise will do, too.
   */
  doc?: Given
  /** Hubs and relays, the local disk, other browsers. Without `broadcastChannel()` among them the tabs of this browser share too. */
  adapters?: readonly Adapter[]
  /** Whether the tabs of this browser that have the room open share without any network. On if nothing is said. */
  tabs?: boolean
  /** What to show of ourselves, at most 4 KiB as JSON. Nothing if nothing is said. */
  presence?: P
  /** Reads what others show, who may be anybody; everything is taken for a `P` if there is none. */
  parsePresence?: PresenceParser<P>
  /** Who counts as online, by what is shown: not a program that serves the others, say. Everybody if nothing is said. */
  counts?: (shows: P | undefined) => boolean
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
  readonly room: string
  /** What this run of the peer is called in presence and in signaling. */
  readonly session: string
  /** Shows what we are at, and sees the others. */
  readonly presence: Presence<P>
  /**
   * Resolves once what is stored is in the document. Others may be connected to before that, but are told nothing of the
   * document and of its reader. Rejects when there will be no document, since its promise was rejected.
   */
  readonly loaded: Promise<void>
  private current: Status = INITIAL
  private opened: LoroDoc | undefined
  private readonly driver: Driver
  private shows: PresenceValue | undefined
  private readonly listeners = new Set<() => void>()
  private readonly hearers = new Set<(event: PeerEvent) => void>()
  private readonly endings: Array<() => void> = []
  private reached: () => void = () => {}
  private closing: Promise<void> | undefined

  /** Starts at once. Throws when the room's name or the presence is too long. */
  constructor (options: PeerOptions<P>) {
    const { room, adapters = [] } = options
    const length = new TextEncoder().encode(room).length
    if (length < 1 || length > MAX_ROOM) throw new RoomNameError(length)
    this.room = room
    this.session = freshSession()
    const user = options.user ?? this.session
    if (options.presence !== undefined) this.shows = encodePresence(user, options.presence)
    const parse = options.parsePresence ?? ((shown: unknown) => shown as P)
    // It is asked about what `parse` has made only.
    const counts = (options.counts ?? (() => true)) as (shows: unknown) => boolean
    this.presence = new Presence<P>(user, options.presence, parse, counts, value => {
      this.shows = value
      this.driver.tell({ type: 'present', value })
    })
    const hasTabs = options.tabs === false || adapters.some(adapter => adapter.kind === 'tabs')
    const all = hasTabs ? adapters : [...adapters, broadcastChannel()]
    this.driver = this.start(all)
    this.followPage()
    this.loaded = this.load(options.doc ?? new LoroDoc(), all.find((adapter): adapter is Storage => adapter.kind === 'storage'))
  }

  /** Looks for everybody, and shows us. */
  private start (adapters: readonly Adapter[]): Driver {
    const seed = crypto.getRandomValues(new BigUint64Array(1))[0] ?? 0n
    const transports = adapters.filter(adapter => adapter.kind === 'hub')
    const mesh = adapters.find(adapter => adapter.kind === 'mesh')
    const config = {
      room: this.room, session: this.session, seed, wall: Date.now(), uplinks: transports.map(({ auth }) => auth), channels: mesh?.maxConns ?? 0
    }
    const driver = new Driver(config, adapters, {
      status: status => { this.set(status) },
      online: online => {
        const now = Date.now()
        // Its age is measured anew each time: what is shown must not change with it.
        this.presence.seen(online.map(({ session, value, since, path, roundTrip }) =>
          ({ session, value, since: Math.round((now - since) / 100) * 100, path, roundTrip })))
      },
      event: event => { for (const hear of [...this.hearers]) hear(event) },
      reached: () => { this.reached() }
    })
    driver.tell({ type: 'present', value: this.shows })
    return driver
  }

  /** Waits for the document and the disk, puts what is stored into the document, and lets others have it. */
  private async load (given: Given, storage: Storage | undefined): Promise<void> {
    if (storage !== undefined) this.set({ ...this.current, storage: 'loading' })
    // Both at once: neither needs the other.
    const reading = this.read(storage)
    let doc: LoroDoc
    try {
      doc = this.opened = typeof given === 'function' ? await this.fetch(given) : given instanceof Promise ? await given : given
    } catch (error) {
      void reading.then(({ store }) => { store?.close() })
      void this.close()
      throw error
    }
    const { store, updates, trouble } = await reading
    if (this.closing !== undefined) return store?.close()
    const read = this.take(doc, store, updates)
    if (trouble !== undefined) this.tellLater({ type: 'memoryOnly', why: trouble })
    this.followDocument(doc)
    this.driver.open({ ...read, storage: storage === undefined ? 'none' : read.store === undefined ? 'memory' : 'kept' })
  }

  /** Some megabytes must not be in the way of the few words by which others are found. */
  private async fetch (load: () => Promise<LoroDoc>): Promise<LoroDoc> {
    const coming = import('./rehearsal.js').catch(() => {})
    await new Promise<void>(resolve => { setTimeout(this.reached = resolve, HEAD_START) })
    const doc = await load()
    void coming.then(it => { if (it !== undefined) this.rehearse(it.rehearsal(doc => new DocumentReplica(doc))) })
    return doc
  }

  /** While others are being connected to, a little at a time, and until somebody is there. */
  private rehearse (steps: Iterator<void>): void {
    setTimeout(() => { if (!this.driver.isMet && steps.next().done !== true) this.rehearse(steps) })
  }

  /** What is stored. A disk that cannot be used is done without. */
  private async read (storage: Storage | undefined): Promise<{ store: Store | undefined, updates: Uint8Array[], trouble?: string }> {
    let store: Store | undefined
    try {
      store = await storage?.open(this.room)
      return { store, updates: await store?.load() ?? [] }
    } catch (error) {
      store?.close()
      return { store: undefined, updates: [], trouble: messageOf(error) }
    }
  }

  /** Puts what is stored into the document. */
  private take (doc: LoroDoc, store: Store | undefined, updates: Uint8Array[]): Omit<Opened, 'storage'> {
    const nothing = { version: new Map(), entries: 0, bytes: 0 }
    if (updates.length === 0) return { replica: new DocumentReplica(doc), store, stored: nothing }
    try {
      // Its own document tells which version is stored, whatever else the application's has.
      const copy = new LoroDoc()
      copy.detach()
      copy.importBatch(updates)
      const { version } = new DocumentReplica(copy)
      copy.free()
      doc.importBatch(updates)
      const stored = { version, entries: updates.length, bytes: updates.reduce((sum, update) => sum + update.length, 0) }
      return { replica: new DocumentReplica(doc), store, stored }
    } catch (error) {
      // Nothing may be written over what cannot be read.
      store?.close()
      this.tellLater({ type: 'storedDamaged', why: messageOf(error) })
      return { replica: new DocumentReplica(doc), store: undefined, stored: nothing }
    }
  }

  /** Who made us can listen before this is told. */
  private tellLater (event: PeerEvent): void {
    setTimeout(() => { for (const hear of [...this.hearers]) hear(event) })
  }

  /** Hears of the application's edits. */
  private followDocument (doc: LoroDoc): void {
    let rung = false
    const ring = (): void => {
      if (rung) return
      rung = true
      queueMicrotask(() => {
        rung = false
        this.driver.tell({ type: 'edited' })
      })
    }
    this.endings.push(doc.subscribeLocalUpdates(ring), doc.subscribe(event => { if (event.by === 'import') ring() }))
  }

  /** Hears of the page's comings and goings. */
  private followPage (): void {
    const { driver } = this
    if (typeof window === 'undefined') return
    const wake = (): void => { driver.wake() }
    this.on(window, 'online', wake)
    // What is still there has to prove it: a hub on this machine will, and the rest is not waited for.
    this.on(window, 'offline', wake)
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

  /** The document. Throws while it is promised only: {@link isOpen}. */
  get doc (): LoroDoc {
    if (this.opened === undefined) throw new Error('the document is not there yet, see loaded')
    return this.opened
  }

  /** Whether there is a document. */
  get isOpen (): boolean { return this.opened !== undefined }

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
  wake (): void { this.driver.wake() }

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
    driver.tell({ type: 'edited' })
    const until = performance.now() + FLUSH
    while (!driver.isFlushed && performance.now() < until) {
      await new Promise(resolve => { setTimeout(resolve, 10) })
    }
    for (const end of this.endings.splice(0)) end()
    await driver.close()
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
