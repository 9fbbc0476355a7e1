// Which data channels to have: y-webrtc signaling, and a room that stays connected with few of them.
//
// Who has room for more says that it is there; who hears that and wants a channel makes an offer. If both ends make one
// (*glare*), the offer with the larger token counts: a peer drops an offer whose token is less than its own, and else
// gives its own up and answers. A token is a number that was drawn with the first word about a connection.
//
// Every session stands on a ring, at the place that its name hashes to. Everybody wants a channel to the next one in
// either direction, which makes a ring of the whole room as soon as all know of each other, and some to others at random,
// which make it small. When there are as many as there may be, one at random gives way to one on the ring. Whoever cannot
// be reached is left alone for a while; y-webrtc's other users are let go and remembered. Other tabs of this browser are
// reached without a network, and get no channel.

import type { Dice } from './backoff.js'
import { neighbours } from './ring.js'
import type { Output, Reason, SignalKind } from './vocabulary.js'

/** How long an offer may go unanswered, and how long a connection may take after that, in milliseconds. */
const ANSWER = 5000
const OPEN = 20_000
/** How long to leave somebody alone who could not be reached, at first and at most. */
const REST = 1000
const LONGEST_REST = 120_000
/** How long to leave somebody alone who speaks another protocol. */
const FOREIGN = 600_000
/** How long somebody counts as being in the room whom only signaling has told of. */
const HEARD = 60_000
/** When to say that we are there while there are too few channels: at first and at most. */
const CALL = 1000
const SLOWEST_CALL = 30_000
/** Within what time many answer an announcement; few need less. */
const SPREAD = 300
/** How often otherwise, for each ten in the room: so that two halves that grew apart hear of each other. */
const REMINDER = 30_000
/** The deadline of an offer that is to be made anew. */
const UNHEARD = -Infinity
/** Names that are remembered at most. */
const MOST_NAMES = 4096

interface Channel {
  peer: string
  initiator: boolean
  open: boolean
  answered: boolean
  token: number | undefined
  /** The token of the offer that it answers. */
  theirs: number | undefined
  deadline: number | undefined
}

/** What is remembered of somebody. */
interface Name {
  heard: number
  /** Not to be called before. */
  restsUntil: number | undefined
  failures: number
  /** While it rests: it speaks another protocol, and is not answered either. */
  foreign: boolean
}

export class Mesh {
  /** Sessions in other tabs of this browser. */
  readonly near = new Set<string>()
  private readonly channels = new Map<number, Channel>()
  private minted = 0
  private readonly names = new Map<string, Name>()
  private up = false
  private callAt: number | undefined
  private callDelay = CALL
  /** When to look for more channels. */
  private lookAt: number | undefined

  /** `wall` is what our clock says, in milliseconds since 1970, at `start`: for tokens. */
  constructor (
    private readonly start: number,
    private readonly session: string,
    private readonly most: number,
    private readonly wall: number
  ) {}

  /** How many channels to look for: the rest is left for those who look for us. */
  private get wanted (): number { return this.most <= 3 ? this.most : Math.floor(this.most * 5 / 8) }

  /** The session at the other end of a channel. */
  peer (channel: number): string | undefined { return this.channels.get(channel)?.peer }

  /** Whether we made the offer, and so ask first. */
  isInitiator (channel: number): boolean { return this.channels.get(channel)?.initiator ?? false }

  signalingUp (now: number): void {
    if (this.most === 0) return
    this.up = true
    // What was offered while signaling was away was offered to nobody, and is no reason to leave anybody alone.
    for (const name of this.names.values()) if (!name.foreign) name.restsUntil = undefined
    for (const channel of this.channels.values()) if (channel.initiator && !channel.answered && !channel.open) channel.deadline = UNHEARD
    this.goOn(now)
  }

  private goOn (now: number): void {
    this.callDelay = CALL
    this.callAt = now
    this.lookAt = now
  }

  wake (now: number): void {
    for (const name of this.names.values()) name.restsUntil = undefined
    if (this.up) this.goOn(now)
  }

  private heard (now: number, from: string): boolean {
    if (from === this.session || this.most === 0) return false
    const name = this.names.get(from)
    if (name !== undefined) {
      name.heard = now
      return true
    }
    if (this.names.size >= MOST_NAMES) {
      for (const [peer, { heard }] of this.names) if (now >= heard + HEARD) this.names.delete(peer)
    }
    if (this.names.size < MOST_NAMES) this.names.set(from, { heard: now, restsUntil: undefined, failures: 0, foreign: false })
    return true
  }

