// What goes out over a link: updates as fast as the other end takes them, acknowledgements, presence.

import { UpdateStatusCode } from 'loro-protocol'
import { Inflight } from './inflight.js'
import type { Hands } from './link.js'
import { missing, raise, type Span, type Version } from './version.js'
import { Cut, type LinkId, type Output, type Refusal } from './vocabulary.js'
import { type Batch, batchOf, type Wire } from './wire.js'

/** About so many bytes may be given to a link beyond what it has drained; then updates wait. */
export const HIGH_WATER = 256 << 10
/** A link for which more bytes than this wait, answers and presence included, is ended. */
const MOST_UNSENT = 4 << 20
/** Updates that may wait for the disk before they are acknowledged. */
const MOST_RECEIPTS = 4096
/** How long updates are held back after a refusal, at first and at most, in milliseconds. */
const HOLD = 1000
const LONGEST_HOLD = 30_000

/**
 * Operations in one update, about. A long document goes in several, so that neither end stands still while it is written
 * or read, and what has arrived of it need not be sent again.
 */
const MOST_OPERATIONS = 1 << 18

/** What is sent before it is known to be lacked has at most so many operations, and bytes. */
const SHORT = 8000

/** What the other end is owed. */
export enum Owe { Nothing, Own, All }

/** An update that is being sent. `sent` is how much of it has been; `undefined`: not even the header. */
interface Outgoing { batch: Batch, update: Uint8Array, sent: number | undefined }

export class Flow {
  readonly inflight = new Inflight()
  /** Updates are held back until then, for they were refused. */
  heldUntil: number | undefined
  private owed = Owe.Nothing
  private outgoing: Outgoing | undefined
  private refusals = 0
  /** Updates whose sender waits for the word that they are safe. */
  private receipts: Array<{ batch: Batch, version: Version }> = []

  constructor (private readonly wire: Wire) {}

  owe (owe: Owe): void { this.owed = Math.max(this.owed, owe) }

  /** Sends what is owed, as far as the other end and the network take it. */
  pump (theirs: Version, hands: Hands): void {
    do {
      while (this.outgoing !== undefined) {
        if (this.wire.unsent >= HIGH_WATER) return
        this.sendPart(this.outgoing, hands.out)
      }
    } while (this.startNext(theirs, hands))
  }

  /**
   * Sends a short document to who has just been met and has shown nothing yet: most times it is a newcomer, whom that spares
   * the way there and back. Who has it all takes no harm.
   */
  guess (hands: Hands): void {
    const all = missing(hands.replica.version, new Map())
    if (all.reduce((sum, { end }) => sum + end, 0) > SHORT || hands.replica.spans(all).length > SHORT) return
    this.owe(Owe.All)
    this.pump(new Map(), hands)
  }

  /** Begins to send an update, if one is owed and may be sent. */
  private startNext (theirs: Version, hands: Hands): boolean {
    if (this.owed === Owe.Nothing || this.heldUntil !== undefined || !this.inflight.hasRoom) return false
    const spans = cut(missing(this.owed === Owe.All ? hands.replica.version : hands.own, this.inflight.promised(theirs)))
    if (spans.length === 0) {
      this.owed = Owe.Nothing
      return false
    }
    const update = hands.replica.spans(spans)
    const batch = batchOf(this.inflight.mint())
    this.inflight.sent(hands.now, new Map(spans.map(({ peer, end }) => [peer, end])), update.length)
    this.outgoing = { batch, update, sent: undefined }
    return true
  }

  private sendPart (outgoing: Outgoing, out: Output[]): void {
    const { batch, update } = outgoing
    const { fragment } = this.wire
    if (outgoing.sent === undefined) {
      outgoing.sent = update.length <= fragment ? update.length : 0
      if (outgoing.sent > 0) this.wire.update('%LOR', batch, update, out)
      else this.wire.fragmentHeader(batch, Math.ceil(update.length / fragment), update.length, out)
    } else {
      const start = outgoing.sent
      outgoing.sent = Math.min(update.length, start + fragment)
      this.wire.fragmentOf(batch, start / fragment, update.subarray(start, outgoing.sent), out)
    }
    if (outgoing.sent >= update.length) this.outgoing = undefined
  }

