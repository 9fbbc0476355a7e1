// A WebSocket client that tests read like a mailbox.
import { once } from 'node:events'
import WebSocket from 'ws'
import { within } from './servers.mjs'

const answerMs = 15_000

/** Opens a connection; rejects if the server refuses it. */
export async function connect (url, { protocols = [], ...options } = {}) {
  const client = new Client(new WebSocket(url, protocols, options))
  await within(answerMs, `a connection to ${url}`, once(client.socket, 'open'))
  return client
}

class Client {
  constructor (socket) {
    this.socket = socket
    this.frames = []
    this.readers = []
    this.closed = once(socket, 'close').then(([code]) => code).catch(() => undefined)
    socket.on('message', (data, isBinary) => {
      const frame = { text: data.toString(), isBinary }
      const reader = this.readers.shift()
      if (reader) reader(frame)
      else this.frames.push(frame)
    })
  }

  /** Sends a string or Buffer as it is, anything else as JSON text. */
  send (message) {
    const raw = typeof message === 'string' || Buffer.isBuffer(message)
    this.socket.send(raw ? message : JSON.stringify(message))
  }

  subscribe (...topics) { this.send({ type: 'subscribe', topics }) }

  publish (topic, data, more = {}) { this.send({ type: 'publish', topic, data, ...more }) }

  /** The next frame as the server sent it: `{ text, isBinary }`. */
  frame () {
    if (this.frames.length > 0) return Promise.resolve(this.frames.shift())
    return within(answerMs, 'a frame from the server', new Promise(resolve => this.readers.push(resolve)))
  }

  /** The next message, parsed. */
  async next () { return JSON.parse((await this.frame()).text) }

  /**
   * Everything this client sent before has been handled, and nothing but the pong came back since the last read.
   * The protocol acknowledges nothing, but a connection is served in order, so a ping is a fence.
   */
  async settled () {
    this.send({ type: 'ping' })
    const { text } = await this.frame()
    if (text !== '{"type":"pong"}') throw new Error(`expected nothing but a pong, got ${text}`)
  }

  close () {
    this.socket.close()
    return this.closed
  }
}

/** A client that is subscribed to `topics`, and known to be. */
export async function subscriber (url, ...topics) {
  const client = await connect(url)
  client.subscribe(...topics)
  await client.settled()
  return client
}
