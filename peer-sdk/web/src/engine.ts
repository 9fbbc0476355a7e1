// What a peer does, without doing it: the core of this package.
//
// One engine keeps one document and the presence of one room in step with everybody whom its links lead to. `handle`
// takes one thing that happened, `poll` says what to do about it and is drained before the next, `deadline` says when a
// tick is due. Nothing here awaits, reads a clock or draws a random number.
//
// - What was edited here goes out at once, on every link.
// - What others wrote goes on within a beat: to hubs and relays as updates; to data channels and other tabs as an
//   announcement of our version, so that only who lacks something gets it.
// - Whoever sends us something is thanked once the disk holds it.
// - About every 30 seconds, versions are exchanged again.

import { Backoff, Dice } from './engine/backoff.js'
import { Journal } from './engine/journal.js'
import { type Hands, type Heard, Link } from './engine/link.js'
import { Mesh } from './engine/mesh.js'
import { Presence } from './engine/presence.js'
import type { Replica } from './engine/replica.js'
import { exceeds, raise, type Version } from './engine/version.js'
import { type Config, Cut, type End, type EngineStatus, type Input, isFinal, type LinkId, type Online, type Output, type Reason } from './engine/vocabulary.js'

/** How long what others wrote may wait to be passed on, about, in milliseconds. */
const BEAT = 100
/** How long to wait for something that was asked for before somebody else is asked. */
const PATIENCE = 2000

/** What the end of a link means, as if it had been ended from here. */
const END_REASONS: Record<End, Reason | undefined> = { lost: undefined, refused: 'auth failed', foreign: 'foreign' }

/** A hub or relay that we dial. Without `dialAt` it is being dialled, is up, or wants us no more. */
interface Uplink { backoff: Backoff, dialAt: number | undefined, dialling: boolean }

/** What was asked of whom, and until when nobody else is asked for the same. */
interface Ask { link: LinkId, version: Version, until: number }

/** Before there is a document, nobody is told of it: whoever can be met is met meanwhile. */
const NOTHING_YET: Replica = {
  version: new Map(), refresh: () => false, import: () => 'malformed', spans: () => new Uint8Array()
}

/** What the disk had: the version, in so many entries and bytes. */
export interface Stored { version: Version, entries: number, bytes: number }

/** One document, and everybody around it. */
export class Engine {
  private journal = new Journal(new Map(), 0, 0)
  private replica: Replica = NOTHING_YET
  /** How far those got who edit here. */
  private readonly own: Version = new Map()
  private readonly links = new Map<LinkId, Link>()
  private readonly tabs = new Map<LinkId, string>()
  private readonly uplinks: Uplink[]
  private readonly mesh: Mesh
  private readonly presence: Presence
  private readonly dice: Dice
  /** When to pass on what others wrote, and presence. */
  private beatAt: number | undefined
  private presenceAt: number | undefined
  private asks: Ask[] = []
  private broken = false
  private garbage = 0
  private outputs: Output[] = []

  /** The uplinks are dialled at the first tick. No link may come up before the document is there: {@link load}. */
  constructor (now: number, private readonly config: Config) {
    this.uplinks = config.uplinks.map(() => ({ backoff: new Backoff(), dialAt: now, dialling: false }))
    this.mesh = new Mesh(now, config.session, config.channels, config.wall)
    this.presence = new Presence(now, config.session, config.wall)
    this.dice = new Dice(config.seed)
  }

  /** The document is there, once and for all. The replica holds what was stored. */
  load (replica: Replica, stored: Stored): void {
    this.replica = replica
    this.journal = new Journal(new Map(stored.version), stored.entries, stored.bytes)
  }

  /** Takes one thing that happened at `now`. Drain {@link poll} before the next. */
  handle (now: number, input: Input): void {
    switch (input.type) {
      case 'edited': this.edited(); break
      case 'present': this.presence.present(now, input.value); break
      case 'up': this.up(now, input); break
      case 'frame': this.frame(now, input.link, input.frame); break
      case 'drained': this.links.get(input.link)?.flow.drained(input.bytes); break
      case 'down': this.down(now, input.link, input.end); break
      case 'quiet': this.presence.quiet(now, input.link); break
      case 'resumed': this.presence.resumed(now, input.link); break
      case 'stored':
        if (!this.journal.answered(now, input.ticket, input.kept)) this.outputs.push({ type: 'event', event: { type: 'storeFailed' } })
        break
      case 'signalingUp': this.mesh.signalingUp(now); break
      case 'announced': this.mesh.announced(now, input.from, this.dice); break
      case 'signalled':
        this.mesh.signalled(now, input.from, input.kind, input.token, input.data, this.presence.sessions(), this.outputs)
        break
      case 'local': {
        const said = this.mesh.local(now, input.channel, input.data, this.dice)
        if (said !== undefined) this.outputs.push(said)
        break
      }
      case 'wake': this.wake(now); break
      case 'close': this.close(now); break
      case 'tick':
    }
    this.settle(now)
  }

