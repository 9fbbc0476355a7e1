// The review page: one peer, one plan, and whoever looks at it.
import * as loro from 'loro-crdt/web'
import { indexedDB, Peer, webrtc, websocket, type Adapter, type PeerEvent } from '../../src/index'
import { type Address, isLocal, readAddress, shareable, writeAddress } from './address'
import { h, pour } from './dom'
import { annotate, readPlan, reply, resolve, takeBack, writeSample, type Plan } from './plan'
import { type Doings, type Known, nameOf, type Shown, view } from './view'
import { isAlone } from './words'

const NAMES = ['Otter', 'Heron', 'Lynx', 'Wren', 'Hare', 'Tern', 'Marten', 'Robin', 'Vole', 'Swift', 'Newt', 'Finch']
const LONGEST_NAME = 40
/** How long it takes to connect, more or less: before that it is not worth a word that nobody is there. */
const PATIENCE = 2500

/** What a reviewer shows, read from what a stranger sends. */
function parseShown (shown: unknown): Shown | undefined {
  if (typeof shown !== 'object' || shown === null) return undefined
  const { name, cursor, agent } = shown as Record<string, unknown>
  if (typeof name !== 'string' || name.trim() === '') return undefined
  const step = typeof cursor === 'object' && cursor !== null ? (cursor as Record<string, unknown>).step_id : undefined
  return { name: name.trim().slice(0, LONGEST_NAME), cursor: typeof step === 'string' ? { step_id: step } : null, agent: agent === true }
}

/** Kept in this browser, where it may keep things. */
function kept (name: string, fresh: () => string): string {
  try {
    const value = localStorage.getItem(name) ?? fresh()
    localStorage.setItem(name, value)
    return value
  } catch {
    return fresh()
  }
}

const random = (below: number): number => Math.floor(Math.random() * below)

class Review {
  doc!: loro.LoroDoc
  readonly peer: Peer<Shown>
  private readonly user = kept('review user', () => `r-${random(36 ** 8).toString(36)}`)
  private name = kept('review name', () => `${NAMES[random(NAMES.length)] ?? 'Reviewer'} ${10 + random(90)}`)
  private plan: Plan = readPlan({})
  private known = new Set<string>()
  private fresh = new Set<string>()
  private writing: string | undefined
  private showsDone = false
  private warning: string | undefined
  private isOpen = false
  private drawn = false
  private aloneSince: number | undefined = Date.now()
  private here: ReadonlySet<string> = new Set()
  private gone: ReadonlySet<string> = new Set()

  /** Looks for the others at once. There is something to see when Loro has started. */
  constructor (readonly address: Address) {
    this.peer = new Peer<Shown>({
      room: address.room,
      doc: async () => await loadLoro().then(() => this.open()),
      adapters: this.adapters(),
      user: this.user,
      presence: { name: this.name, cursor: null },
      parsePresence: parseShown,
      counts: shows => shows?.agent !== true
    })
    const changed = (): void => {
      this.look()
      if (!isAlone(this.peer.status, this.gone)) this.aloneSince = undefined
      else if (this.aloneSince === undefined) {
        this.aloneSince = Date.now()
        setTimeout(this.draw, PATIENCE)
      }
      this.draw()
    }
    setTimeout(this.draw, PATIENCE)
    this.peer.subscribe(changed)
    this.peer.presence.subscribe(changed)
    this.peer.onEvent(event => { this.happened(event) })
    window.addEventListener('online', this.draw)
    window.addEventListener('offline', this.draw)
    setInterval(this.draw, 30_000)
    document.addEventListener('keydown', event => { this.key(event) })
    this.peer.loaded.then(() => {
      // Who was here before has seen these.
      this.known = new Set(this.plan.annotations.map(({ id }) => id))
      this.draw()
    }, () => { /* The page says so already. */ })
  }

  private open (): loro.LoroDoc {
    this.doc = new loro.LoroDoc()
    this.doc.subscribe(() => { this.read() })
    this.isOpen = true
    this.draw()
    return this.doc
  }

  private adapters (): Adapter[] {
    const { hubs, signaling, ice, password } = this.address
    const adapters: Adapter[] = [...hubs.map(hub => websocket(hub)), indexedDB('plan reviews')]
    if (signaling.length === 0) return adapters
    const from = ice[0]
    return [...adapters, webrtc({ signaling, ...(from === undefined ? {} : { iceFrom: from }), ...(password === undefined ? {} : { password }) })]
  }

  /** Who is gone matters as long as something leads there. */
  private look (): void {
    const before = new Set([...this.here, ...this.gone])
    this.here = new Set(this.peer.presence.peers.map(({ session }) => session))
    const leads = this.peer.status.links.flatMap(({ session }) => session ?? [])
    this.gone = new Set(leads.filter(session => before.has(session) && !this.here.has(session)))
  }

