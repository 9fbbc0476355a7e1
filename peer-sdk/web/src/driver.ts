// The only event loop of a peer: it feeds the engine and performs what it says.

import type { Adapter, Door, Mesh, MeshPort, Path, Port, Store, Tabs, Transport } from './adapter.js'
import { Engine, type Stored } from './engine.js'
import type { Replica } from './engine/replica.js'
import type { Config, Input, LinkId, Online, Output } from './engine/vocabulary.js'
import { INITIAL, isSameStatus, type LinkState, type PeerEvent, type Status, type StorageState } from './status.js'

/** The least time between two looks at the status, in milliseconds. */
const LOOK = 20
/** A sign of the network wakes what waits for it, but not more often than this. */
const SIGN = 5000
/** Troubles of links that are gone are remembered for so many. */
const MOST_TROUBLES = 64

/** Messages of one link that wait for the document. Who says more before it is answered is let go. */
const MOST_EARLY = 16

/** One link: what makes it, what is known once it is there, and what it says before there is a document. */
interface Wired { port: Port | undefined, alive: boolean, path: Path | undefined, roundTrip: number | undefined, early: Input[] }

/** What a document comes with: how much of it is stored, and what keeps it from now on. */
export interface Opened { replica: Replica, stored: Stored, store: Store | undefined, storage: StorageState }

/** What the driver tells the peer. */
export interface Told {
  status: (status: Status) => void
  online: (online: Array<Online & { path: Path, roundTrip: number | undefined }>) => void
  event: (event: PeerEvent) => void
  /** A server or somebody has been reached. */
  reached: () => void
}

export class Driver {
  private readonly engine: Engine
  private readonly transports: Transport[]
  private mesh: MeshPort | undefined
  private tabs: ReturnType<Tabs['start']> | undefined
  private readonly links = new Map<LinkId, Wired>()
  private readonly troubles = new Map<LinkId, string>()
  private readonly inputs: Input[] = []
  private running = false
  private timer: ReturnType<typeof setTimeout> | undefined
  private looker: ReturnType<typeof setTimeout> | undefined
  private minted = 0
  private signAt = -Infinity
  private writing: Promise<void> = Promise.resolve()
  private trouble: string | undefined
  private status: Status = INITIAL
  private closed = false
  private opened: Opened | undefined

  /** Looks for everybody at once. Nobody is told anything of the document before {@link open}. */
  constructor (private readonly config: Config, private readonly adapters: readonly Adapter[], private readonly told: Told) {
    this.engine = new Engine(performance.now(), config)
    this.transports = adapters.filter((adapter): adapter is Transport => adapter.kind === 'hub')
    const mesh = adapters.find((adapter): adapter is Mesh => adapter.kind === 'mesh')
    this.tell({ type: 'tick' })
    // First the tabs: who is in one needs no channel. One that signaling finds first loses its channel again.
    this.joinTabs()
    if (mesh !== undefined) this.joinMesh(mesh)
  }

  /** The document is there, and with it what was stored: from now on others are told of it. */
  open (opened: Opened): void {
    this.opened = opened
    this.engine.load(opened.replica, opened.stored)
    for (const { early } of [...this.links.values()]) for (const input of early.splice(0)) this.tell(input)
    this.tell({ type: 'edited' })
  }

  private joinMesh (mesh: Mesh): void {
    const { room, session } = this.config
    this.mesh = mesh.start(room, session, {
      up: () => {
        this.tell({ type: 'signalingUp' })
        this.sign()
      },
      announced: from => { this.tell({ type: 'announced', from }) },
      signalled: (from, kind, token, data) => { this.tell({ type: 'signalled', from, kind, token, data }) },
      password: problem => { this.told.event({ type: 'password', problem }) },
      iceFailed: why => { this.told.event({ type: 'iceFailed', why }) },
      changed: () => { this.lookSoon() }
    })
  }

  private joinTabs (): void {
    const tabs = this.adapters.find((adapter): adapter is Tabs => adapter.kind === 'tabs')
    const { room, session } = this.config
    this.tabs = tabs?.start(room, session, (session, asks, connect) => { this.foundTab(session, asks, connect) })
  }

  /** Gives the engine an input, and performs what it says. What an application does meanwhile waits its turn. */
  tell (input: Input): void {
    this.inputs.push(input)
    if (this.running || this.closed) return
    this.running = true
    try {
      for (let next = this.inputs.shift(); next !== undefined; next = this.inputs.shift()) {
        this.engine.handle(performance.now(), next)
        for (let output = this.engine.poll(); output !== undefined; output = this.engine.poll()) this.perform(output)
      }
    } finally {
      this.running = false
    }
    this.schedule()
    this.lookSoon()
  }