  /** The next thing to do, `undefined` when there is nothing left. */
  poll (): Output | undefined { return this.outputs.shift() }

  /** When to call {@link handle} at the latest, with a tick if nothing else happens. */
  deadline (): number | undefined {
    if (this.broken) return undefined
    const times = [this.beatAt, this.presenceAt, this.presence.deadline, this.mesh.deadline, this.journal.deadline]
    for (const { dialAt } of this.uplinks) times.push(dialAt)
    for (const link of this.links.values()) times.push(...link.deadlines)
    for (const { until } of this.asks) times.push(until)
    const deadline = times.reduce<number>((least, time) => Math.min(least, time ?? Infinity), Infinity)
    return deadline === Infinity ? undefined : deadline
  }

  /** Who is there, but for us. */
  online (now: number): Online[] { return this.presence.online(now) }

  /** How all of it is doing. */
  status (): EngineStatus {
    const { version } = this.replica
    return {
      version,
      stored: this.journal.holds(version),
      links: [...this.links.values()].map(link => link.status(version)),
      dialling: this.uplinks.filter(uplink => uplink.dialling).length,
      garbage: this.garbage
    }
  }

  /** Whether every link that is up has exchanged versions, and nobody lacks anything that somebody else has shown. */
  isCaughtUp (): boolean {
    return [...this.links.values()].every(link => link.isCaughtUp(this.replica.version))
  }

  /** The session at the other end of a link, if it leads straight to one. A hub says who it is, a relay is nobody. */
  sessionOf (link: LinkId): string | undefined {
    if (link.startsWith('uplink')) return this.links.get(link)?.host
    return link.startsWith('channel') ? this.mesh.peer(numberOf(link)) : this.tabs.get(link)
  }

  private edited (): void {
    const before = this.replica.version
    if (!this.replica.refresh()) return
    for (const [peer, end] of this.replica.version) if (end > (before.get(peer) ?? 0)) this.own.set(peer, end)
    for (const link of this.links.values()) link.edited()
  }

  private up (now: number, { link: id, frame, asks = true, session }: Extract<Input, { type: 'up' }>): void {
    let auth: Uint8Array = new Uint8Array()
    if (id.startsWith('uplink')) {
      const uplink = this.uplinks[numberOf(id)]
      if (uplink === undefined) return
      uplink.backoff.up(now)
      uplink.dialling = false
      uplink.dialAt = undefined
      auth = this.config.uplinks[numberOf(id)] ?? auth
    } else if (id.startsWith('channel')) {
      asks = this.mesh.isInitiator(numberOf(id))
      if (!this.mesh.opened(numberOf(id))) return
    } else if (session !== undefined) {
      this.tabs.set(id, session)
      this.mesh.isNear(session, this.outputs)
    }
    this.links.set(id, new Link(now, id, this.config.room, auth, asks, frame))
  }

  private frame (now: number, id: LinkId, frame: Uint8Array): void {
    if (this.broken) return
    // What was edited here and not told yet must not pass for what the frame brings.
    this.edited()
    const heard = this.withLink<Heard>(now, id, (link, hands) => link.receive(frame, hands))
    if (heard === undefined) return
    if (heard.news) this.beatAt ??= now + this.dice.between(BEAT * 0.7, BEAT * 1.3)
    if (heard.wantsPresence) this.introduce(now, id)
    for (const update of heard.presence) this.hearPresence(now, id, update)
  }

  /** Has a link do something; one that fails is ended. */
  private withLink<T> (now: number, id: LinkId, act: (link: Link, hands: Hands) => T): T | undefined {
    const link = this.links.get(id)
    if (link === undefined) return undefined
    const { replica, journal, dice, own, outputs: out } = this
    try {
      const done = act(link, { now, replica, journal, dice, own, out })
      if (link.flow.isStuck) throw new Cut('too slow')
      return done
    } catch (error) {
      if (!(error instanceof Cut)) throw error
      this.cut(now, id, error.reason)
      return undefined
    }
  }

  private cut (now: number, id: LinkId, reason: Reason): void {
    if (reason === 'garbage' || reason === 'foreign' || reason === 'hostile') this.garbage++
    this.outputs.push({ type: 'cut', link: id, reason }, { type: 'event', event: { type: 'ended', link: id, reason } })
    this.lost(now, id, reason)
    if (reason === 'hostile') {
      this.broken = true
      this.outputs.push({ type: 'event', event: { type: 'documentBroken' } })
    }
  }

  private down (now: number, id: LinkId, end: End): void {
    this.lost(now, id, END_REASONS[end])
  }

  /** A link is gone. */
  private lost (now: number, id: LinkId, reason: Reason | undefined): void {
    if (this.links.delete(id)) {
      this.presence.down(now, id)
      this.asks = this.asks.filter(ask => ask.link !== id)
    }
    if (id.startsWith('uplink')) {
      const uplink = this.uplinks[numberOf(id)]
      if (uplink === undefined) return
      const delay = uplink.backoff.down(now, this.dice.unit())
      uplink.dialling = false
      uplink.dialAt = reason !== undefined && isFinal(reason) ? undefined : now + delay
    } else if (id.startsWith('channel')) this.mesh.closed(now, numberOf(id), reason, this.dice)
    else {
      this.mesh.near.delete(this.tabs.get(id) ?? '')
      this.tabs.delete(id)
    }
  }

