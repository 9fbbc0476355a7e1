// One document over one link: joining, versions, and what the other end is owed.
//
// Nothing is queued for the network. What a link is owed is the difference between our version and the version that the
// other end is known to hold, so that the first join, coming back after weeks and catching up with a slow reader are one
// and the same. What the other end holds is known from the versions that it shows, from what it sends, and from what it
// acknowledges.
//
// The Loro Protocol knows clients and servers. To a hub or relay we are the client. On a data channel, and between tabs,
// whoever made it asks first, and from then on both ends may do both:
//
// - *Ask*: a join request shows a version and wants what is missing. It is answered by a join response with the other
//   version, and by the difference; then the one who asked sends what the other lacks.
// - *Announce*: a join response that nobody asked for shows a version and wants nothing. Who lacks something asks.

import { JoinErrorCode, MessageType, RoomErrorCode, UpdateStatusCode } from 'loro-protocol'
import type { Dice } from './backoff.js'
import { Flow, Owe } from './flow.js'
import { Reassembly } from './fragments.js'
import type { Journal } from './journal.js'
import type { Replica } from './replica.js'
import { claimedVersion, encodeVersion, exceeds, raise, type Version } from './version.js'
import { Cut, type LinkId, type LinkStatus, type Output } from './vocabulary.js'
import { Wire, type Incoming } from './wire.js'

/** About how often versions are exchanged when nothing else happens, in milliseconds. */
const EXCHANGE = 30_000
/** How long an answer to a join may take, and how often it is asked before the link is given up. */
const JOIN = 10_000
const JOIN_TRIES = 3
/** The least time between two joins. */
const PACE = 1000
/** So many frames that cannot be read are put up with between two exchanges. */
const STRIKES = 32
/** The most updates in one frame. More are refused, since each costs more than its bytes. */
const MOST_UPDATES = 4096

/** What a link needs of the engine around it. */
export interface Hands {
  now: number
  replica: Replica
  journal: Journal
  dice: Dice
  /** How far those got who edit here. */
  own: Version
  out: Output[]
}

/** What a frame was about, beyond the link itself. */
export interface Heard {
  /** The document has changed. */
  news: boolean
  /** Presence, still to be read. */
  presence: Uint8Array[]
  /** The other end now wants presence, all of it. */
  wantsPresence: boolean
}

/** A question that is not answered yet. `mark` is the last update that was sent before it. */
interface Join { deadline: number, tries: number, mark: number }

/** The longest name of a session that a hub may give as its own, in bytes. */
const MAX_NAME = 256

type Message<T> = Extract<Incoming, { type: T }>

export class Link {
  /** Keys of presence that the other end has not been told of. */
  readonly newsOf = new Set<string>()
  /** The other end takes part in presence. */
  present = false
  /** The session that a hub says it is. */
  host: string | undefined
  readonly wire: Wire
  readonly flow: Flow
  private live = false
  private mayWrite = true
  private theirs: Version = new Map()
  /** The last version that the other end was shown. */
  private shown: Version = new Map()
  /** The version of theirs that was there when we last asked: one that lies is asked once. */
  private asked: Version | undefined
  private join: Join | undefined
  private exchangeAt: number | undefined
  private joinedAt: number | undefined
  private fragments = new Reassembly()
  private strikes = 0
  private heardAnything = false

  constructor (
    now: number,
    readonly id: LinkId,
    room: string,
    private readonly auth: Uint8Array,
    private readonly asks: boolean,
    frame: number
  ) {
    this.wire = new Wire(id, room, frame)
    this.flow = new Flow(this.wire)
    // Whoever made the channel asks first, or does not speak our protocol.
    this.exchangeAt = asks ? now : now + JOIN * JOIN_TRIES
  }

  /** Between equals: a data channel or another tab. Else the other end is a hub or relay. */
  get isBetweenPeers (): boolean { return this.wire.isBetweenPeers }

  get isLive (): boolean { return this.live }

