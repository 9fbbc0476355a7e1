// Engines in one process, in virtual time, over links that delay, lose and break. Every story has a seed.
import { LoroDoc } from 'loro-crdt'
import { Engine } from '../src/engine'
import { Dice } from '../src/engine/backoff'
import type { PresenceValue } from '../src/engine/entries'
import { DocumentReplica } from '../src/engine/replica'
import type { EngineEvent, Input, LinkId, Output } from '../src/engine/vocabulary'

const FRAME = 262_144
const STORE = 3
const MINUTE = 60_000

interface Event { at: number, order: number, act: () => void }
interface End { node: Node, link: LinkId }
interface Wire { a: End, b: End }

/** One peer: an engine, its document, and a disk. */
export class Node {
  readonly doc = new LoroDoc()
  readonly events: EngineEvent[] = []
  readonly disk: Uint8Array[] = []
  readonly sent = { frames: 0, bytes: 0 }
  readonly channels = new Map<number, { peer: string, initiator: boolean }>()
  engine: Engine
  signaling = true
  diskWorks = true
  /** A page that has been hidden for some minutes: its timers fire at full minutes. What comes from a network comes at once. */
  isHidden = false
  private due: number | undefined

  constructor (readonly world: World, readonly name: string, channels = 0) {
    const config = { room: 'room', session: name, seed: world.dice.roll(), wall: 1_760_000_000_000 + world.now, uplinks: [], channels }
    this.engine = new Engine(world.now, config)
    this.engine.load(new DocumentReplica(this.doc), { version: new Map(), entries: 0, bytes: 0 })
    this.tell({ type: 'tick' })
  }

  tell (input: Input): void {
    this.engine.handle(this.world.now, input)
    for (let output = this.engine.poll(); output !== undefined; output = this.engine.poll()) this.perform(output)
    const deadline = this.engine.deadline()
    if (deadline === undefined || (this.due !== undefined && this.due <= deadline && this.due > this.world.now)) return
    this.due = Math.max(this.isHidden ? Math.ceil(deadline / MINUTE) * MINUTE : deadline, this.world.now)
    const { due } = this
    this.world.at(due, () => {
      if (this.due !== due) return
      this.due = undefined
      this.tell({ type: 'tick' })
    })
  }

  private perform (output: Output): void {
    const { world } = this
    switch (output.type) {
      case 'send': {
        this.sent.frames++
        this.sent.bytes += output.frame.length
        world.carry(this, output.link, output.frame)
        return
      }
      case 'append':
      case 'compact': {
        const update = output.type === 'append' ? output.update : output.snapshot
        const kept = this.diskWorks
        if (kept && output.type === 'compact') this.disk.length = 0
        if (kept) this.disk.push(update)
        world.after(STORE, () => { this.tell({ type: 'stored', ticket: output.ticket, kept }) })
        return
      }
      case 'cut': world.cutLink(this, output.link, true); return
      case 'announce': world.announce(this); return
      case 'signal': world.signal(this, output.to, output.token, output.data); return
      case 'connect': this.connect(output.channel, output.peer, output.initiator); return
      case 'deliver': world.delivered(this, output.channel, output.data); return
      case 'event': this.events.push(output.event); return
      case 'dial': this.tell({ type: 'down', link: `uplink ${output.uplink}`, end: 'lost' })
    }
  }

  private connect (channel: number, peer: string, initiator: boolean): void {
    this.channels.set(channel, { peer, initiator })
    if (initiator) this.world.after(1, () => { this.tell({ type: 'local', channel, data: { offer: channel } }) })
  }

  edit (text: string): void {
    this.doc.getText('t').push(text)
    this.doc.commit()
    this.tell({ type: 'edited' })
  }

  show (value: PresenceValue | undefined): void { this.tell({ type: 'present', value }) }

  text (): string { return this.doc.getText('t').toString() }

  sees (): string[] { return this.engine.online(this.world.now).map(({ session }) => session).sort() }
}

export class World {
  now = 0
  latency = 20
  /** Frames may be lost with their link only; what is lost here is whole links. */
  readonly dice: Dice
  readonly nodes: Node[] = []
  private wires: Wire[] = []
  private queue: Event[] = []
  private order = 0
  private minted = 0

  constructor (seed: number) { this.dice = new Dice(BigInt(seed)) }

  node (name: string, channels = 0): Node {
    const node = new Node(this, name, channels)
    this.nodes.push(node)
    return node
  }

  at (at: number, act: () => void): void { this.queue.push({ at, order: this.order++, act }) }

  after (delay: number, act: () => void): void { this.at(this.now + delay, act) }

