// Data channels to remote peers, who are found by y-webrtc signaling servers.

import type { Door, Ear, Mesh, MeshPort, Port, SignalingState } from '../adapter.js'
import { Connection, LABEL } from './webrtc/connection.js'
import { type Envelope, isObject, open, publish, publishedOn } from './webrtc/envelope.js'
import type { IceSource } from './webrtc/ice.js'
import type { Cipher } from './webrtc/seal.js'
import { kindOf } from './webrtc/signal.js'
import { Server } from './webrtc/signaling.js'
import { socketUrl } from './websocket.js'

/** Most data channels at once, if nothing else is said. */
const CHANNELS = 8
/** The most signaling servers. */
const MAX_SERVERS = 16
/** How often it is told that passwords do not fit, in milliseconds. */
const PROBLEM_EVERY = 60_000
/** How long a connection that was made in advance waits for somebody, in milliseconds. */
const SPARE = 10_000
/** Signals that come before their connection's servers are known. Further ones are left out, as if lost on the way. */
const EARLY = 64
/** Frames of one server that wait to be read, which takes time only where there is a password. More are left out. */
const UNREAD = 256

export interface WebRtcOptions {
  /** Signaling servers, one or several, `ws://` or `wss://`; a token may be part of the URL. */
  signaling: string | readonly string[]
  /** STUN and TURN servers, none if nothing is said. */
  iceServers?: readonly RTCIceServer[]
  /** Where to ask for them, such as the signaling server's `https://…/ice`; in addition to those that are given. */
  iceFrom?: string
  /** Encrypts signaling, as y-webrtc does: only who has it finds us. Data channels are encrypted in any case. */
  password?: string
  /** Most data channels at once, 8 if nothing is said. More peers are reached through others. */
  maxConns?: number
  /** Whether only TURN servers may be used, so that others do not learn our address. */
  relayOnly?: boolean
}

/** Connects to remote peers. Throws an error when a signaling URL is none, or there are more than 16. */
export function webrtc (options: WebRtcOptions): Mesh { return meshOf(options, LABEL) }

/** The same, with data channels of this label. */
export function meshOf (options: WebRtcOptions, label: string): Mesh {
  const urls = (typeof options.signaling === 'string' ? [options.signaling] : [...new Set(options.signaling)]).map(socketUrl)
  if (urls.length > MAX_SERVERS) throw new Error(`${urls.length} signaling servers, limit is ${MAX_SERVERS}`)
  const isThere = typeof RTCPeerConnection !== 'undefined'
  return {
    kind: 'mesh',
    maxConns: isThere ? options.maxConns ?? CHANNELS : 0,
    start: (room, session, ear) => new Running(urls, options, label, room, session, ear)
  }
}

class Running implements MeshPort {
  private servers: Server[] = []
  private readonly connections = new Set<Pending>()
  private source: IceSource | undefined
  /** A connection that was made before there was anybody to connect to. */
  private spare: RTCPeerConnection | undefined
  private cipher: Cipher | undefined
  private problemAt = -Infinity
  private over = false
  private said: Promise<void> = Promise.resolve()

  constructor (
    urls: URL[],
    private readonly options: WebRtcOptions,
    private readonly label: string,
    private readonly room: string,
    private readonly session: string,
    private readonly ear: Ear
  ) {
    this.start(urls).catch(() => { ear.password('unavailable') })
    this.prepare()
  }

  private async start (urls: URL[]): Promise<void> {
    if (this.options.password !== undefined) {
      const { deriveCipher } = await import('./webrtc/seal.js')
      this.cipher = await deriveCipher(this.options.password, this.room)
      if (this.cipher === undefined) return this.ear.password('unavailable')
    }
    if (this.over) return
    this.servers = urls.map(url => this.server(url))
    this.ear.changed()
  }

  /**
   * While signaling is dialled: a first connection takes its time, for the browser has yet to start what carries it, and to
   * ask STUN and TURN servers for addresses.
   */
  private prepare (): void {
    if (typeof RTCPeerConnection === 'undefined') return
    const spare = this.spare = new RTCPeerConnection(this.with())
    // Whether asking fails matters once there is somebody to connect to.
    void this.asked().then(servers => { if (this.spare === spare) spare.setConfiguration(this.with(servers)) }).catch(() => {})
    // A page with a connection is not kept for going back to.
    setTimeout(() => { this.takeSpare()?.close() }, SPARE)
  }

  private readonly takeSpare = (): RTCPeerConnection | undefined => {
    const { spare } = this
    this.spare = undefined
    return spare
  }