  private schedule (): void {
    clearTimeout(this.timer)
    const deadline = this.engine.deadline()
    if (deadline === undefined || this.closed) return
    this.timer = setTimeout(() => { this.tell({ type: 'tick' }) }, Math.max(0, Math.ceil(deadline - performance.now())))
  }

  private perform (output: Output): void {
    switch (output.type) {
      case 'send': this.links.get(output.link)?.port?.send(output.frame); return
      case 'dial': this.run(`uplink ${output.uplink}`, door => this.transports[output.uplink]?.dial(door)); return
      case 'connect': this.run(`channel ${output.channel}`, door => this.mesh?.connect(output.peer, output.initiator, door)); return
      case 'deliver': this.links.get(`channel ${output.channel}`)?.port?.hear?.(output.data); return
      case 'announce': this.mesh?.announce(); return
      case 'signal': this.mesh?.signal(output.to, output.token, output.data); return
      case 'cut': this.cut(output.link); return
      case 'append': this.write(output.ticket, this.opened?.store?.append(output.update)); return
      case 'compact': this.write(output.ticket, this.opened?.store?.compact(output.snapshot)); return
      case 'event': this.event(output.event)
    }
  }

  private event (event: Extract<Output, { type: 'event' }>['event']): void {
    if (event.type === 'storeFailed') return
    if (event.type === 'presence') this.showPresence()
    if (event.type === 'ended') this.remember(event.link, event.reason)
    if (event.type === 'joined') this.troubles.delete(event.link)
    this.told.event(event)
  }

  /** Runs an adapter for one connection of a link. */
  private run (link: LinkId, connect: (door: Door) => Port | undefined): void {
    this.cut(link)
    const wired: Wired = { port: undefined, alive: true, path: undefined, roundTrip: undefined, early: [] }
    this.links.set(link, wired)
    wired.port = connect(this.door(link, wired, undefined))
    if (!wired.alive) wired.port?.close()
  }

  private foundTab (session: string, asks: boolean, connect: (door: Door) => Port): void {
    const link: LinkId = `tab ${++this.minted}`
    const wired: Wired = { port: undefined, alive: true, path: 'tab', roundTrip: undefined, early: [] }
    this.links.set(link, wired)
    wired.port = connect(this.door(link, wired, { asks, session }))
  }

  private door (link: LinkId, wired: Wired, tab: { asks: boolean, session: string } | undefined): Door {
    const alive = (act: () => void): void => { if (wired.alive) act() }
    return {
      open: frame => {
        alive(() => {
          this.hear(wired, { type: 'up', link, frame, ...tab })
          if (tab === undefined) this.sign()
        })
      },
      received: frame => { alive(() => { this.hear(wired, { type: 'frame', link, frame }) }) },
      drained: bytes => { alive(() => { this.tell({ type: 'drained', link, bytes }) }) },
      down: (end, why) => {
        alive(() => {
          wired.alive = false
          this.links.delete(link)
          if (why !== undefined) this.remember(link, why)
          this.tell({ type: 'down', link, end })
        })
      },
      path: (path, roundTrip) => {
        alive(() => {
          wired.path = path
          if (roundTrip !== undefined) wired.roundTrip = roundTrip
          this.lookSoon()
        })
      },
      quiet: () => { alive(() => { this.tell({ type: 'quiet', link }) }) },
      resumed: () => {
        alive(() => {
          this.tell({ type: 'resumed', link })
          this.sign()
        })
      },
      signal: data => { alive(() => { this.tell({ type: 'local', channel: Number(link.split(' ')[1]), data }) }) }
    }
  }

  /** A link says something. Without a document there is no answer yet. */
  private hear (wired: Wired, input: Extract<Input, { type: 'up' | 'frame' }>): void {
    if (this.opened !== undefined) return this.tell(input)
    if (wired.early.length < MOST_EARLY) return void wired.early.push(input)
    this.cut(input.link)
    this.tell({ type: 'down', link: input.link, end: 'lost' })
  }

  private cut (link: LinkId): void {
    const wired = this.links.get(link)
    if (wired === undefined) return
    wired.alive = false
    this.links.delete(link)
    wired.port?.close()
  }

  private remember (link: LinkId, why: string): void {
    this.troubles.delete(link)
    this.troubles.set(link, why)
    for (const old of this.troubles.keys()) {
      if (this.troubles.size <= MOST_TROUBLES) return
      if (!old.startsWith('uplink')) this.troubles.delete(old)
    }
  }

  /** Something got through: whatever waits for the network need not wait any longer. */
  private sign (): void {
    const now = performance.now()
    if (now - this.signAt < SIGN) return
    this.signAt = now
    this.mesh?.wake()
    this.tell({ type: 'wake' })
    this.told.reached()
  }