  /** So many bytes have left for the network. */
  drained (bytes: number): void { this.wire.unsent = Math.max(0, this.wire.unsent - bytes) }

  /** Whether more waits for the network than is put up with. */
  get isStuck (): boolean { return this.wire.unsent > MOST_UNSENT }

  /** Whether the network takes what may as well be said later. */
  get hasRoom (): boolean { return this.wire.unsent < HIGH_WATER }

  /** Acknowledges what the disk holds by now. */
  thank (hands: Hands): void {
    for (let receipt = this.receipts[0]; receipt !== undefined; receipt = this.receipts[0]) {
      if (!hands.journal.holds(receipt.version)) return
      this.receipts.shift()
      // Acknowledged only now: an ack is our word that closing the browser will not lose it.
      this.wire.ack('%LOR', receipt.batch, UpdateStatusCode.Ok, hands.out)
    }
  }

  /** Remembers to acknowledge an update once the disk holds it. */
  oweThanks (batch: Batch, version: Version): void {
    if (!this.wire.isBetweenPeers) return
    if (this.receipts.length >= MOST_RECEIPTS) throw new Cut('too slow')
    this.receipts.push({ batch, version: new Map(version) })
  }

  /** An answer to an update has come. When to exchange versions, if at all. */
  answered (link: LinkId, ack: { refId: Batch, status: UpdateStatusCode }, theirs: Version, hands: Hands): number | undefined {
    const covers = this.inflight.answered(Number(ack.refId))
    if (covers === undefined) return undefined
    if (ack.status === UpdateStatusCode.Ok) {
      this.refusals = 0
      raise(theirs, covers)
      return undefined
    }
    const hold = Math.min(HOLD * 2 ** Math.min(this.refusals, 5), LONGEST_HOLD)
    this.refusals++
    this.heldUntil = hands.now + hold
    this.owe(Owe.All)
    const { RateLimited, FragmentTimeout, PermissionDenied } = UpdateStatusCode
    if (ack.status !== RateLimited && ack.status !== FragmentTimeout) {
      hands.out.push({ type: 'event', event: { type: 'refused', link, status: refusal(ack.status) } })
    }
    // Not a member any more, or one that may only read: the answer to a join says which.
    return ack.status === PermissionDenied ? hands.now + hold : undefined
  }

  /** Sends presence. */
  tellPresence (update: Uint8Array, out: Output[]): void {
    this.wire.update('%EPH', batchOf(this.inflight.mint()), update, out)
  }

  keepTime (now: number): void {
    if (this.heldUntil !== undefined && this.heldUntil <= now) this.heldUntil = undefined
  }

  get deadline (): number | undefined { return this.owed === Owe.Nothing ? undefined : this.heldUntil }

  /** The other end has left: nothing is on its way any more. */
  clear (): void {
    this.outgoing = undefined
    this.inflight.clear()
  }
}

/** As much of these as goes into one update. */
function cut (spans: Span[]): Span[] {
  let left = MOST_OPERATIONS
  const taken: Span[] = []
  for (const { peer, start, end } of spans) {
    if (left === 0) break
    const length = Math.min(left, end - start)
    taken.push({ peer, start, end: start + length })
    left -= length
  }
  return taken
}

function refusal (status: UpdateStatusCode): Refusal {
  switch (status) {
    case UpdateStatusCode.PermissionDenied: return 'permission denied'
    case UpdateStatusCode.InvalidUpdate: return 'invalid update'
    case UpdateStatusCode.PayloadTooLarge: return 'too large'
    case UpdateStatusCode.RateLimited: return 'too many'
    case UpdateStatusCode.FragmentTimeout: return 'fragments too late'
    default: return 'unknown'
  }
}
