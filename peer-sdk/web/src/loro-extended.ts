// A network adapter for `@loro-extended/repo`: finds the other repositories of a room by y-webrtc signaling, and keeps a
// data channel to each, with everything that its own WebRTC adapter leaves to the application. On the channel it speaks
// that adapter's format, under the label that its documentation uses.

import { Adapter, type ChannelMsg, type ConnectedChannel, type GeneratedChannel } from '@loro-extended/repo'
import type { Door, Mesh as MeshAdapter, MeshPort, PasswordProblem, Port } from './adapter.js'
import { meshOf, type WebRtcOptions } from './adapter/webrtc.js'
import { Dice } from './engine/backoff.js'
import { Reassembly } from './engine/fragments.js'
import { Mesh } from './engine/mesh.js'
import type { Output } from './engine/vocabulary.js'
import { readFrame, readTransport, transport, writeFrame } from './loro-extended/wire.js'
import { freshSession } from './peer.js'

const LABEL = 'loro-sync'
/** Longer messages go in parts, so that a small one need not wait for all of a long one, in bytes. */
const FRAGMENT = 60 << 10
/** What stands before a part. */
const ENVELOPE = 16
/** About so many bytes may be on their way into the network; then messages wait here. */
const HIGH_WATER = 256 << 10
/** When so many wait, the connection is ended: a new one brings the other end up to date. */
const MOST_WAITING = 64 << 20
/** So many messages of one peer that cannot be read end its connection. */
const STRIKES = 32

export interface WebRTCNetworkAdapterOptions extends WebRtcOptions {
  /** Who shares this name meets. The topic at the signaling servers. */
  room: string
  /** Told when passwords do not fit. */
  onPassword?: (problem: PasswordProblem) => void
}

/** Beside a WebSocket adapter and one for IndexedDB, or alone. */
export class WebRTCNetworkAdapter extends Adapter<Link> {
  private readonly adapter: MeshAdapter
  private readonly links = new Map<number, Link>()
  private finder: Finder | undefined

  /** Throws when a signaling URL is none. Connects once the repository starts it. */
  constructor (private readonly options: WebRTCNetworkAdapterOptions) {
    super({ adapterType: 'webrtc' })
    this.adapter = meshOf(options, LABEL)
  }

  /** How many repositories are connected. */
  get connected (): number { return [...this.links.values()].filter(link => link.channel !== undefined).length }

  protected generate (link: Link): GeneratedChannel {
    return { kind: 'network', adapterType: this.adapterType, send: message => { link.send(message) }, stop: () => {} }
  }

  async onStart (): Promise<void> {
    this.finder = new Finder(this.adapter, this.options, {
      made: (id, port, end) => { this.links.set(id, new Link(port, end)) },
      open: (id, frame) => { this.opened(id, frame) },
      received: (id, message) => this.received(id, message),
      drained: (id, bytes) => { this.links.get(id)?.drained(bytes) },
      gone: id => { this.gone(id) }
    })
  }

  async onStop (): Promise<void> {
    this.finder?.close()
    this.finder = undefined
    for (const id of [...this.links.keys()]) this.gone(id)
  }

  private opened (id: number, frame: number): void {
    const link = this.links.get(id)
    if (link === undefined) return
    link.fragment = Math.min(FRAGMENT, frame - ENVELOPE)
    link.channel = this.addChannel(link)
    this.establishChannel(link.channel.channelId)
  }

  /** Whether the connection may go on. */
  private received (id: number, message: Uint8Array): boolean {
    const link = this.links.get(id)
    const messages = link?.read(message)
    for (const read of messages ?? []) link?.channel?.onReceive(read)
    return link === undefined || link.strikes <= STRIKES
  }

  private gone (id: number): void {
    const link = this.links.get(id)
    this.links.delete(id)
    if (link?.channel !== undefined) this.removeChannel(link.channel.channelId)
  }
}

/** One data channel, with what waits for it and what has come of it. */
class Link {
  channel: ConnectedChannel | undefined
  fragment = FRAGMENT
  strikes = 0
  private readonly reassembly = new Reassembly()
  private readonly waiting: Uint8Array[] = []
  private waitingBytes = 0
  private unsent = 0

  constructor (private readonly port: () => Port | undefined, private readonly end: () => void) {}

  send (message: ChannelMsg): void {
    for (const part of transport(writeFrame(message), this.fragment)) {
      this.waiting.push(part)
      this.waitingBytes += part.length
    }
    // Not from within what sends: the repository must be done with this message first.
    if (this.waitingBytes > MOST_WAITING) setTimeout(this.end)
    else this.pump()
  }

  private pump (): void {
    while (this.unsent < HIGH_WATER) {
      const part = this.waiting.shift()
      if (part === undefined) return
      this.waitingBytes -= part.length
      this.unsent += part.length
      this.port()?.send(part)
    }
  }

  drained (bytes: number): void {
    this.unsent = Math.max(0, this.unsent - bytes)
    this.pump()
  }