  /** The network may be back, or we are. */
  wake (): void {
    for (const { port } of this.links.values()) port?.wake?.()
    this.mesh?.wake()
    this.signAt = performance.now()
    this.tell({ type: 'wake' })
  }

  private write (ticket: number, write: Promise<void> | undefined): void {
    const done = (write ?? Promise.resolve()).then(() => {
      this.trouble = undefined
      return true
    }, (error: unknown) => {
      this.trouble = error instanceof Error ? error.message : String(error)
      this.told.event({ type: 'storeFailed', why: this.trouble, quota: isQuota(error) })
      return false
    })
    this.writing = done.then(kept => { this.tell({ type: 'stored', ticket, kept }) })
  }

  private lookSoon (): void {
    this.looker ??= setTimeout(() => {
      this.looker = undefined
      this.look()
    }, LOOK)
  }

  /** Looks how all of it is doing. */
  private look (): void {
    const told = this.engine.status()
    const status: Status = {
      loaded: this.opened !== undefined,
      storage: this.trouble === undefined ? this.storage : 'failing',
      stored: told.stored,
      caughtUp: this.opened !== undefined && this.engine.isCaughtUp() && told.dialling === 0,
      links: this.linkStates(),
      signaling: this.mesh?.signaling ?? [],
      garbage: told.garbage,
      trouble: this.trouble,
      closed: this.closed
    }
    if (!isSameStatus(status, this.status)) this.told.status(this.status = status)
    this.showPresence()
  }

  private linkStates (): LinkState[] {
    const up = this.engine.status().links.map(link => {
      const { path, roundTrip } = this.links.get(link.link) ?? {}
      return { ...link, up: true, path, roundTrip, ...this.described(link.link) }
    })
    const missing = this.transports.map((_, n): LinkId => `uplink ${n}`).filter(id => !up.some(({ link }) => link === id))
    const down = missing.map(link => ({
      link, up: false, joined: false, holdsAll: false, unacknowledged: 0, mayWrite: true, path: undefined, roundTrip: undefined, ...this.described(link)
    }))
    return [...down, ...up].sort((a, b) => a.link < b.link ? -1 : 1)
  }

  private described (link: LinkId): Pick<LinkState, 'name' | 'session' | 'trouble'> {
    const name = link.startsWith('uplink') ? this.transports[Number(link.split(' ')[1])]?.name : undefined
    return { name, session: this.engine.sessionOf(link), trouble: this.troubles.get(link) }
  }

  private showPresence (): void {
    this.told.online(this.engine.online(performance.now()).map(online => {
      const straight = online.direct === undefined ? undefined : this.links.get(online.direct)
      const path = online.direct?.startsWith('tab') === true ? 'tab' : straight?.path ?? 'hub'
      return { ...online, path, roundTrip: straight?.roundTrip }
    }))
  }

  /** Whether anybody is connected to. */
  get isMet (): boolean { return this.engine.status().links.length > 0 }

  /** Whether the disk and every hub or relay that is up has what is known here. */
  get isFlushed (): boolean {
    const { stored, links } = this.engine.status()
    return stored && links.every(({ link, joined, holdsAll, unacknowledged, mayWrite }) =>
      !link.startsWith('uplink') || !joined || !mayWrite || (holdsAll && unacknowledged === 0))
  }

  /** Says goodbye and lets go of every connection, at once. The engine goes on, and {@link resume} brings them back. */
  suspend (): void {
    this.tell({ type: 'close' })
    for (const link of [...this.links.keys()]) {
      this.cut(link)
      this.tell({ type: 'down', link, end: 'lost' })
    }
    this.tabs?.close()
    this.tabs = undefined
  }

  /** After {@link suspend}: the page is back. */
  resume (): void {
    if (this.closed || this.tabs !== undefined) return
    this.joinTabs()
    this.wake()
  }

  /** Says goodbye, and ends everything. Resolves when the disk has ended what is under way. */
  async close (): Promise<void> {
    this.tell({ type: 'close' })
    this.closed = true
    clearTimeout(this.timer)
    clearTimeout(this.looker)
    for (const link of [...this.links.keys()]) this.cut(link)
    this.tabs?.close()
    this.mesh?.close()
    this.told.status(this.status = { ...this.status, caughtUp: false, links: [], signaling: [], closed: true })
    await this.writing
    this.opened?.store?.close()
  }

  private get storage (): StorageState {
    if (this.opened !== undefined) return this.opened.storage
    return this.adapters.some(({ kind }) => kind === 'storage') ? 'loading' : 'none'
  }
}

function isQuota (error: unknown): boolean { return error instanceof Error && error.name === 'QuotaExceededError' }