  /** Whether something of it is on its way in. */
  get isReceiving (): boolean { return this.fragments.isPending }

  /** The version that the other end is known to hold. */
  get known (): Version { return this.theirs }

  /** Whether the other end has shown something that is neither in this version nor asked for already. */
  isWorthAsking (version: Version): boolean {
    const asked = this.asked !== undefined && !exceeds(this.theirs, this.asked)
    return this.live && this.join === undefined && !asked && exceeds(this.theirs, version)
  }

  status (ours: Version): LinkStatus {
    const { live, mayWrite, flow } = this
    const holdsAll = live && !exceeds(ours, this.theirs)
    return { link: this.id, joined: live, holdsAll, unacknowledged: flow.inflight.length, mayWrite }
  }

  /** Whether versions have been exchanged, and neither end lacks anything that it is known or has asked to lack. */
  isCaughtUp (ours: Version): boolean {
    return this.live && !exceeds(this.theirs, ours) && (!this.mayWrite || !exceeds(ours, this.told(this.theirs)))
  }

  /** What the other end has, or has been shown: over a data channel who was shown something that it does not lack is silent. */
  private told (held: Version): Version {
    const told = new Map(held)
    if (this.isBetweenPeers) raise(told, this.shown)
    return told
  }

  /** Asks: shows our version, wants what is missing. */
  ask (hands: Hands): void {
    const tries = (this.join?.tries ?? 0) + 1
    this.join = { deadline: hands.now + JOIN, tries, mark: this.flow.inflight.mark }
    this.joinedAt = hands.now
    this.exchangeAt = undefined
    this.asked = new Map(this.theirs)
    this.askFrom(hands.replica.version, hands)
    if (!this.live && this.isBetweenPeers) this.flow.guess(hands)
  }

  private askFrom (version: Version, hands: Hands): void {
    this.shown = new Map(version)
    this.wire.joinRequest('%LOR', this.auth, encodeVersion(version), hands.out)
  }

  /** Announces: shows our version, wants nothing. Nothing is said to whom it tells nothing new. */
  private announce (hands: Hands): void {
    const ours = hands.replica.version
    if (this.live && exceeds(ours, this.told(this.flow.inflight.promised(this.theirs)))) this.show(hands)
  }

  /** What others wrote is to be passed on. */
  passOn (hands: Hands): void {
    if (this.isBetweenPeers) this.announce(hands)
    else this.flow.owe(Owe.All)
  }

  /** What was edited here is to be sent. */
  edited (): void { this.flow.owe(this.isBetweenPeers ? Owe.Own : Owe.All) }

  private show (hands: Hands): void {
    this.shown = new Map(hands.replica.version)
    this.wire.joinOk('%LOR', encodeVersion(this.shown), hands.out)
  }

  /** Exchanges versions as soon as it is polite. */
  private exchangeSoon (at: number): void {
    const soon = Math.max(at, (this.joinedAt ?? -Infinity) + PACE)
    this.exchangeAt = Math.min(this.exchangeAt ?? Infinity, soon)
  }

  /** A version of the other end is known. */
  private enter (theirs: Version, hands: Hands): void {
    this.theirs = theirs
    this.strikes = 0
    if (!this.live) {
      this.live = true
      hands.out.push({ type: 'event', event: { type: 'joined', link: this.id } })
    }
    if (this.join === undefined) {
      const rhythm = hands.dice.between(EXCHANGE * 0.8, EXCHANGE * 1.2)
      this.exchangeAt = this.asks ? hands.now + rhythm : undefined
    }
  }

