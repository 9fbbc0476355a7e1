// Tabs of one browser share over a BroadcastChannel: no network, no signaling.
//
// A tab that is killed says nothing. So each holds a lock under its name for as long as it lives, and the others wait for
// it: the browser gives it to them when the tab is gone. Where there are no locks, a tab that does not answer is gone.

import type { Door, Port, TabFound, Tabs } from '../adapter.js'

/** What one tab says to the others, or to one. */
interface Said { from: string, to?: string, kind: 'hello' | 'here' | 'bye' | 'frame', frame?: Uint8Array }

/** The longest message between tabs, in bytes. */
const FRAME = 256 << 10
/** How often a tab shows that it is there, where there are no locks, and how long it may be silent, in milliseconds. */
const SHOW = 2000
const SILENT = 5000
/** Tabs that are known at most; more are not listened to. */
const MOST_TABS = 64

/** Lets the tabs of this browser that have the same room open share. A peer does this by itself unless it is told not to. */
export function broadcastChannel (): Tabs {
  return {
    kind: 'tabs',
    start: (room, session, found) => typeof BroadcastChannel === 'undefined' ? { close: () => {} } : new Hall(room, session, found)
  }
}

const lockOf = (room: string, session: string): string => `peer-sdk tab ${session} in ${room}`

class Hall {
  private readonly channel: BroadcastChannel
  private readonly tabs = new Map<string, Tab>()
  private readonly leave = new AbortController()
  private release: () => void = () => {}
  private readonly timer: ReturnType<typeof setInterval> | undefined

  constructor (private readonly room: string, readonly session: string, private readonly found: TabFound) {
    this.channel = new BroadcastChannel(`peer-sdk ${room}`)
    this.channel.onmessage = ({ data }: MessageEvent<unknown>) => { this.heard(data) }
    const { locks } = this
    if (locks === undefined) {
      this.timer = setInterval(() => { this.look() }, SHOW)
      this.greet()
      return
    }
    const held = new Promise<void>(resolve => { this.release = resolve })
    // Told once the lock is held: else whoever hears of us would find it free.
    void locks.request(lockOf(room, session), { signal: this.leave.signal }, async () => {
      this.greet()
      await held
    }).catch(() => { /* Closed before it was held. */ })
  }

  private greet (): void { this.say({ from: this.session, kind: 'hello' }) }

  private get locks (): LockManager | undefined {
    return typeof navigator === 'undefined' ? undefined : (navigator as { locks?: LockManager | null }).locks ?? undefined
  }

  say (said: Said): void {
    if (!this.leave.signal.aborted) this.channel.postMessage(said)
  }

  private heard (data: unknown): void {
    if (!isSaid(data) || data.from === this.session || (data.to !== undefined && data.to !== this.session)) return
    if (data.kind === 'bye') return this.gone(data.from, true)
    const known = this.tabs.get(data.from)
    if (known !== undefined) {
      known.heardAt = performance.now()
      if (data.kind === 'frame' && data.frame instanceof Uint8Array) known.door.received(data.frame)
      if (data.kind === 'hello') this.say({ from: this.session, to: data.from, kind: 'here' })
      return
    }
    if (data.kind === 'frame' || this.tabs.size >= MOST_TABS) return
    // Answered before we ask, so that the other knows us by then.
    if (data.kind === 'hello') this.say({ from: this.session, to: data.from, kind: 'here' })
    this.meet(data.from)
  }

  private meet (session: string): void {
    this.found(session, this.session < session, door => {
      const tab = new Tab(this, session, door)
      this.tabs.set(session, tab)
      queueMicrotask(() => { if (this.tabs.get(session) === tab) door.open(FRAME) })
      return tab
    })
    const { signal } = this.leave
    void this.locks?.request(lockOf(this.room, session), { signal }, () => { this.gone(session, true) }).catch(() => {})
  }

  gone (session: string, tell: boolean): void {
    const tab = this.tabs.get(session)
    if (!this.tabs.delete(session) || tab === undefined) return
    if (tell) tab.door.down('lost')
  }

  private look (): void {
    const now = performance.now()
    this.say({ from: this.session, kind: 'hello' })
    for (const [session, { heardAt }] of this.tabs) if (now - heardAt > SILENT) this.gone(session, true)
  }

  close (): void {
    this.say({ from: this.session, kind: 'bye' })
    this.leave.abort()
    this.release()
    clearInterval(this.timer)
    this.tabs.clear()
    // What was said last would be lost with the channel.
    setTimeout(() => { this.channel.close() })
  }
}

class Tab implements Port {
  heardAt = performance.now()

  constructor (private readonly hall: Hall, private readonly session: string, readonly door: Door) {}

  send (frame: Uint8Array): void {
    this.hall.say({ from: this.hall.session, to: this.session, kind: 'frame', frame })
    queueMicrotask(() => { this.door.drained(frame.length) })
  }

  close (): void { this.hall.gone(this.session, false) }
}

/** Every page of this origin can speak here, those of other versions included. */
function isSaid (data: unknown): data is Said {
  if (typeof data !== 'object' || data === null) return false
  const { from, to, kind } = data as Record<string, unknown>
  return typeof from === 'string' && from.length <= 128 && (to === undefined || typeof to === 'string') &&
    (kind === 'hello' || kind === 'here' || kind === 'bye' || kind === 'frame')
}