  private wake (now: number): void {
    this.uplinks.forEach((uplink, n) => {
      if (this.links.has(`uplink ${n}`) || uplink.dialling) return
      uplink.backoff.reset()
      uplink.dialAt = now
    })
    this.mesh.wake(now)
  }

  private close (now: number): void {
    this.presence.leave(now)
    this.flushPresence(now)
    for (const link of this.links.values()) link.leave(this.outputs)
  }

  /** Does what time alone brings about, and what is owed. */
  private settle (now: number): void {
    this.uplinks.forEach((uplink, n) => {
      if (uplink.dialAt === undefined || uplink.dialAt > now) return
      uplink.dialAt = undefined
      uplink.dialling = true
      this.outputs.push({ type: 'dial', uplink: n })
    })
    if ((this.mesh.deadline ?? Infinity) <= now) this.mesh.keepTime(now, this.presence.sessions(), this.dice, this.outputs)
    this.sweep(now)
    this.flushPresence(now)
    if (this.broken) return
    const write = this.journal.write(now, this.replica)
    if (write !== undefined) this.outputs.push(write)
    const beat = this.beatAt !== undefined && this.beatAt <= now
    if (beat) this.beatAt = undefined
    for (const id of [...this.links.keys()]) {
      this.withLink(now, id, (link, hands) => {
        if (beat) link.passOn(hands)
        link.pump(hands)
        link.keepTime(hands)
      })
    }
    this.askAround(now)
  }

  /** Lets go of data channels that the mesh has given up. */
  private sweep (now: number): void {
    for (const id of [...this.links.keys()]) {
      if (id.startsWith('channel') && this.mesh.peer(numberOf(id)) === undefined) this.lost(now, id, 'surplus')
    }
  }

  /** Asks for what others have announced: each thing of one at a time. */
  private askAround (now: number): void {
    const ours = this.replica.version
    for (const ask of this.asks) if (this.links.get(ask.link)?.isReceiving === true) ask.until = now + PATIENCE
    this.asks = this.asks.filter(ask => ask.until > now && exceeds(ask.version, ours))
    const expected: Version = new Map(ours)
    for (const ask of this.asks) raise(expected, ask.version)
    for (const [id, link] of [...this.links]) {
      if (!link.isBetweenPeers || !link.isWorthAsking(expected)) continue
      this.withLink(now, id, (link, hands) => { link.ask(hands) })
      const version = new Map(link.known)
      raise(expected, version)
      this.asks.push({ link: id, version, until: now + PATIENCE })
    }
  }

  /** Tells a link of all presence, and of ours first, alone: so a hub knows whose it is. */
  private introduce (now: number, id: LinkId): void {
    const link = this.links.get(id)
    if (link === undefined) return
    const { ownKey } = this.presence
    if (this.presence.isPresent) {
      for (const update of this.presence.updates([ownKey], id)) link.flow.tellPresence(update, this.outputs)
    }
    this.presenceAt ??= now
    for (const key of this.presence.keys()) if (key !== ownKey || !this.presence.isPresent) link.newsOf.add(key)
  }

  private hearPresence (now: number, id: LinkId, update: Uint8Array): void {
    const changes = this.presence.receive(now, id, this.sessionOf(id), update)
    if (changes === undefined) {
      this.garbage++
      this.withLink(now, id, link => { link.strike() })
    } else if (changes.size > 0) {
      this.outputs.push({ type: 'event', event: { type: 'presence' } })
      this.spread(now, changes, BEAT / 2)
    }
  }

  /** Has every link told of these keys, within this time. */
  private spread (now: number, changes: Set<string>, within: number): void {
    this.presenceAt = Math.min(this.presenceAt ?? Infinity, now + this.dice.between(within / 2, within))
    for (const link of this.links.values()) if (link.present) for (const key of changes) link.newsOf.add(key)
  }

  private flushPresence (now: number): void {
    const hasHub = [...this.links.keys()].some(id => !id.startsWith('channel'))
    const { changes, left } = this.presence.keepTime(now, hasHub, this.dice)
    if (left) this.outputs.push({ type: 'event', event: { type: 'presence' } })
    if (changes.size > 0) this.spread(now, changes, 0)
    if (this.presenceAt === undefined || this.presenceAt > now) return
    this.presenceAt = undefined
    for (const [id, link] of this.links) {
      if (!link.flow.hasRoom) {
        if (link.newsOf.size > 0) this.presenceAt = now + BEAT
        continue
      }
      for (const update of this.presence.updates(link.newsOf, id)) link.flow.tellPresence(update, this.outputs)
      link.newsOf.clear()
    }
  }
}

function numberOf (link: LinkId): number { return Number(link.slice(link.indexOf(' ') + 1)) }