  /** Takes a frame. Throws a {@link Cut} that ends the link. */
  receive (frame: Uint8Array, hands: Hands): Heard {
    const heard: Heard = { news: false, presence: [], wantsPresence: false }
    const message = this.wire.read(frame)
    if (message === undefined) {
      if (!this.heardAnything) throw new Cut('foreign')
      this.strike()
    } else if (this.wire.isOurs(message, '%LOR')) {
      this.heardAnything = true
      this.aboutDocument(message, hands, heard)
    } else if (this.wire.isOurs(message, '%EPH')) {
      this.heardAnything = true
      this.aboutPresence(message, hands, heard)
    } else {
      this.wire.refuse(message, hands.out)
      this.strike()
    }
    return heard
  }

  private aboutDocument (message: Incoming, hands: Hands, heard: Heard): void {
    switch (message.type) {
      case MessageType.JoinRequest: return this.wasAsked(message, hands)
      case MessageType.JoinResponseOk: return this.wasShown(message, hands)
      case MessageType.JoinError: return this.turnedAway(message, hands)
      case MessageType.RoomError: return this.roomError(message, hands)
      case MessageType.Ack: {
        const again = this.flow.answered(this.id, message, this.theirs, hands)
        if (again !== undefined) this.exchangeSoon(again)
        return
      }
      case MessageType.Leave: return this.left()
      case MessageType.DocUpdate:
      case MessageType.DocUpdateFragmentHeader:
      case MessageType.DocUpdateFragment:
        // A hub may send some before we have read its answer.
        if (this.live || this.join !== undefined) return this.update(message, hands, heard)
        this.wire.ack('%LOR', message.batchId, UpdateStatusCode.PermissionDenied, hands.out)
        this.strike()
    }
  }

  private update (message: Message<3 | 4 | 5>, hands: Hands, heard: Heard): void {
    const { batchId } = message
    if (message.type === MessageType.DocUpdate) {
      if (message.updates.length > MOST_UPDATES) return this.bad(batchId, UpdateStatusCode.PayloadTooLarge, hands)
      return this.take(batchId, message.updates, hands, heard)
    }
    const done = message.type === MessageType.DocUpdateFragmentHeader
      ? this.fragments.header(hands.now, batchId, message.fragmentCount, message.totalSizeBytes)
      : this.fragments.fragment(hands.now, batchId, message.index, message.fragment)
    if (done instanceof Uint8Array) this.take(batchId, [done], hands, heard)
    else if (done !== undefined) this.bad(batchId, done.refused, hands)
  }

  private bad (batch: `0x${string}`, status: UpdateStatusCode | undefined, hands: Hands): void {
    if (status !== undefined) this.wire.ack('%LOR', batch, status, hands.out)
    if (status !== UpdateStatusCode.RateLimited) this.strike()
  }

  private take (batch: `0x${string}`, updates: Uint8Array[], hands: Hands, heard: Heard): void {
    let pending = false
    for (const update of updates) {
      const imported = hands.replica.import(update)
      if (imported === 'broken') throw new Cut('hostile')
      if (imported === 'malformed') return this.bad(batch, UpdateStatusCode.InvalidUpdate, hands)
      raise(this.theirs, imported.covers)
      heard.news ||= imported.news
      pending ||= imported.pending
    }
    // What it builds on has not come: the other end has it, or knows who has.
    if (pending) this.exchangeSoon(hands.now)
    this.flow.oweThanks(batch, hands.replica.version)
  }

  private wasAsked (message: Message<0>, hands: Hands): void {
    if (!this.isBetweenPeers) return this.strike()
    this.enter(claimedVersion(message.version), hands)
    this.show(hands)
    this.flow.owe(Owe.All)
  }

  private wasShown (message: Message<1>, hands: Hands): void {
    const theirs = claimedVersion(message.version)
    const { join } = this
    if (join === undefined) {
      if (!this.isBetweenPeers || !this.live) return this.strike()
      this.theirs = theirs
      return
    }
    this.join = undefined
    this.flow.inflight.settle(join.mark, theirs)
    this.enter(theirs, hands)
    this.mayWrite = message.permission === 'write'
    if (!this.mayWrite) hands.out.push({ type: 'event', event: { type: 'readOnly', link: this.id } })
    this.flow.owe(Owe.All)
    if (!this.present && this.asks) this.wire.joinRequest('%EPH', this.auth, new Uint8Array(), hands.out)
  }

