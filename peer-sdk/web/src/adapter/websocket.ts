// The Loro Protocol over a WebSocket to a hub or relay.

import type { Door, Port, Transport } from '../adapter.js'
import { MAX_FRAME } from '../engine/wire.js'
import { Liveness } from './live.js'

/** How long connecting may take, in milliseconds. */
const CONNECT = 10_000
/** How long nothing may come before it is asked for. */
const IDLE = 2000
/** How often it is looked at what has left for the network, while something waits. */
const DRAIN = 20
/** How long what waits may take to leave when the connection is closed. */
const FAREWELL = 2000
/** Reasons of a close that say that trying again as we are is of no use. */
const FINAL = ['auth_failed', 'permission_changed', 'room_closed']

export interface WebSocketOptions {
  /** Added to the URL as `?token=`. It is not shown in the status. */
  token?: string
  /** What to show when joining, for servers that want a token there. */
  auth?: string | Uint8Array
}

/** A URL that cannot be dialled. Its message does not show what stands after `?`. */
export class UrlError extends Error {
  constructor (url: string) {
    super(`${url.split('?')[0] ?? ''}: only ws and wss can be dialled`)
    this.name = 'UrlError'
  }
}

/** Keeps to a hub or relay, `ws://` or `wss://`, and dials it again whenever it is lost. Throws a {@link UrlError}. */
export function websocket (url: string | URL, { token, auth = '' }: WebSocketOptions = {}): Transport {
  const target = socketUrl(String(url))
  if (token !== undefined) target.searchParams.set('token', token)
  return {
    kind: 'hub',
    name: `${target.protocol}//${target.host}${target.pathname}`,
    auth: typeof auth === 'string' ? new TextEncoder().encode(auth) : auth,
    dial: door => new Connection(target.href, door)
  }
}

/** Throws a {@link UrlError} if that is no address of a WebSocket. */
export function socketUrl (url: string): URL {
  try {
    const target = new URL(url)
    if (target.protocol === 'ws:' || target.protocol === 'wss:') return target
  } catch { /* Told below. */ }
  throw new UrlError(url)
}

class Connection implements Port {
  private readonly socket: WebSocket
  private readonly late: ReturnType<typeof setTimeout>
  private drain: ReturnType<typeof setTimeout> | undefined
  private live: Liveness | undefined
  private given = 0
  private told = 0
  private over = false

  constructor (url: string, private readonly door: Door) {
    this.socket = new WebSocket(url)
    this.socket.binaryType = 'arraybuffer'
    this.late = setTimeout(() => { this.end('lost', 'no connection in time') }, CONNECT)
    this.socket.onopen = () => { this.opened() }
    this.socket.onmessage = ({ data }: MessageEvent<string | ArrayBuffer>) => { this.received(data) }
    this.socket.onclose = ({ code, reason }) => {
      const refused = FINAL.includes(reason) || code === 1008 || (code >= 4400 && code < 4500)
      if (refused) this.end('refused', `closed with ${code} ${reason}`)
      else this.end('lost', this.live === undefined ? 'cannot be reached' : `closed with ${code} ${reason}`.trim())
    }
  }

  private opened (): void {
    if (this.over) return
    clearTimeout(this.late)
    const { socket } = this
    this.live = new Liveness({
      idle: IDLE,
      ask: () => { socket.send('ping') },
      dead: () => { this.end('lost', 'no answer') },
      buffered: () => socket.bufferedAmount,
      answered: milliseconds => { this.door.path('hub', Math.round(milliseconds)) }
    })
    this.door.open(MAX_FRAME)
    this.door.path('hub')
    this.live.prove()
  }

  private received (data: string | ArrayBuffer): void {
    if (this.over) return
    this.live?.heard()
    if (data === 'ping') this.socket.send('pong')
    else if (typeof data !== 'string') this.door.received(new Uint8Array(data))
  }

  send (frame: Uint8Array): void {
    if (this.over || this.socket.readyState !== WebSocket.OPEN) return
    this.socket.send(frame as Uint8Array<ArrayBuffer>)
    this.given += frame.length
    this.watch()
  }

  /** Tells what has left, and looks again while something waits. */
  private watch (): void {
    if (this.drain !== undefined) return
    this.drain = setTimeout(() => {
      this.drain = undefined
      const left = Math.max(this.told, this.given - this.socket.bufferedAmount)
      if (left > this.told) {
        const bytes = left - this.told
        this.told = left
        this.door.drained(bytes)
      }
      if (!this.over && this.told < this.given) this.watch()
    }, DRAIN)
  }

  wake (): void { this.live?.prove() }

  close (): void {
    if (this.over) return
    this.finish()
    // A polite close sends what waits first, but not for ever.
    setTimeout(() => { this.socket.onclose = null }, FAREWELL)
    this.socket.close(1000)
  }

  private end (end: 'lost' | 'refused', why: string): void {
    if (this.over) return
    this.finish()
    this.socket.close()
    this.door.down(end, why)
  }

  private finish (): void {
    this.over = true
    clearTimeout(this.late)
    clearTimeout(this.drain)
    this.live?.stop()
    this.socket.onopen = this.socket.onmessage = this.socket.onclose = null
  }
}
