// Scripts of what an engine hears and what it says to that, which every implementation of the peer runs.
import { readFileSync } from 'node:fs'
import { decodeImportBlobMeta, LoroDoc } from 'loro-crdt'
import { type CrdtType, decode, encode, JoinErrorCode, MessageType, RoomErrorCode, UpdateStatusCode } from 'loro-protocol'
import { describe, expect, it } from 'vitest'
import { Engine } from '../src/engine'
import { joinEntries, parseEntries } from '../src/engine/entries'
import { Reassembly } from '../src/engine/fragments'
import { DocumentReplica } from '../src/engine/replica'
import { decodeVersion, encodeVersion } from '../src/engine/version'
import type { EngineEvent, Input, LinkId, Output } from '../src/engine/vocabulary'

const vectors = JSON.parse(readFileSync(new URL('../../vectors/engine.json', import.meta.url), 'utf8'))
const roomId = 'plan'
/** Our own changes are those of this author. */
const US = '1'
const STATUSES: Record<string, UpdateStatusCode> = {
  ok: UpdateStatusCode.Ok,
  'invalid update': UpdateStatusCode.InvalidUpdate,
  'rate limited': UpdateStatusCode.RateLimited,
  'fragment timeout': UpdateStatusCode.FragmentTimeout
}
/** What the scripts call the events of which the engine says something else. */
const EVENTS: Record<string, string> = { readOnly: 'reads only', storeFailed: 'not stored' }

const batchOf = (batch: number): `0x${string}` => `0x${batch.toString(16).padStart(16, '0')}`
const versionOf = (version: object): Uint8Array => encodeVersion(new Map(Object.entries(version)))
const shown = (version: Uint8Array): unknown => Object.fromEntries(decodeVersion(version) ?? [])

/** An engine, its application, and a disk that answers when the script says so. */
class Actor {
  readonly engine: Engine
  private readonly doc = new LoroDoc()
  private ticket = 0
  private readonly parts = new Reassembly()

  constructor (script: any) {
    this.doc.setPeerId(US)
    const uplinks = Array.from({ length: script.uplinks ?? 0 }, () => new Uint8Array())
    const config = { room: roomId, session: 'ana', seed: 1n, wall: 1_800_000_000_000, uplinks, channels: script.channels ?? 0 }
    this.engine = new Engine(0, config)
    this.engine.load(new DocumentReplica(this.doc), { version: new Map(), entries: 0, bytes: 0 })
  }

  /** One step: what is said to it, in this order. */
  step (at: number, input: any): unknown[] {
    this.engine.handle(at, this.input(input))
    const said: unknown[] = []
    for (let output = this.engine.poll(); output !== undefined; output = this.engine.poll()) said.push(this.said(at, output))
    return said.filter(one => one !== undefined)
  }

  private input (of: any): Input {
    if (of === 'signaling up') return { type: 'signalingUp' }
    if (typeof of === 'string') return { type: of as 'tick' | 'wake' | 'close' }
    if ('edit' in of) {
      this.doc.getText('t').push(of.edit)
      this.doc.commit()
      return { type: 'edited' }
    }
    if ('present' in of) return { type: 'present', value: of.present }
    if ('up' in of) return { type: 'up', link: of.up, frame: of.frame ?? 262_144 }
    if ('down' in of) return { type: 'down', link: of.down, end: of.end }
    if ('stored' in of) return { type: 'stored', ticket: this.ticket, kept: of.stored }
    if ('announced' in of) return { type: 'announced', from: of.announced }
    if ('signalled' in of) return { type: 'signalled', from: of.signalled, kind: of.kind, token: of.token, data: of.data }
    if ('local' in of) return { type: 'local', channel: of.local, data: of.data }
    return { type: 'frame', link: of.from, frame: frameOf(of) }
  }

  private said (at: number, output: Output): unknown {
    switch (output.type) {
      case 'dial': return { dial: output.uplink }
      case 'send': {
        const said = this.read(at, output.frame)
        return said === undefined ? undefined : { ...said, to: output.link }
      }
      case 'cut': return { cut: output.link, reason: output.reason }
      case 'append':
        this.ticket = output.ticket
        return { append: changesOf(output.update) }
      case 'announce': return 'announce'
      case 'signal': return { signal: output.to, data: output.data }
      case 'connect': return { connect: output.channel, with: output.peer, offers: output.initiator }
      case 'deliver': return { deliver: output.channel, data: output.data }
      case 'event': return told(output.event)
      default: throw new Error(`no script does that: ${output.type}`)
    }
  }