  private turnedAway (message: Message<2>, hands: Hands): void {
    if (message.code === JoinErrorCode.AuthFailed) throw new Cut('auth failed')
    if (message.code !== JoinErrorCode.VersionUnknown || this.join === undefined || this.join.tries > JOIN_TRIES) {
      throw new Cut('join refused')
    }
    this.join.tries++
    this.askFrom(new Map(), hands)
  }

  private roomError (message: Message<6>, hands: Hands): void {
    if (message.code === RoomErrorCode.Evicted) throw new Cut('evicted')
    if (message.code !== RoomErrorCode.RejoinSuggested) return
    this.flow.heldUntil = undefined
    this.exchangeSoon(hands.now)
  }

  private left (): void {
    if (!this.isBetweenPeers) return
    this.live = false
    this.flow.clear()
    this.fragments.clear()
  }

  private aboutPresence (message: Incoming, hands: Hands, heard: Heard): void {
    switch (message.type) {
      case MessageType.JoinRequest:
        if (!this.isBetweenPeers) return this.strike()
        this.wire.joinOk('%EPH', new Uint8Array(), hands.out)
        this.present = heard.wantsPresence = true
        return
      case MessageType.JoinResponseOk:
        if (!this.asks) return this.strike()
        if (!this.isBetweenPeers) this.host = nameIn(message.extra)
        this.present = heard.wantsPresence = true
        return
      case MessageType.DocUpdate:
        heard.presence.push(...message.updates.slice(0, MOST_UPDATES))
        return
      case MessageType.Leave:
        this.present = false
        return
      case MessageType.DocUpdateFragmentHeader:
      case MessageType.DocUpdateFragment:
        // What one frame cannot tell is more than anybody shows.
        return this.strike()
      default: // A hub without presence is a hub all the same.
    }
  }

  /** Something came that makes no sense. */
  strike (): void {
    if (++this.strikes > STRIKES) throw new Cut('garbage')
  }

  /** Acknowledges what the disk holds by now, and sends what is owed. */
  pump (hands: Hands): void {
    this.flow.thank(hands)
    if (this.live && this.mayWrite) this.flow.pump(this.theirs, hands)
  }

  /** Says that we go. */
  leave (out: Output[]): void {
    if (this.present) this.wire.leave('%EPH', out)
    if (this.live) this.wire.leave('%LOR', out)
  }

  /** Does what time alone brings about. */
  keepTime (hands: Hands): void {
    const { now } = hands
    if (this.join !== undefined && this.join.deadline <= now) {
      if (this.join.tries < JOIN_TRIES) this.ask(hands)
      else if (this.asks) throw new Cut('silent')
      else this.join = undefined
    }
    if (this.exchangeAt !== undefined && this.exchangeAt <= now) {
      this.exchangeAt = undefined
      if (!this.live && !this.asks) throw new Cut('foreign')
      if (this.join === undefined) this.ask(hands)
    }
    if (this.flow.inflight.isOverdue(now)) this.exchangeSoon(now)
    this.flow.keepTime(now)
    for (let batch = this.fragments.expired(now); batch !== undefined; batch = this.fragments.expired(now)) {
      this.wire.ack('%LOR', batch as `0x${string}`, UpdateStatusCode.FragmentTimeout, hands.out)
      this.exchangeSoon(now)
    }
  }

  /** When to be called again at the latest. */
  get deadlines (): Array<number | undefined> {
    return [this.join?.deadline, this.exchangeAt, this.flow.inflight.deadline, this.fragments.deadline, this.flow.deadline]
  }
}

function nameIn (extra: Uint8Array | undefined): string | undefined {
  if (extra === undefined || extra.length === 0 || extra.length > MAX_NAME) return undefined
  return new TextDecoder().decode(extra)
}