  announced (now: number, from: string, dice: Dice): void {
    // Not all at once: the newcomer has room for some of us only.
    const spread = Math.min(SPREAD, SPREAD / 10 * this.names.size)
    if (this.heard(now, from)) this.lookAt = Math.min(this.lookAt ?? Infinity, now + dice.between(0, spread))
  }

  signalled (
    now: number,
    from: string,
    kind: SignalKind,
    token: number | undefined,
    data: unknown,
    present: Set<string>,
    out: Output[]
  ): void {
    if (!this.heard(now, from) || this.near.has(from)) return
    const known = this.channelTo(from)
    if (known === undefined) {
      if (kind === 'offer' && !this.isForeign(now, from) && this.makeRoom(now, from, present, out)) this.answer(now, from, token, data, out)
      return
    }
    const [id, channel] = known
    // Of a connection that is there, an offer negotiates it anew.
    if (kind === 'offer' && !channel.open) {
      if (!yields(channel, token)) return
      this.cut(id, 'glare', out)
      return this.answer(now, from, token, data, out)
    }
    if (kind === 'answer') {
      if (!channel.initiator && !channel.open) {
        // Each has given up what it offered, and takes the other for who has. One of two offers will do.
        this.cut(id, 'glare', out)
        return this.offer(now, from, out)
      }
      channel.token = undefined
      if (!channel.open && !channel.answered) {
        channel.answered = true
        channel.deadline = now + OPEN
      }
    }
    out.push({ type: 'deliver', channel: id, data })
  }

  private channelTo (peer: string): [number, Channel] | undefined {
    for (const known of this.channels) if (known[1].peer === peer) return known
    return undefined
  }

  private answer (now: number, peer: string, theirs: number | undefined, data: unknown, out: Output[]): void {
    const channel = this.connect(now, peer, false, out, theirs)
    out.push({ type: 'deliver', channel, data })
  }

  private connect (now: number, peer: string, initiator: boolean, out: Output[], theirs?: number): number {
    const deadline = now + (initiator ? ANSWER : OPEN)
    this.channels.set(++this.minted, { peer, initiator, open: false, answered: false, token: undefined, theirs, deadline })
    out.push({ type: 'connect', channel: this.minted, peer, initiator })
    return this.minted
  }

  /** A connection of ours has something to say. */
  local (now: number, id: number, data: unknown, dice: Dice): Output | undefined {
    const channel = this.channels.get(id)
    if (channel === undefined) return undefined
    channel.token ??= Math.floor(this.wall + now - this.start) + dice.unit()
    return { type: 'signal', to: channel.peer, token: channel.token, data }
  }

  opened (id: number): boolean {
    const channel = this.channels.get(id)
    if (channel === undefined) return false
    channel.open = true
    channel.deadline = undefined
    const name = this.names.get(channel.peer)
    if (name !== undefined) Object.assign(name, { failures: 0, restsUntil: undefined })
    return true
  }

  /** A channel is gone. `reason` if it was ended from here. */
  closed (now: number, id: number, reason: Reason | undefined, dice: Dice): void {
    const channel = this.channels.get(id)
    if (channel === undefined) return
    this.channels.delete(id)
    const name = this.names.get(channel.peer)
    if (name !== undefined) name.foreign = reason === 'foreign'
    if (name !== undefined) name.restsUntil = this.restAfter(now, name, channel, reason, dice)
    const soon = now + dice.between(0, CALL)
    this.lookAt = Math.min(this.lookAt ?? Infinity, soon)
    if (this.up) {
      this.callDelay = CALL
      this.callAt = Math.min(this.callAt ?? Infinity, soon)
    }
  }

  private restAfter (
    now: number,
    name: Name,
    channel: Channel,
    reason: Reason | undefined,
    dice: Dice
  ): number | undefined {
    if (reason === 'foreign') return now + FOREIGN
    if (reason === 'glare') return undefined
    if (channel.open && reason === undefined) return now + dice.between(0, CALL)
    const rest = Math.min(REST * 2 ** Math.min(++name.failures, 7), LONGEST_REST)
    return now + rest * (0.5 + dice.unit() / 2)
  }

  private cut (id: number, reason: Reason, out: Output[]): void {
    const link = `channel ${id}` as const
    out.push({ type: 'cut', link, reason }, { type: 'event', event: { type: 'ended', link, reason } })
    this.channels.delete(id)
  }

  /** Somebody turns out to be in another tab of this browser. */
  isNear (session: string, out: Output[]): void {
    this.near.add(session)
    const known = this.channelTo(session)
    if (known !== undefined) this.cut(known[0], 'surplus', out)
  }