  private server (url: URL): Server {
    let reading: Promise<void> = Promise.resolve()
    let unread = 0
    const server: Server = new Server(url, this.room, {
      up: isRenewed => {
        // What was said at the others was heard there, and need not be said again.
        if (!isRenewed && this.servers.some(other => other !== server && other.state === 'connected')) return this.announce([server])
        for (const connection of this.connections) connection.wake()
        this.ear.up()
      },
      changed: () => { this.ear.changed() },
      heard: frame => {
        const data = publishedOn(this.room, frame)
        if (data === undefined || unread >= UNREAD) return
        unread++
        // In order, though decrypting takes its time.
        reading = reading.then(async () => { await this.read(data) }).catch(() => {}).finally(() => { unread-- })
      }
    })
    return server
  }

  private async read (data: unknown): Promise<void> {
    // Our own words come back, too.
    if (isObject(data) && data.from === this.session) return
    const said = await open(data, this.cipher)
    if (said === undefined || this.over) return
    if (typeof said === 'string') return this.problem(said)
    if (said.from === this.session) return
    if (said.type === 'announce') this.ear.announced(said.from)
    else if (said.to === this.session) {
      for (const connection of this.connections) if (connection.peer === said.from) connection.signalled(said.signal)
      this.ear.signalled(said.from, kindOf(said.signal), said.token, said.signal)
    }
  }

  private problem (problem: Parameters<Ear['password']>[0]): void {
    const now = performance.now()
    if (now - this.problemAt < PROBLEM_EVERY) return
    this.problemAt = now
    // So that they are told, too.
    this.announce()
    this.ear.password(problem)
  }

  private publish (said: Envelope, servers = this.servers): void {
    // In order: a candidate must not overtake its offer.
    this.said = this.said.then(async () => {
      const frame = await publish(this.room, said, this.cipher)
      for (const server of servers) server.send(frame)
    }).catch(() => {})
  }

  get signaling (): SignalingState[] { return this.servers.map(({ name, state }) => ({ name, state })) }

  announce (servers?: Server[]): void { this.publish({ type: 'announce', from: this.session }, servers) }

  signal (to: string, token: number, data: unknown): void {
    this.publish({ type: 'signal', from: this.session, to, token, signal: data as object })
  }

  connect (peer: string, initiator: boolean, door: Door): Port {
    const pending = new Pending(peer, this.label, this.configuration, this.takeSpare(), initiator, door, {
      gone: () => { this.connections.delete(pending) },
      amiss: () => { for (const server of this.servers) server.renew() }
    })
    this.connections.add(pending)
    return pending
  }

  private readonly configuration = async (): Promise<RTCConfiguration> => {
    try {
      return this.with(await this.asked())
    } catch (error) {
      this.ear.iceFailed(error instanceof Error ? error.message : String(error))
      return this.with()
    }
  }

  /** The servers that are asked for, if there are any. */
  private async asked (): Promise<RTCIceServer[] | undefined> {
    const { iceFrom } = this.options
    if (iceFrom === undefined) return undefined
    const { IceSource } = await import('./webrtc/ice.js')
    return await (this.source ??= new IceSource(iceFrom)).servers()
  }

  /** With a pool, addresses are asked for when a connection is made, and not when it is described. */
  private with (asked: RTCIceServer[] = []): RTCConfiguration {
    const { iceServers = [], relayOnly } = this.options
    return { iceServers: [...iceServers, ...asked], iceTransportPolicy: relayOnly ? 'relay' : 'all', iceCandidatePoolSize: 1 }
  }

  wake (): void { for (const server of this.servers) server.wake() }

  close (): void {
    this.over = true
    this.takeSpare()?.close()
    for (const server of this.servers) server.close()
  }
}

/** A connection whose servers are perhaps still asked for. */
class Pending implements Port {
  private connection: Connection | undefined
  private early: unknown[] = []
  private over = false

  constructor (
    readonly peer: string,
    label: string,
    configuration: () => Promise<RTCConfiguration>,
    private spare: RTCPeerConnection | undefined,
    initiator: boolean,
    door: Door,
    private readonly told: { gone: () => void, amiss: () => void }
  ) {
    const outer: Door = { ...door, down: (end, why) => { this.finish(); door.down(end, why) } }
    void configuration().then(known => {
      if (this.over) return
      this.spare?.setConfiguration(known)
      this.connection = new Connection(label, this.spare ?? new RTCPeerConnection(known), initiator, outer, configuration, told.amiss)
      this.spare = undefined
      for (const data of this.early.splice(0)) this.connection.hear(data)
    }).catch((error: unknown) => { outer.down('lost', String(error)) })
  }

  hear (data: unknown): void {
    if (this.connection !== undefined) this.connection.hear(data)
    else if (this.early.length < EARLY) this.early.push(data)
  }

  signalled (data: unknown): void { this.connection?.signalled(data) }

  send (frame: Uint8Array): void { this.connection?.send(frame) }

  wake (): void { this.connection?.wake() }

  close (): void {
    this.finish()
    this.connection?.close()
  }

  private finish (): void {
    this.over = true
    this.spare?.close()
    this.told.gone()
  }
}
