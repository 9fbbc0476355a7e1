// The Loro Protocol frame by frame, where no published client goes.
import { once } from 'node:events'
import { CrdtType, MessageType, decode, encode } from 'loro-protocol'
import WebSocket from 'ws'
import { within } from '../servers.mjs'
import { answerMs } from './peers.mjs'

let batches = 0
const empty = new Uint8Array()

/** Opens a connection that ends with the test `t`; rejects if the server refuses it. */
export async function raw (t, url) {
  const client = new Raw(new WebSocket(url))
  t.after(() => client.socket.terminate())
  await within(answerMs, `a connection to ${url}`, once(client.socket, 'open'))
  return client
}

/** The HTTP status that an upgrade to `url` is refused with. */
export async function refusal (url) {
  const socket = new WebSocket(url)
  socket.on('error', () => {})
  const refused = once(socket, 'unexpected-response').then(([, response]) => response.statusCode)
  const opened = once(socket, 'open').then(() => { throw new Error('it was let in') })
  return within(answerMs, 'an answer', Promise.race([refused, opened])).finally(() => socket.terminate())
}

class Raw {
  constructor (socket) {
    this.socket = socket
    this.frames = []
    this.readers = []
    this.closed = once(socket, 'close').then(([code, reason]) => ({ code, reason: reason.toString() }))
    this.closed.catch(() => {})
    socket.on('message', (data, isBinary) => {
      const loro = isBinary && data[0] === '%'.charCodeAt(0)
      const frame = loro ? decode(new Uint8Array(data)) : data.toString()
      const reader = this.readers.shift()
      if (reader) reader(frame)
      else this.frames.push(frame)
    })
  }

  /** The next message: a string, or a frame of the Loro Protocol, decoded. */
  next () {
    if (this.frames.length > 0) return Promise.resolve(this.frames.shift())
    return within(answerMs, 'a frame from the server', new Promise(resolve => this.readers.push(resolve)))
  }

  /** Sends a message of y-webrtc. */
  signal (message) { this.socket.send(JSON.stringify(message)) }

  /** Nothing but the pong came since the last read, and all that was sent before has been handled. */
  async settled () {
    this.socket.send('ping')
    const answer = await this.next()
    if (answer !== 'pong') throw new Error(`expected nothing but a pong, got ${JSON.stringify(answer)}`)
  }

  say (crdt, roomId, type, more = {}) { this.socket.send(encode({ crdt, roomId, type, ...more })) }

  /** Asks to join, and gives the answer. */
  async join (crdt, roomId, { token = '', version = empty } = {}) {
    this.say(crdt, roomId, MessageType.JoinRequest, { auth: new TextEncoder().encode(token), version })
    return this.next()
  }

  /** Sends updates as one batch, whose id this returns. */
  update (crdt, roomId, ...updates) {
    const batchId = freshBatch()
    this.say(crdt, roomId, MessageType.DocUpdate, { updates, batchId })
    return batchId
  }

  /** Sends one update in as many fragments, and returns the batch's id. */
  fragments (crdt, roomId, update, fragmentCount) {
    const batchId = freshBatch()
    const size = Math.ceil(update.length / fragmentCount)
    this.say(crdt, roomId, MessageType.DocUpdateFragmentHeader, { batchId, fragmentCount, totalSizeBytes: update.length })
    for (let index = 0; index < fragmentCount; index++) {
      const fragment = update.subarray(index * size, (index + 1) * size)
      this.say(crdt, roomId, MessageType.DocUpdateFragment, { batchId, index, fragment })
    }
    return batchId
  }
}

function freshBatch () {
  const bytes = Buffer.alloc(8)
  bytes.writeUInt32BE(process.pid)
  bytes.writeUInt32BE(++batches, 4)
  return `0x${bytes.toString('hex')}`
}

export { CrdtType, MessageType }
