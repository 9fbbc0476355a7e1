// The published Loro clients, with a look at every frame that passes, and the server that they meet at.
import { mkdtemp, rm } from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import { EloAdaptor, LoroAdaptor, LoroEphemeralAdaptor, LoroPersistentStoreAdaptor } from 'loro-adaptors/loro'
import { EphemeralStore, LoroDoc } from 'loro-crdt'
import { CrdtType, MessageType, UpdateStatusCode, decode } from 'loro-protocol'
import { LoroWebsocketClient } from 'loro-websocket'
import WebSocket from 'ws'
import { ours, within } from '../servers.mjs'

export const answerMs = 15_000

let names = 0
/** A room name that no other test uses. */
export const room = () => `room-${process.pid}-${++names}`

/** A server that relays: into `dir` if there is one, else in memory. It ends with the test `t`, if one is given. */
export async function relay (t, { dir, port, env = {} } = {}) {
  const kept = dir ? { SIGNALING_RELAY_MODE: 'disk', SIGNALING_RELAY_DATA_DIR: dir } : { SIGNALING_RELAY_MODE: 'memory' }
  const server = await ours.start({ port, env: { ...kept, ...env } })
  t?.after(() => server.kill())
  return server
}

/** A directory that is gone after the test `t`. */
export async function directory (t) {
  const dir = await mkdtemp(path.join(os.tmpdir(), 'relay-'))
  t.after(() => rm(dir, { recursive: true, force: true, maxRetries: 5 }))
  return dir
}

/** Waits for `condition`, and says `what` did not come true if the deadline passes. */
export async function until (what, condition, ms = answerMs) {
  const deadline = performance.now() + ms
  for (;;) {
    const value = await condition()
    if (value) return value
    if (performance.now() > deadline) throw new Error(`${what}: not within ${ms} ms`)
    await new Promise(resolve => setTimeout(resolve, 5))
  }
}

/** What the published client takes for the platform's WebSocket. It keeps a decoded copy of all that passes. */
class WatchedSocket extends WebSocket {
  constructor (url) {
    super(url)
    this.received = []
    this.sent = []
    this.pings = 0
    this.closing = undefined
    this.on('message', (data, isBinary) => { if (isBinary) this.received.push(decode(new Uint8Array(data))) })
    this.on('ping', () => { this.pings++ })
    this.on('close', (code, reason) => { this.closing = { code, reason: reason.toString() } })
    // A client that is destroyed while it connects no longer listens, and an error that nobody hears ends the process.
    this.on('error', () => {})
  }

  send (data, ...more) {
    if (typeof data !== 'string') this.sent.push(decode(new Uint8Array(data)))
    super.send(data, ...more)
  }
}
globalThis.WebSocket = WatchedSocket
// Each client waits for two events of the process, and there are many clients here.
process.setMaxListeners(0)

class Client extends LoroWebsocketClient {
  // The client itself never waits for this, and destroying it before it is open would end the process.
  connect (options) {
    const open = super.connect(options)
    open.catch(() => {})
    return open
  }
}

/** One published client on one socket. It is destroyed after the test `t`. */
export class Peer {
  constructor (t, url, options = {}) {
    this.client = new Client({ url, ...options })
    this.stores = []
    t.after(() => {
      this.client.destroy()
      this.stores.forEach(store => store.destroy())
    })
  }

  /** The socket of the moment: another one after a reconnect. */
  get socket () { return this.client.socket }

  join (roomId, crdtAdaptor, auth) {
    return within(answerMs, `joining ${crdtAdaptor.crdtType}`, this.client.join({ roomId, crdtAdaptor, auth }))
  }

  /** Joins a document. `refused` collects the status of every update that the server would not have. */
  async document (roomId, { doc = new LoroDoc(), auth } = {}) {
    const refused = []
    const adaptor = new LoroAdaptor(doc, { onUpdateError: (_updates, status) => refused.push(status) })
    const joined = await this.join(roomId, adaptor, auth)
    return { doc, room: joined, refused }
  }

