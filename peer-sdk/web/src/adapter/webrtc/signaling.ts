// A client of y-webrtc signaling servers, of several at once.
//
// One server is as good as another, so everything is published on all of them, one that is down is no event of importance,
// and what comes through two of them comes twice. Nothing is queued for a server that is not connected: signals go stale,
// and whoever gets no answer begins anew.

import type { SignalingState } from '../../adapter.js'
import { Backoff } from '../../engine/backoff.js'
import { Liveness } from '../live.js'

/**
 * How long connecting may take, in milliseconds: most times hardly longer than it takes, since on a line that was dead what
 * is sent first is the first to arrive; but every third time as long as over a slow line.
 */
const CONNECT = 2200
const CONNECT_SLOWLY = 5000
/** For so long after a loss the pauses between attempts are at most this: a line that is dead for some seconds comes back. */
const SOON = 60_000
const PAUSE = 1000
/** How long nothing may come before it is asked for. */
const IDLE = 5000
/** How often another connection is made beside one that seems to be there. */
const RENEW = 5000
/** Bytes that may wait for a socket. A signal that would wait longer is left out. */
const MOST_WAITING = 1 << 20

/** One server, connected to as well as it can be. */
export class Server {
  readonly name: string
  state: SignalingState['state'] = 'connecting'
  private socket: WebSocket | undefined
  private live: Liveness | undefined
  private timer: ReturnType<typeof setTimeout> | undefined
  private readonly backoff = new Backoff()
  private attempts = 0
  private lostAt: number | undefined
  private over = false
  /** A connection that may take the place of the one that there is. */
  private fresh: WebSocket | undefined
  private renewedAt = -Infinity

  /**
   * `up` is called when the topic is subscribed, also in place of a connection that seemed to be there; `heard` with each
   * frame; `changed` when the state is another one.
   */
  constructor (
    private readonly url: URL,
    private readonly topic: string,
    private readonly told: { up: (isRenewed: boolean) => void, heard: (frame: unknown) => void, changed: () => void }
  ) {
    this.name = `${url.protocol}//${url.host}`
    this.connect()
  }

  private connect (): void {
    clearTimeout(this.timer)
    const socket = new WebSocket(this.url)
    this.timer = setTimeout(() => { this.lost() }, ++this.attempts % 3 === 0 ? CONNECT_SLOWLY : CONNECT)
    socket.onopen = () => { this.opened(socket) }
    this.adopt(socket)
  }

  private adopt (socket: WebSocket): void {
    this.socket = socket
    socket.onclose = () => { this.lost() }
    socket.onmessage = ({ data }: MessageEvent<unknown>) => {
      this.live?.heard()
      this.told.heard(data)
    }
  }

  private opened (socket: WebSocket, isRenewed = false): void {
    clearTimeout(this.timer)
    this.backoff.up(performance.now())
    this.attempts = 0
    this.lostAt = undefined
    this.live = new Liveness({
      idle: IDLE,
      ask: () => { socket.send('{"type":"ping"}') },
      dead: () => { this.lost() },
      buffered: () => socket.bufferedAmount
    })
    socket.send(JSON.stringify({ type: 'subscribe', topics: [this.topic] }))
    this.set('connected')
    this.told.up(isRenewed)
  }

  private lost (): void {
    this.drop()
    if (this.over) return
    this.set('waiting')
    const now = performance.now()
    this.lostAt ??= now
    const pause = this.backoff.down(now, Math.random())
    this.timer = setTimeout(() => { this.connect() }, now - this.lostAt < SOON ? pause % PAUSE : pause)
  }

  private drop (): void {
    clearTimeout(this.timer)
    this.live?.stop()
    this.live = undefined
    const { socket } = this
    this.socket = undefined
    if (socket === undefined) return
    socket.onopen = socket.onclose = socket.onmessage = null
    socket.close()
  }

  private set (state: SignalingState['state']): void {
    if (this.state === state) return
    this.state = state
    this.told.changed()
  }

  send (frame: string): void {
    if (this.state === 'connected' && this.socket !== undefined && this.socket.bufferedAmount < MOST_WAITING) this.socket.send(frame)
  }

  /** The network may be back: no more waiting, and a server that seems to be there has to prove it. */
  wake (): void {
    if (this.state === 'connected') this.live?.prove()
    else if (this.state === 'waiting' && this.socket === undefined) {
      this.backoff.reset()
      this.connect()
    }
  }

  /**
   * Our address may be another one now, so that the connection is dead and nobody knows. Another is made beside it, and
   * takes its place if it comes about.
   */
  renew (): void {
    const now = performance.now()
    if (this.state !== 'connected' || this.fresh !== undefined || now - this.renewedAt < RENEW) return
    this.renewedAt = now
    const fresh = new WebSocket(this.url)
    this.fresh = fresh
    const over = (): void => {
      clearTimeout(timer)
      fresh.onopen = fresh.onclose = null
      this.fresh = undefined
    }
    const timer = setTimeout(() => {
      over()
      fresh.close()
    }, CONNECT_SLOWLY)
    fresh.onclose = over
    fresh.onopen = () => {
      over()
      if (this.over || this.state !== 'connected') return fresh.close()
      this.drop()
      this.adopt(fresh)
      this.opened(fresh, true)
    }
  }

  close (): void {
    this.over = true
    this.fresh?.close()
    this.drop()
  }
}
