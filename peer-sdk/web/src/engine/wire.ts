// Frames of the Loro Protocol over one link, as the published codec writes and reads them.

import { type CrdtType, encode, JoinErrorCode, MessageType, type ProtocolMessage, tryDecode, UpdateStatusCode } from 'loro-protocol'
import type { LinkId, Output } from './vocabulary.js'

export type Incoming = ProtocolMessage
/** Names an update. */
export type Batch = `0x${string}`

/** The longest frame of the protocol, in bytes. */
export const MAX_FRAME = 256 << 10
/** Updates are cut so short where a long message holds up everything behind it, and elsewhere. */
const CHANNEL_FRAGMENT = 60 << 10
const FRAGMENT = 240 << 10
/** What stands around a fragment in its message, but for the room's name. */
const ENVELOPE = 64

export function batchOf (number: number): Batch { return `0x${number.toString(16).padStart(16, '0')}` }

export class Wire {
  readonly isBetweenPeers: boolean
  /** How long a part of an update may be. */
  readonly fragment: number
  /** Bytes given to the network and not drained yet. */
  unsent = 0

  constructor (private readonly link: LinkId, private readonly room: string, frame: number) {
    this.isBetweenPeers = !link.startsWith('uplink')
    const most = this.isBetweenPeers ? CHANNEL_FRAGMENT : FRAGMENT
    const name = new TextEncoder().encode(room).length
    this.fragment = Math.max(1, Math.min(most, frame - ENVELOPE - name))
  }

  /** What a frame says; `undefined` if it cannot be read. */
  read (frame: Uint8Array): Incoming | undefined {
    return frame.length > MAX_FRAME ? undefined : tryDecode(frame)
  }

  isOurs (message: Incoming, crdt: '%LOR' | '%EPH'): boolean {
    return message.crdt === crdt && message.roomId === this.room
  }

  /** Answers whoever means another room. */
  refuse (message: Incoming, out: Output[]): void {
    const { crdt, roomId } = message
    if (message.type === MessageType.JoinRequest && this.isBetweenPeers) {
      const said = 'there is no such room here'
      this.send({ type: MessageType.JoinError, crdt, roomId, code: JoinErrorCode.AppError, appCode: 'no_such_room', message: said }, out)
    } else if (message.type === MessageType.DocUpdate) {
      this.send({ type: MessageType.Ack, crdt, roomId, refId: message.batchId, status: UpdateStatusCode.PermissionDenied }, out)
    }
  }

  joinRequest (crdt: CrdtType, auth: Uint8Array, version: Uint8Array, out: Output[]): void {
    this.send({ type: MessageType.JoinRequest, crdt, roomId: this.room, auth, version: this.fitting(version) }, out)
  }

  joinOk (crdt: CrdtType, version: Uint8Array, out: Output[]): void {
    const extra = new Uint8Array()
    this.send({ type: MessageType.JoinResponseOk, crdt, roomId: this.room, permission: 'write', version: this.fitting(version), extra }, out)
  }

  /** A version of more authors than fit into a frame: who is shown an empty one sends more than we lack. */
  private fitting (version: Uint8Array): Uint8Array {
    return version.length > MAX_FRAME / 2 ? Uint8Array.of(0) : version
  }

  leave (crdt: CrdtType, out: Output[]): void {
    this.send({ type: MessageType.Leave, crdt, roomId: this.room }, out)
  }

  /** Tells what became of an update. A hub or relay only wants to hear of late fragments. */
  ack (crdt: CrdtType, batch: Batch, status: UpdateStatusCode, out: Output[]): void {
    if (!this.isBetweenPeers && status !== UpdateStatusCode.FragmentTimeout) return
    this.send({ type: MessageType.Ack, crdt, roomId: this.room, refId: batch, status }, out)
  }

  update (crdt: CrdtType, batchId: Batch, update: Uint8Array, out: Output[]): void {
    this.send({ type: MessageType.DocUpdate, crdt, roomId: this.room, updates: [update], batchId }, out)
  }

  fragmentHeader (batchId: Batch, fragmentCount: number, totalSizeBytes: number, out: Output[]): void {
    this.send({ type: MessageType.DocUpdateFragmentHeader, crdt: '%LOR', roomId: this.room, batchId, fragmentCount, totalSizeBytes }, out)
  }

  fragmentOf (batchId: Batch, index: number, fragment: Uint8Array, out: Output[]): void {
    this.send({ type: MessageType.DocUpdateFragment, crdt: '%LOR', roomId: this.room, batchId, index, fragment }, out)
  }

  private send (message: ProtocolMessage, out: Output[]): void {
    const frame = encode(message)
    this.unsent += frame.length
    out.push({ type: 'send', link: this.link, frame })
  }
}