  private happened (event: PeerEvent): void {
    if (event.type === 'memoryOnly') this.warning = `This browser keeps nothing here, as in a private window (${event.why}). Do not close the tab before somebody else has your notes.`
    if (event.type === 'storedDamaged') this.warning = 'What this browser had kept cannot be read. It was left as it is, and the plan is fetched from the others.'
    if (event.type === 'storeFailed' && event.quota) this.warning = 'The disk is full: new notes are kept in this tab only, until there is room.'
    if (event.type === 'documentBroken') this.warning = 'The document broke. Load the page again: what was saved is still there.'
    if (event.type === 'password') {
      this.warning = event.problem === 'unavailable'
        ? 'This page came over http, where browsers do not encrypt. Open it over https to meet the others.'
        : 'Somebody here uses another password, or none. Check that you have the whole link.'
    }
    this.draw()
  }

  private read (): void {
    // Nothing else of the document: it may be long.
    this.plan = readPlan({ plan: this.doc.getMap('plan').toJSON(), annotations: this.doc.getList('annotations').toJSON() })
    const added = this.plan.annotations.filter(({ id }) => !this.known.has(id))
    for (const { id } of added) this.known.add(id)
    const last = added.at(-1)
    if (last !== undefined && this.peer.status.loaded && last.author !== this.name) {
      this.fresh = new Set(added.map(({ id }) => id))
      const at = this.plan.steps.findIndex(({ id }) => id === last.stepId)
      tell(`${last.author} annotated ${at < 0 ? 'the plan' : `step ${at + 1}`}: ${last.text.slice(0, 120)}`)
    }
    this.draw()
  }

  /** Draws at most once a frame, and also where there are none, as in a tab behind others. */
  private readonly draw = (): void => {
    if (this.drawn || !this.isOpen) return
    this.drawn = true
    setTimeout(() => {
      this.drawn = false
      const app = document.getElementById('app')
      if (app !== null) pour(app, view(this.state(), this.doings))
      const { online } = this.peer.presence
      document.title = `${this.plan.title === '' ? 'Plan review' : this.plan.title}${online > 1 ? ` (${online} online)` : ''}`
    }, 8)
  }

  private state (): Known {
    const { plan, user, name, gone, writing, showsDone, warning, fresh } = this
    return {
      plan, user, name, gone, writing, showsDone, warning, fresh,
      status: this.peer.status,
      presence: this.peer.presence.view,
      isOffline: !navigator.onLine,
      isAlone: this.aloneSince !== undefined && (!navigator.onLine || Date.now() - this.aloneSince >= PATIENCE),
      hubs: this.address.hubs.length,
      servers: this.address.signaling.length,
      hasWebRtc: typeof RTCPeerConnection !== 'undefined',
      isFromElsewhere: !isLocal(location.href),
      hasPlan: this.doc.getMap('plan').get('steps') !== undefined,
      now: Date.now()
    }
  }

  private readonly doings: Doings = {
    look: stepId => {
      const { self } = this.peer.presence
      if (self?.cursor?.step_id !== stepId) this.peer.presence.set({ name: this.name, cursor: { step_id: stepId } })
    },
    write: where => { this.write(where) },
    send: (where, said) => {
      const [kind, id = ''] = [where.slice(0, where.indexOf(':')), where.slice(where.indexOf(':') + 1)]
      if (kind === 'step') this.known.add(annotate(this.doc, id, this.name, said))
      else if (!reply(this.doc, id, this.name, said)) tell('That note was taken back meanwhile.')
      this.write(undefined)
    },
    resolve: (id, resolved) => { resolve(this.doc, id, resolved) },
    takeBack: id => { takeBack(this.doc, id) },
    rename: name => {
      const clean = name.trim().slice(0, LONGEST_NAME)
      if (clean === '') return
      this.name = clean
      try { localStorage.setItem('review name', clean) } catch { /* Then for this time only. */ }
      this.peer.presence.set({ name: clean, cursor: this.peer.presence.self?.cursor ?? null })
      tell(`You are ${clean} now.`)
    },
    share: () => { share(this.address) },
    showDone: () => {
      this.showsDone = !this.showsDone
      this.draw()
    },
    start: () => { writeSample(this.doc) }
  }

  private write (where: string | undefined): void {
    const before = this.writing
    this.writing = where
    this.draw()
    setTimeout(() => {
      if (where !== undefined) document.querySelector<HTMLElement>('[data-focus]')?.focus()
      else if (before?.startsWith('step:') === true) document.getElementById(`step-${before.slice(5)}`)?.focus()
    }, 20)
  }

