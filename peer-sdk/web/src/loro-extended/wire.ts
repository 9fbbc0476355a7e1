// The frames of loro-extended, version 2: a channel message as CBOR behind six bytes, and for the transport a byte that says
// whether a message is whole, or the header or a part of one in fragments. What comes is a stranger's.

import { type CBORType, decodeCBOR, encodeCBOR } from '@levischuck/tiny-cbor'
import type { BatchableMsg, ChannelMsg, EphemeralStoreData, SyncTransmission } from '@loro-extended/repo'
import { type PeerID, VersionVector } from 'loro-crdt'
import { decodeVersion } from '../engine/version.js'

const VERSION = 2
const BATCHED = 1
const HEADER = 6
/** Channel messages in one frame. */
const MOST_MESSAGES = 4096

const WHOLE = 0
const FRAGMENT_HEADER = 1
const FRAGMENT = 2
const BATCH_ID = 8

type Fields = Map<string | number, CBORType>

/** What a message of the transport says. */
export type Transported =
  | { kind: 'whole', frame: Uint8Array }
  | { kind: 'header', batch: string, fragments: number, size: number }
  | { kind: 'fragment', batch: string, index: number, part: Uint8Array }

/** The messages that carry a frame, in parts where it is longer than `limit` bytes. */
export function transport (frame: Uint8Array, limit: number): Uint8Array[] {
  if (frame.length <= limit) return [joined([WHOLE], frame)]
  const batch = [...crypto.getRandomValues(new Uint8Array(BATCH_ID))]
  const parts = [joined([FRAGMENT_HEADER, ...batch, ...uint32(Math.ceil(frame.length / limit)), ...uint32(frame.length)])]
  for (let start = 0; start < frame.length; start += limit) {
    parts.push(joined([FRAGMENT, ...batch, ...uint32(start / limit)], frame.subarray(start, start + limit)))
  }
  return parts
}

/** Reads a message of the transport; `undefined` if it is none. */
export function readTransport (message: Uint8Array): Transported | undefined {
  const view = new DataView(message.buffer, message.byteOffset, message.byteLength)
  const after = 1 + BATCH_ID
  const batch = [...message.subarray(1, after)].map(byte => byte.toString(16).padStart(2, '0')).join('')
  switch (message[0]) {
    case WHOLE: return { kind: 'whole', frame: message.subarray(1) }
    case FRAGMENT_HEADER:
      return message.length < after + 8 ? undefined : { kind: 'header', batch, fragments: view.getUint32(after), size: view.getUint32(after + 4) }
    case FRAGMENT:
      return message.length < after + 5 ? undefined : { kind: 'fragment', batch, index: view.getUint32(after), part: message.subarray(after + 4) }
    default: return undefined
  }
}

function uint32 (number: number): number[] { return [number >>> 24, (number >>> 16) & 0xff, (number >>> 8) & 0xff, number & 0xff] }

function joined (head: number[], body: Uint8Array = new Uint8Array()): Uint8Array {
  const bytes = new Uint8Array(head.length + body.length)
  bytes.set(head)
  bytes.set(body, head.length)
  return bytes
}

/** The frame of a channel message. */
export function writeFrame (message: ChannelMsg): Uint8Array {
  const payload = encodeCBOR(write(message))
  return joined([VERSION, 0, ...uint32(payload.length)], payload)
}

/** The channel messages of a frame, those that make sense. `undefined` if it is no frame. */
export function readFrame (frame: Uint8Array): ChannelMsg[] | undefined {
  const view = new DataView(frame.buffer, frame.byteOffset, frame.byteLength)
  if (frame.length < HEADER || frame[0] !== VERSION || view.getUint32(2) !== frame.length - HEADER) return undefined
  try {
    const payload = decodeCBOR(frame.slice(HEADER))
    const messages = (frame[1] ?? 0) & BATCHED ? payload : [payload]
    if (!Array.isArray(messages) || messages.length > MOST_MESSAGES) return undefined
    return messages.map(message => read(message)).filter(message => message !== undefined)
  } catch {
    return undefined
  }
}

const fields = (...entries: Array<[string, CBORType]>): Fields => new Map(entries)

function writeStores (stores: EphemeralStoreData[] | undefined): CBORType {
  return stores?.map(({ peerId, data, namespace }) => fields(['p', peerId], ['d', data], ['ns', namespace]))
}

function writeTransmission (transmission: SyncTransmission): Fields {
  switch (transmission.type) {
    case 'up-to-date': return fields(['k', 0], ['v', transmission.version.encode()])
    case 'snapshot': return fields(['k', 1], ['d', transmission.data], ['v', transmission.version.encode()])
    case 'update': return fields(['k', 2], ['d', transmission.data], ['v', transmission.version.encode()])
    case 'unavailable': return fields(['k', 3])
  }
}

function write (message: ChannelMsg): Fields {
  switch (message.type) {
    case 'channel/establish-request':
    case 'channel/establish-response': {
      const { peerId, name, type } = message.identity
      return fields(['t', message.type === 'channel/establish-request' ? 1 : 2], ['id', peerId], ['n', name], ['y', type])
    }
    case 'channel/sync-request':
      return fields(['t', 0x10], ['doc', message.docId], ['v', message.requesterDocVersion.encode()], ['e', writeStores(message.ephemeral)], ['bi', message.bidirectional])
    case 'channel/sync-response':
      return fields(['t', 0x11], ['doc', message.docId], ['tx', writeTransmission(message.transmission)], ['e', writeStores(message.ephemeral)])
    case 'channel/update': return fields(['t', 0x12], ['doc', message.docId], ['tx', writeTransmission(message.transmission)])
    case 'channel/directory-request': return fields(['t', 0x20], ['docs', message.docIds])
    case 'channel/directory-response': return fields(['t', 0x21], ['docs', message.docIds])
    case 'channel/new-doc': return fields(['t', 0x22], ['docs', message.docIds])
    case 'channel/delete-request': return fields(['t', 0x30], ['doc', message.docId])
    case 'channel/delete-response': return fields(['t', 0x31], ['doc', message.docId], ['s', message.status])
    case 'channel/ephemeral': return fields(['t', 0x40], ['doc', message.docId], ['h', message.hopsRemaining], ['st', writeStores(message.stores)])
    case 'channel/batch': return fields(['t', 0x50], ['m', message.messages.map(write)])
  }
}