  /** The same, once it holds what the server held when it joined. */
  async caughtUp (roomId, options) {
    const joined = await this.document(roomId, options)
    await within(answerMs, 'what the server holds', joined.room.waitForReachingServerVersion())
    return joined
  }

  /** Joins presence that ends with those who are there. */
  presence (roomId) { return this.store(roomId, LoroEphemeralAdaptor) }

  /** Joins presence that is stored. */
  storedPresence (roomId) { return this.store(roomId, LoroPersistentStoreAdaptor) }

  async store (roomId, Adaptor) {
    const store = new EphemeralStore()
    // Its timer would keep the process from ending.
    this.stores.push(store)
    await this.join(roomId, new Adaptor(store))
    return store
  }

  /** Joins a document that is encrypted with `key` on the way and at the server. */
  async sealed (roomId, key, doc = new LoroDoc()) {
    const adaptor = new EloAdaptor(doc, { getPrivateKey: async () => ({ keyId: 'first', key }) })
    await this.join(roomId, adaptor)
    return doc
  }

  /** Frames of `type` that came in for this room on the socket of the moment. */
  received (type, roomId, crdt = CrdtType.Loro) {
    return this.socket.received.filter(frame => frame.type === type && frame.roomId === roomId && frame.crdt === crdt)
  }

  /** How many bytes of updates came in for this room on the socket of the moment. */
  updateBytes (roomId, crdt) {
    const whole = this.received(MessageType.DocUpdate, roomId, crdt).flatMap(frame => frame.updates)
    const parts = this.received(MessageType.DocUpdateFragment, roomId, crdt).map(frame => frame.fragment)
    return [...whole, ...parts].reduce((sum, bytes) => sum + bytes.length, 0)
  }

  /** Something was sent, and all that was sent on the socket of the moment has been acknowledged as kept. */
  async acked () {
    await until('acks of all updates', () => {
      const sent = this.socket.sent.filter(frame => [MessageType.DocUpdate, MessageType.DocUpdateFragmentHeader].includes(frame.type))
      const acks = new Map(this.socket.received.filter(frame => frame.type === MessageType.Ack).map(ack => [ack.refId, ack.status]))
      const refused = sent.find(frame => (acks.get(frame.batchId) ?? UpdateStatusCode.Ok) !== UpdateStatusCode.Ok)
      if (refused) throw new Error(`an update in ${refused.crdt} was refused with ${acks.get(refused.batchId)}`)
      return sent.length > 0 && sent.every(frame => acks.has(frame.batchId))
    })
  }

  /** As if the cable had been cut, for good. */
  async vanish () {
    const { socket } = this
    this.client.ops.reconnect = { enabled: false }
    socket.terminate()
    await until('the end of the socket', () => socket.closing)
  }

  /** As a user closes the tab. */
  async close () {
    const { socket } = this
    this.client.destroy()
    await until('the end of the socket', () => socket.closing)
  }
}

/** Writes a line at the beginning of the document's text, as one commit. */
export function write (doc, line) {
  doc.getText('text').insert(0, `${line}\n`)
  doc.commit()
}

/** Puts so many bytes into the document, as one commit. As text they would cost whoever merges them seconds. */
export function writeMuch (doc, bytes) {
  doc.getMap('files').set('blob', Buffer.from(noise(bytes)))
  doc.commit()
}

/** The document's text holds this line. */
export const reads = (doc, line) => doc.getText('text').toString().includes(`${line}\n`)

/** Waits until the document's text holds this line. */
export const arrives = (doc, line, ms) => until(`"${line.slice(0, 40)}"`, () => reads(doc, line), ms)

/** Text that no compression shortens by much. */
export function noise (bytes) {
  const letters = new Uint8Array(bytes)
  for (let at = 0; at < bytes; at += 65_536) crypto.getRandomValues(letters.subarray(at, Math.min(at + 65_536, bytes)))
  return Buffer.from(letters).toString('base64').slice(0, bytes)
}