  private key (event: KeyboardEvent): void {
    const target = event.target as HTMLElement
    if (target.closest('input, textarea, dialog') !== null || event.ctrlKey || event.metaKey || event.altKey) return
    const steps = [...document.querySelectorAll<HTMLElement>('[data-step]')]
    const at = steps.indexOf(document.activeElement?.closest<HTMLElement>('[data-step]') ?? document.body)
    const move = { j: 1, ArrowDown: target.matches('[data-step]') ? 1 : 0, k: -1, ArrowUp: target.matches('[data-step]') ? -1 : 0 }[event.key]
    if (move !== undefined && move !== 0) {
      event.preventDefault()
      steps[Math.min(Math.max(at + move, 0), steps.length - 1)]?.focus()
    } else if (event.key === 'a' && at >= 0) {
      event.preventDefault()
      this.write(`step:${steps[at]?.dataset.step ?? ''}`)
    }
  }
}

/** Says it to who does not look at the screen. */
function tell (words: string): void {
  const said = document.getElementById('said')
  if (said !== null) said.textContent = words
}

function share (address: Address): void {
  const link = `${location.origin}${location.pathname}${writeAddress(shareable(address))}`
  const copied = h('p', { role: 'status' }, 'Whoever has the link can read the plan and annotate it.')
  const input = h('input', { readonly: true, value: link, 'aria-label': 'Link to this review', onfocus: (event: FocusEvent) => { (event.currentTarget as HTMLInputElement).select() } }) as HTMLInputElement
  const copy = async (): Promise<void> => {
    try {
      await navigator.clipboard.writeText(link)
      copied.textContent = 'Copied. Send it to whom you want to review this.'
    } catch {
      input.select()
      copied.textContent = 'Press Ctrl+C to copy it.'
    }
  }
  const dialog = h('dialog', { 'aria-labelledby': 'share', onclose: () => { dialog.remove() } },
    h('h2', { id: 'share' }, 'Invite a reviewer'), copied,
    h('div', { class: 'share' }, input, h('button', { class: 'button main', type: 'button', onclick: () => { void copy() } }, 'Copy')),
    h('form', { method: 'dialog' }, h('button', { class: 'quiet' }, 'Close'))) as HTMLDialogElement
  document.body.append(dialog)
  dialog.showModal()
}

/** Without a room in the address there is one to be chosen. */
function landing (): void {
  const host = location.hostname === '' ? 'localhost' : location.hostname
  const field = (name: string, label: string, value: string): HTMLElement =>
    h('label', { class: 'field' }, label, h('input', { name, value }))
  const enter = (event: SubmitEvent): void => {
    event.preventDefault()
    const values = new FormData(event.currentTarget as HTMLFormElement)
    const given = (name: string): string[] => String(values.get(name) ?? '').split(/\s+/).filter(url => url !== '')
    location.hash = writeAddress({ room: String(values.get('room')), hubs: given('hub'), signaling: given('signal'), ice: [], password: undefined })
  }
  const form = h('form', { class: 'panel', onsubmit: enter },
    h('h1', {}, 'Review a plan together'),
    h('p', {}, 'Open a review, or start one and share its link.'),
    field('room', 'Review', `plan-${random(36 ** 5).toString(36)}`),
    field('signal', 'Signaling servers', `ws://${host}:4444`),
    field('hub', 'Hub or relay, if there is one', `ws://${host}:4444`),
    h('button', { class: 'button main', type: 'submit' }, 'Open'))
  pour(document.getElementById('app') ?? document.body, h('div', { id: 'app' }, h('main', { class: 'landing' }, form)))
}

function refuse (what: string, error: unknown): void {
  const why = error instanceof Error ? error.message : String(error)
  pour(document.getElementById('app') ?? document.body, h('div', { id: 'app' }, h('main', { class: 'landing' }, h('div', { class: 'panel' }, h('h1', {}, what), h('p', { role: 'alert' }, why)))))
}

// This build of Loro waits for its bytes, and takes them from what is kept of the page.
const { default: startLoro } = loro as unknown as { default: (from: { module_or_path: WebAssembly.Module }) => Promise<unknown> }

async function loadLoro (): Promise<void> {
  try {
    // Not compiled as they come: that is done in pieces, between which nothing else on the page has its turn.
    const bytes = await (await fetch('loro_wasm_bg.wasm')).arrayBuffer()
    await startLoro({ module_or_path: await WebAssembly.compile(bytes) })
  } catch (error) {
    refuse('The page could not be loaded', error)
    throw error
  }
}

const address = readAddress(location.hash)
window.addEventListener('hashchange', () => { location.reload() })
if ('serviceWorker' in navigator) navigator.serviceWorker.register('worker.js').catch(() => { /* Then the page itself needs a network. */ })

if (address.room === '') landing()
else {
  try {
    // For whoever looks under the hood, and for tests.
    Object.assign(window, { review: new Review(address), nameOf })
  } catch (error) {
    refuse('This link cannot be opened', error)
  }
}