/** Reads a field, or throws: then the message makes no sense. */
class Told {
  constructor (private readonly fields: Fields) {}

  private get (name: string): CBORType { return this.fields.get(name) }

  string (name: string): string { return this.as(this.get(name), value => typeof value === 'string') }
  number (name: string): number { return this.as(this.get(name), value => typeof value === 'number' && Number.isSafeInteger(value) && value >= 0) }
  boolean (name: string): boolean { return this.as(this.get(name), value => typeof value === 'boolean') }
  bytes (name: string): Uint8Array { return this.as<Uint8Array>(this.get(name), value => value instanceof Uint8Array).slice() }
  strings (name: string): string[] { return this.list(name).map(value => this.as<string>(value, value => typeof value === 'string')) }
  list (name: string): CBORType[] { return this.as(this.get(name), value => Array.isArray(value) && value.length <= MOST_MESSAGES) }
  told (name: string): Told { return toldIn(this.get(name)) }
  has (name: string): boolean { return this.get(name) !== undefined && this.get(name) !== null }

  version (name: string): VersionVector {
    const version = decodeVersion(this.bytes(name))
    if (version === undefined) throw new Error('no version')
    return new VersionVector(version as Map<PeerID, number>)
  }

  private as<T> (value: CBORType, is: (value: CBORType) => boolean): T {
    if (!is(value)) throw new Error('a field of another type')
    return value as T
  }
}

function toldIn (value: CBORType): Told {
  if (!(value instanceof Map)) throw new Error('no message')
  return new Told(value)
}

function read (value: CBORType): ChannelMsg | undefined {
  try {
    return readMessage(toldIn(value))
  } catch {
    return undefined
  }
}

function readMessage (told: Told): ChannelMsg | undefined {
  const type = told.number('t')
  switch (type) {
    case 0x01:
    case 0x02: return { type: type === 1 ? 'channel/establish-request' : 'channel/establish-response', identity: readIdentity(told) }
    case 0x10: return { type: 'channel/sync-request', docId: told.string('doc'), requesterDocVersion: told.version('v'), bidirectional: told.boolean('bi'), ...readEphemeral(told) }
    case 0x11: return { type: 'channel/sync-response', docId: told.string('doc'), transmission: readTransmission(told.told('tx')), ...readEphemeral(told) }
    case 0x12: return { type: 'channel/update', docId: told.string('doc'), transmission: readTransmission(told.told('tx')) }
    case 0x20: return { type: 'channel/directory-request', ...(told.has('docs') ? { docIds: told.strings('docs') } : {}) }
    case 0x21: return { type: 'channel/directory-response', docIds: told.strings('docs') }
    case 0x22: return { type: 'channel/new-doc', docIds: told.strings('docs') }
    case 0x30: return { type: 'channel/delete-request', docId: told.string('doc') }
    case 0x31: return { type: 'channel/delete-response', docId: told.string('doc'), status: told.string('s') === 'deleted' ? 'deleted' : 'ignored' }
    case 0x40: return { type: 'channel/ephemeral', docId: told.string('doc'), hopsRemaining: told.number('h'), stores: readStores(told, 'st') }
    case 0x50: return { type: 'channel/batch', messages: readBatch(told) }
    default: return undefined
  }
}

function readIdentity (told: Told): { peerId: PeerID, name?: string, type: 'user' | 'bot' | 'service' } {
  const peerId = told.string('id')
  const type = told.string('y')
  if (!/^\d{1,20}$/.test(peerId)) throw new Error('no peer id')
  const name = told.has('n') ? { name: told.string('n') } : {}
  return { peerId: peerId as PeerID, ...name, type: type === 'bot' || type === 'service' ? type : 'user' }
}

function readEphemeral (told: Told): { ephemeral?: EphemeralStoreData[] } {
  return told.has('e') ? { ephemeral: readStores(told, 'e') } : {}
}

function readStores (told: Told, name: string): EphemeralStoreData[] {
  return told.list(name).map(store => {
    const inner = toldIn(store)
    return { peerId: inner.string('p') as PeerID, data: inner.bytes('d'), namespace: inner.string('ns') }
  })
}

function readTransmission (told: Told): SyncTransmission {
  switch (told.number('k')) {
    case 0: return { type: 'up-to-date', version: told.version('v') }
    case 1: return { type: 'snapshot', data: told.bytes('d'), version: told.version('v') }
    case 2: return { type: 'update', data: told.bytes('d'), version: told.version('v') }
    case 3: return { type: 'unavailable' }
    default: throw new Error('no transmission')
  }
}

/** A batch in a batch is none. */
function readBatch (told: Told): BatchableMsg[] {
  const isSingle = (message: ChannelMsg | undefined): message is BatchableMsg =>
    message !== undefined && message.type !== 'channel/batch' && message.type !== 'channel/establish-request' && message.type !== 'channel/establish-response'
  return told.list('m').filter(inner => inner instanceof Map && inner.get('t') !== 0x50).map(read).filter(isSingle)
}