  /** What a frame of ours means; `undefined` while parts of it are to come. */
  private read (at: number, frame: Uint8Array): object | undefined {
    const message = decode(frame)
    expect(message.roomId).toBe(roomId)
    if (message.crdt === '%EPH') {
      if (message.type === MessageType.DocUpdate) return { presence: parseEntries(message.updates[0]!)!.map(plain) }
      const words: Record<number, string> = { [MessageType.JoinRequest]: 'join', [MessageType.JoinResponseOk]: 'joined', [MessageType.Leave]: 'leave' }
      return { presence: words[message.type] }
    }
    expect(message.crdt).toBe('%LOR')
    switch (message.type) {
      case MessageType.JoinRequest: return { join: shown(message.version) }
      case MessageType.JoinResponseOk: return { joined: shown(message.version) }
      case MessageType.DocUpdate: return { update: changesOf(message.updates[0]!), batch: Number(message.batchId) }
      case MessageType.DocUpdateFragmentHeader:
        this.parts.header(at, message.batchId, message.fragmentCount, message.totalSizeBytes)
        return undefined
      case MessageType.DocUpdateFragment: {
        const whole = this.parts.fragment(at, message.batchId, message.index, message.fragment)
        if (!(whole instanceof Uint8Array)) return undefined
        return { update: changesOf(whole), batch: Number(message.batchId), 'in parts': true }
      }
      case MessageType.Leave: return { leave: 'document' }
      case MessageType.Ack: {
        const status = Object.keys(STATUSES).find(name => STATUSES[name] === message.status)
        return { ack: Number(message.refId), status }
      }
      default: throw new Error(`no script says that: ${message.type}`)
    }
  }
}

/** A frame of somebody else. */
function frameOf (of: any): Uint8Array {
  const crdt: CrdtType = 'presence' in of ? '%EPH' : '%LOR'
  const about = { crdt, roomId }
  const nothing = new Uint8Array()
  const batchId = batchOf(of.batch ?? 1)
  if ('bytes' in of) return unhex(of.bytes)
  if ('join' in of) return encode({ ...about, type: MessageType.JoinRequest, auth: nothing, version: versionOf(of.join) })
  if ('joined' in of) {
    const permission = 'reads only' in of ? 'read' : 'write'
    return encode({ ...about, type: MessageType.JoinResponseOk, permission, version: versionOf(of.joined), extra: cameTwice(of.twice ?? []) })
  }
  if ('update' in of) return encode({ ...about, type: MessageType.DocUpdate, updates: [updateOf(of.update)], batchId })
  if ('header' in of) {
    const totalSizeBytes = updateOf(of.header).length
    return encode({ ...about, type: MessageType.DocUpdateFragmentHeader, batchId, fragmentCount: of.parts, totalSizeBytes })
  }
  if ('part' in of) {
    const update = updateOf(of.of)
    const size = Math.ceil(update.length / of.parts)
    const fragment = update.subarray(size * of.part, size * (of.part + 1))
    return encode({ ...about, type: MessageType.DocUpdateFragment, batchId, index: of.part, fragment })
  }
  if ('ack' in of) return encode({ ...about, type: MessageType.Ack, refId: batchOf(of.ack), status: STATUSES[of.status]! })
  if ('refused' in of) return encode({ ...about, type: MessageType.JoinError, code: JoinErrorCode.AuthFailed, message: 'no' })
  if ('evicted' in of) return encode({ ...about, type: MessageType.RoomError, code: RoomErrorCode.Evicted, message: 'out' })
  switch (of.presence) {
    case 'join': return encode({ ...about, type: MessageType.JoinRequest, auth: nothing, version: nothing })
    case 'joined':
      return encode({ ...about, type: MessageType.JoinResponseOk, permission: 'write', version: nothing, extra: nothing })
    default: return encode({ ...about, type: MessageType.DocUpdate, updates: [joinEntries(of.presence)], batchId })
  }
}

/** What says that the changes of these authors came twice. */
function cameTwice (authors: string[]): Uint8Array {
  if (authors.length === 0) return new Uint8Array()
  const bytes = Buffer.alloc(5 + 8 * authors.length, 'twice')
  authors.forEach((author, n) => bytes.writeBigUInt64LE(BigInt(author), 5 + 8 * n))
  return bytes
}

function unhex (text: string): Uint8Array { return Uint8Array.from(Buffer.from(text, 'hex')) }

function updateOf (changes: object): Uint8Array {
  const known = vectors.updates.find((one: any) => JSON.stringify(one.changes) === JSON.stringify(changes))
  return unhex(known.bytes)
}

/** What an update has, by author: from where to where. */
function changesOf (update: Uint8Array): object {
  const { partialStartVersionVector, partialEndVersionVector } = decodeImportBlobMeta(update, false)
  const start = partialStartVersionVector.toJSON()
  return Object.fromEntries([...partialEndVersionVector.toJSON()].map(([peer, end]) => [peer, [start.get(peer) ?? 0, end]]))
}

function plain ({ key, value, stamp }: { key: string, value: unknown, stamp: number }): object {
  return value === undefined ? { key, stamp } : { key, value, stamp }
}

function told (event: EngineEvent): object {
  const link = 'link' in event ? { link: event.link as LinkId } : {}
  const reason = 'reason' in event ? { reason: event.reason } : {}
  return { event: EVENTS[event.type] ?? event.type, ...link, ...reason }
}

describe('every implementation says the same to the same', () => {
  for (const { name, steps, ...script } of vectors.scripts) {
    it(name, () => {
      const actor = new Actor(script)
      for (const { at, in: input, out, then = {} } of steps) {
        expect(actor.step(at, input), `after ${at} ms, to ${JSON.stringify(input)}`).toEqual(out)
        const { links, stored } = actor.engine.status()
        const all: Record<string, unknown> = {
          'caught up': actor.engine.isCaughtUp(),
          stored,
          unacknowledged: links.reduce((sum, link) => sum + link.unacknowledged, 0),
          online: actor.engine.online(at).map(({ session }) => session).sort()
        }
        for (const what of Object.keys(then)) expect(all[what], `${what} after ${at} ms`).toEqual(then[what])
      }
    })
  }
})