  /** The channel messages that a message of the transport completes. */
  read (message: Uint8Array): ChannelMsg[] {
    const now = performance.now()
    while (this.reassembly.expired(now) !== undefined) this.strikes++
    const read = readTransport(message)
    if (read?.kind === 'header') {
      if (this.reassembly.header(now, read.batch, read.fragments, read.size) !== undefined) this.strikes++
      return []
    }
    const frame = read?.kind === 'fragment' ? this.reassembly.fragment(now, read.batch, read.index, read.part) : read?.frame
    if (read?.kind === 'fragment' && frame === undefined) return []
    const messages = frame instanceof Uint8Array ? readFrame(frame) : undefined
    if (messages === undefined) this.strikes++
    return messages ?? []
  }
}

/** What becomes of connections, each under a number of its own. */
interface Told {
  made: (id: number, port: () => Port | undefined, end: () => void) => void
  open: (id: number, frame: number) => void
  /** Whether the connection may go on. */
  received: (id: number, message: Uint8Array) => boolean
  drained: (id: number, bytes: number) => void
  gone: (id: number) => void
}

/** Has the channels that the mesh wants: its loop, with a clock and dice. */
class Finder {
  private readonly mesh: Mesh
  private readonly dice = new Dice(crypto.getRandomValues(new BigUint64Array(1))[0] ?? 0n)
  private readonly port: MeshPort
  private readonly ports = new Map<number, Port>()
  private timer: ReturnType<typeof setTimeout> | undefined
  private closed = false

  constructor (adapter: MeshAdapter, { room, onPassword }: WebRTCNetworkAdapterOptions, private readonly told: Told) {
    const session = freshSession()
    this.mesh = new Mesh(performance.now(), session, adapter.maxConns, Date.now())
    this.port = adapter.start(room, session, {
      up: () => { this.turn(now => { this.mesh.signalingUp(now) }) },
      announced: from => { this.turn(now => { this.mesh.announced(now, from, this.dice) }) },
      signalled: (from, kind, token, data) => { this.turn((now, out) => { this.mesh.signalled(now, from, kind, token, data, new Set(), out) }) },
      password: problem => { onPassword?.(problem) },
      changed: () => {},
      iceFailed: () => {}
    })
    if (typeof window === 'undefined') return
    window.addEventListener('online', this.wake)
    window.addEventListener('pageshow', this.wake)
    window.addEventListener('pagehide', this.hide)
  }

  /** A page that goes has no other time to say so, and one that comes back connects anew. */
  private readonly hide = (): void => {
    for (const id of [...this.ports.keys()]) this.end(id, false)
  }

  private readonly wake = (): void => {
    for (const port of this.ports.values()) port.wake?.()
    this.port.wake()
    this.turn(now => { this.mesh.wake(now) })
  }

  private turn (act: (now: number, out: Output[]) => void): void {
    if (this.closed) return
    const out: Output[] = []
    const now = performance.now()
    act(now, out)
    this.mesh.keepTime(now, new Set(), this.dice, out)
    for (const output of out) this.perform(output)
    clearTimeout(this.timer)
    const { deadline } = this.mesh
    if (deadline !== undefined) this.timer = setTimeout(() => { this.turn(() => {}) }, Math.max(0, Math.ceil(deadline - performance.now())))
  }

  private perform (output: Output): void {
    if (output.type === 'announce') this.port.announce()
    else if (output.type === 'signal') this.port.signal(output.to, output.token, output.data)
    else if (output.type === 'deliver') this.ports.get(output.channel)?.hear?.(output.data)
    else if (output.type === 'connect') this.connect(output.channel, output.peer, output.initiator)
    else if (output.type === 'cut') this.drop(Number(output.link.split(' ')[1]))
  }

  private connect (id: number, peer: string, initiator: boolean): void {
    const over = (act: () => void): void => { if (this.ports.has(id)) act() }
    this.told.made(id, () => this.ports.get(id), () => { over(() => { this.end(id, false) }) })
    const door: Door = {
      open: frame => { over(() => { this.mesh.opened(id); this.told.open(id, frame) }) },
      received: message => { over(() => { if (!this.told.received(id, message)) this.end(id, true) }) },
      drained: bytes => { over(() => { this.told.drained(id, bytes) }) },
      down: end => { over(() => { this.end(id, end === 'foreign') }) },
      signal: data => {
        this.turn((now, out) => {
          const said = this.mesh.local(now, id, data, this.dice)
          if (said !== undefined) out.push(said)
        })
      },
      path: () => {},
      // The repository keeps whoever has a channel for present: one that is still there gets another.
      quiet: () => { over(() => { this.end(id, false) }) },
      resumed: () => {}
    }
    this.ports.set(id, this.port.connect(peer, initiator, door))
  }

  private end (id: number, foreign: boolean): void {
    this.drop(id)
    this.turn(now => { this.mesh.closed(now, id, foreign ? 'foreign' : undefined, this.dice) })
  }

  private drop (id: number): void {
    const port = this.ports.get(id)
    this.ports.delete(id)
    port?.close()
    this.told.gone(id)
  }

  close (): void {
    this.closed = true
    clearTimeout(this.timer)
    if (typeof window !== 'undefined') {
      window.removeEventListener('online', this.wake)
      window.removeEventListener('pageshow', this.wake)
      window.removeEventListener('pagehide', this.hide)
    }
    for (const id of [...this.ports.keys()]) this.drop(id)
    this.port.close()
  }
}