  run (milliseconds: number): void {
    const end = this.now + milliseconds
    for (;;) {
      let next: Event | undefined
      for (const event of this.queue) {
        if (event.at <= end && (next === undefined || event.at < next.at || (event.at === next.at && event.order < next.order))) next = event
      }
      if (next === undefined) break
      this.queue.splice(this.queue.indexOf(next), 1)
      this.now = Math.max(this.now, next.at)
      next.act()
    }
    this.now = end
  }

  /** Two tabs of one browser, which need no signaling. */
  join (a: Node, b: Node): Wire {
    const id = ++this.minted
    const wire = { a: { node: a, link: `tab ${id}` as const }, b: { node: b, link: `tab ${id}` as const } }
    this.wires.push(wire)
    a.tell({ type: 'up', link: wire.a.link, frame: FRAME, asks: true, session: b.name })
    b.tell({ type: 'up', link: wire.b.link, frame: FRAME, asks: false, session: a.name })
    return wire
  }

  private wireOf (node: Node, link: LinkId): { wire: Wire, near: End, far: End } | undefined {
    for (const wire of this.wires) {
      if (wire.a.node === node && wire.a.link === link) return { wire, near: wire.a, far: wire.b }
      if (wire.b.node === node && wire.b.link === link) return { wire, near: wire.b, far: wire.a }
    }
    return undefined
  }

  carry (node: Node, link: LinkId, frame: Uint8Array): void {
    const found = this.wireOf(node, link)
    if (found === undefined) return
    this.after(1, () => { node.tell({ type: 'drained', link, bytes: frame.length }) })
    this.after(this.latency, () => {
      if (this.wires.includes(found.wire)) found.far.node.tell({ type: 'frame', link: found.far.link, frame })
    })
  }

  cutLink (node: Node, link: LinkId, fromHere: boolean): void {
    const found = this.wireOf(node, link)
    if (found === undefined) return
    this.wires = this.wires.filter(wire => wire !== found.wire)
    if (!fromHere) node.tell({ type: 'down', link, end: 'lost' })
    this.after(this.latency, () => { found.far.node.tell({ type: 'down', link: found.far.link, end: 'lost' }) })
  }

  cut (wire: Wire): void { this.cutLink(wire.a.node, wire.a.link, false) }

  /** A machine loses its power: nobody is told, and all that is heard is that its links are quiet. */
  kill (node: Node): void {
    this.nodes.splice(this.nodes.indexOf(node), 1)
    const ends = this.wires.filter(({ a, b }) => a.node === node || b.node === node).map(({ a, b }) => a.node === node ? b : a)
    this.wires = this.wires.filter(({ a, b }) => a.node !== node && b.node !== node)
    this.queue = this.queue.filter(({ act }) => act !== undefined)
    node.tell = () => {}
    this.after(3000, () => { for (const { node, link } of ends) node.tell({ type: 'quiet', link }) })
  }

  announce (from: Node): void {
    if (!from.signaling) return
    for (const node of this.nodes) {
      if (node !== from && node.signaling) this.after(this.latency, () => { node.tell({ type: 'announced', from: from.name }) })
    }
  }

  signal (from: Node, to: string, token: number, data: unknown): void {
    const node = this.nodes.find(({ name }) => name === to)
    if (node === undefined || !from.signaling || !node.signaling) return
    const kind = 'offer' in (data as object) ? 'offer' : 'answer'
    this.after(this.latency, () => { node.tell({ type: 'signalled', from: from.name, kind, token, data }) })
  }

  /** What a connection of `node` hears: it answers an offer, and an answer opens both ends. */
  delivered (node: Node, channel: number, data: unknown): void {
    const { offer, answer } = data as { offer?: number, answer?: [number, number] }
    const known = node.channels.get(channel)
    if (known === undefined) return
    if (offer !== undefined && !known.initiator) {
      this.after(1, () => { node.tell({ type: 'local', channel, data: { answer: [offer, channel] } }) })
    }
    if (answer === undefined || !known.initiator || answer[0] !== channel) return
    const far = this.nodes.find(({ name }) => name === known.peer)
    if (far === undefined) return
    const wire: Wire = { a: { node, link: `channel ${channel}` }, b: { node: far, link: `channel ${answer[1]}` } }
    this.wires.push(wire)
    this.after(this.latency, () => {
      far.tell({ type: 'up', link: wire.b.link, frame: FRAME })
      node.tell({ type: 'up', link: wire.a.link, frame: FRAME })
    })
  }

  /** Signaling is there for this node, from now on. */
  signalingUp (node: Node): void {
    node.signaling = true
    node.tell({ type: 'signalingUp' })
  }

  wiresBetween (one: Node, other: Node): Wire[] {
    return this.wires.filter(({ a, b }) => (a.node === one && b.node === other) || (a.node === other && b.node === one))
  }

  channelsOf (node: Node): string[] {
    return this.wires.flatMap(({ a, b }) => a.node === node ? [b.node.name] : b.node === node ? [a.node.name] : []).sort()
  }
}