  /** Everybody who seems to be in the room: `present`, and whom signaling has told of of late. */
  private room (now: number, present: Set<string>): Set<string> {
    const room = new Set(present)
    for (const [peer, { heard }] of this.names) if (now < heard + HEARD) room.add(peer)
    for (const peer of room) if (this.rests(now, peer) || this.near.has(peer)) room.delete(peer)
    for (const { peer } of this.channels.values()) room.add(peer)
    return room
  }

  private rests (now: number, peer: string): boolean { return now < (this.names.get(peer)?.restsUntil ?? -Infinity) }

  private isForeign (now: number, peer: string): boolean {
    return this.rests(now, peer) && this.names.get(peer)?.foreign === true
  }

  /** Whether there is room for a channel to this one, if need be in place of another. */
  private makeRoom (now: number, peer: string, present: Set<string>, out: Output[]): boolean {
    if (this.channels.size < this.most) return true
    const ring = neighbours(this.session, this.room(now, present).add(peer))
    if (!ring.includes(peer)) return false
    const spare = [...this.channels].filter(([, channel]) => !ring.includes(channel.peer))
    // One that does not exist yet goes first, then the youngest.
    spare.sort(([a, x], [b, y]) => Number(x.open) - Number(y.open) || b - a)
    const id = spare[0]?.[0]
    if (id === undefined) return false
    this.cut(id, 'surplus', out)
    return true
  }

  /** Does what time alone brings about. */
  keepTime (now: number, present: Set<string>, dice: Dice, out: Output[]): void {
    for (const [id, { deadline }] of [...this.channels]) {
      if (deadline === undefined || deadline > now) continue
      // Nobody failed to answer what nobody heard.
      const reason = deadline === UNHEARD ? 'glare' : 'timeout'
      out.push({ type: 'cut', link: `channel ${id}`, reason })
      this.closed(now, id, reason, dice)
    }
    if (this.up && this.lookAt !== undefined && this.lookAt <= now) this.look(now, present, dice, out)
    if (this.up && this.callAt !== undefined && this.callAt <= now) this.call(now, present, dice, out)
  }

  /** Says that we are there. */
  private call (now: number, present: Set<string>, dice: Dice, out: Output[]): void {
    out.push({ type: 'announce' })
    const open = [...this.channels.values()].filter(channel => channel.open).length
    let delay = REMINDER * (1 + Math.floor(present.size / 10))
    if (open < Math.min(this.wanted, Math.max(this.room(now, present).size, 1))) {
      delay = this.callDelay = Math.min(this.callDelay * 2, SLOWEST_CALL)
    }
    this.callAt = now + delay * (0.5 + dice.unit())
  }

  /** Looks for channels to make. */
  private look (now: number, present: Set<string>, dice: Dice, out: Output[]): void {
    const before = this.minted
    const room = this.room(now, present)
    for (const peer of neighbours(this.session, room)) {
      if (this.channelTo(peer) === undefined && this.makeRoom(now, peer, present, out)) this.offer(now, peer, out)
    }
    const others = [...room].filter(peer => this.channelTo(peer) === undefined)
    while (this.channels.size < this.wanted && others.length > 0) {
      const [peer] = others.splice(dice.below(others.length), 1)
      if (peer !== undefined) this.offer(now, peer, out)
    }
    const pause = this.minted === before ? CALL * 5 : CALL
    this.lookAt = now + dice.between(pause, pause * 2)
    // Who is left alone just now is missed no longer than that.
    for (const { restsUntil = now } of this.names.values()) if (restsUntil > now) this.lookAt = Math.min(this.lookAt, restsUntil)
  }

  /** Offers to one peer, and makes sure that what becomes of it can be remembered. */
  private offer (now: number, peer: string, out: Output[]): void {
    if (!this.names.has(peer)) this.names.set(peer, { heard: now - HEARD, restsUntil: undefined, failures: 0, foreign: false })
    this.connect(now, peer, true, out)
  }

  get deadline (): number | undefined {
    let deadline = this.up ? Math.min(this.lookAt ?? Infinity, this.callAt ?? Infinity) : Infinity
    for (const channel of this.channels.values()) deadline = Math.min(deadline, channel.deadline ?? Infinity)
    return deadline === Infinity ? undefined : deadline
  }
}

/**
 * Whether an offer with this token counts more than what there is. Who has offered before and offers once more has given up
 * what it began; but the same offer may come twice, by another server. Else it is glare.
 */
function yields ({ initiator, token, theirs }: Channel, offered: number | undefined): boolean {
  if (offered === undefined) return true
  return initiator ? !(token !== undefined && token > offered) : !(theirs !== undefined && theirs >= offered)
}
