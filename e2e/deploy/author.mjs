// Somebody who writes into a document through the relay, and knows which of it the server has promised to keep.
import { randomBytes } from 'node:crypto'
import { LoroDoc, VersionVector } from 'loro-crdt'
import { CrdtType, decode, encode, MessageType, UpdateStatusCode } from 'loro-protocol'
import WebSocket from 'ws'
import { until } from './processes.mjs'

export class Author {
  /** Joins `room` and comes back whenever it is cut off, until it leaves. Each writes notes of its own name. */
  constructor (url, room, name) {
    Object.assign(this, { url, roomId: room, name, doc: new LoroDoc(), written: [], acked: 0, unanswered: new Map(), gone: false })
    this.connect()
  }

  connect () {
    const socket = this.socket = new WebSocket(this.url)
    this.joined = false
    socket.on('open', () => this.tell({ type: MessageType.JoinRequest, auth: new Uint8Array(), version: this.doc.version().encode() }))
    socket.on('message', (data, isBinary) => { if (isBinary) this.hear(decode(new Uint8Array(data))) })
    socket.on('error', () => {})
    socket.on('close', () => {
      this.joined = false
      this.unanswered.clear()
      // As the published clients do, spread around a mean.
      if (!this.gone) setTimeout(() => this.connect(), 50 + Math.random() * 300)
    })
  }

  tell (message) { this.socket.send(encode({ crdt: CrdtType.Loro, roomId: this.roomId, ...message })) }

  hear (message) {
    if (message.type === MessageType.JoinResponseOk) {
      this.joined = true
      // What was written meanwhile, or never acknowledged.
      this.send(message.version.length > 1 ? VersionVector.decode(message.version) : undefined)
    } else if (message.type === MessageType.DocUpdate) {
      this.doc.importBatch(message.updates)
    } else if (message.type === MessageType.Ack) {
      if (message.status !== UpdateStatusCode.Ok && this.unanswered.has(message.refId)) throw new Error(`${this.name}: refused with ${message.status}`)
      this.acked = Math.max(this.acked, this.unanswered.get(message.refId) ?? 0)
      this.unanswered.delete(message.refId)
    }
  }

  send (from) {
    const batchId = `0x${randomBytes(8).toString('hex')}`
    this.unanswered.set(batchId, this.written.length)
    this.tell({ type: MessageType.DocUpdate, batchId, updates: [this.doc.export({ mode: 'update', from })] })
  }

  write () {
    const before = this.doc.version()
    const note = `${this.name} ${this.written.length}`
    this.doc.getList('notes').push(note)
    this.doc.commit()
    this.written.push(note)
    if (this.joined) this.send(before)
  }

  /** What the server has promised to keep. */
  get promised () { return this.written.slice(0, this.acked) }

  get notes () { return this.doc.getList('notes').toArray() }

  leave () {
    this.gone = true
    this.socket.terminate()
  }
}

/** What a newcomer finds in a room, once it has as much as is expected. */
export async function found (url, room, expected) {
  const reader = new Author(url, room, 'reader')
  try {
    const missing = () => {
      const there = new Set(reader.notes)
      return expected.filter(note => !there.has(note))
    }
    await until('the notes', 5_000, () => reader.joined && missing().length === 0).catch(() => {})
    return { notes: reader.notes, missing: missing() }
  } finally {
    reader.leave()
  }
}
