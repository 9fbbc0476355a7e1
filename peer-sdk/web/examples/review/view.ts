// What the page looks like, made of what is known. It decides nothing.
import type { LinkState, PresenceView, Someone, Status } from '../../src/index'
import { h, svg } from './dom'
import type { Annotation, Plan, Reply, Step } from './plan'
import { agoWords, diskLine, hubLine, hueOf, initials, type Line, meshLine, onlineWords, pathWords } from './words'

/** What each reviewer shows. */
export interface Shown {
  name: string
  cursor: { step_id: string } | null
  /** A program that answers reviewers, and is none. */
  agent?: boolean
}

/** What the page knows. */
export interface Known {
  plan: Plan
  status: Status
  presence: PresenceView<Shown>
  /** Sessions that were online and are no more. */
  gone: ReadonlySet<string>
  user: string
  name: string
  isOffline: boolean
  /** For so long that it is worth saying: nothing leaves this browser. */
  isAlone: boolean
  hubs: number
  servers: number
  hasWebRtc: boolean
  /** The page came from another computer. */
  isFromElsewhere: boolean
  hasPlan: boolean
  /** Where something is being written: `step:s1`, `reply:…`, or nowhere. */
  writing: string | undefined
  showsDone: boolean
  warning: string | undefined
  fresh: ReadonlySet<string>
  now: number
}

/** What a reviewer can do. */
export interface Doings {
  look: (stepId: string) => void
  write: (where: string | undefined) => void
  send: (where: string, said: string) => void
  resolve: (id: string, resolved: boolean) => void
  takeBack: (id: string) => void
  rename: (name: string) => void
  share: () => void
  showDone: () => void
  start: () => void
}

const MOST_FACES = 6

export function view (known: Known, doings: Doings): HTMLElement {
  const { plan } = known
  return h('div', { id: 'app' },
    h('a', { class: 'skip', href: '#plan', onclick: (event: Event) => { event.preventDefault(); document.getElementById('plan')?.focus() } }, 'To the plan'),
    bar(known, doings),
    h('div', { class: 'page' },
      h('main', { id: 'plan', tabindex: -1 },
        known.warning !== undefined && h('p', { class: 'warn', role: 'alert' }, known.warning),
        plan.steps.length === 0 ? empty(known, doings) : h('ol', {}, ...plan.steps.map((step, at) => stepView(step, at, known, doings))),
        (plan.steps.length > 0 || plan.annotations.length > 0) && general(known, doings)),
      side(known, doings)))
}

function bar (known: Known, doings: Doings): HTMLElement {
  const { plan, presence } = known
  const open = plan.annotations.filter(({ resolved }) => !resolved).length
  const people = [...new Map(presence.peers.filter(peer => !isAgent(peer)).map(peer => [peer.user, peer])).values()]
  return h('header', { class: 'bar' }, h('div', {},
    mark(),
    h('div', { class: 'where' },
      h('h1', {}, plan.title === '' ? 'Plan review' : plan.title),
      h('small', {}, plan.steps.length === 0 ? 'Nothing to review yet' : `${counted(plan.steps.length, 'step')}, ${open === 0 ? 'no open notes' : `${counted(open, 'open note')}`}`)),
    h('div', { class: 'crowd' },
      h('div', { class: 'faces', 'aria-hidden': 'true' },
        face(known.user, known.name),
        ...people.slice(0, MOST_FACES - 1).map(peer => face(peer.user, nameOf(peer))),
        people.length >= MOST_FACES && h('span', { class: 'face more' }, `+${people.length - MOST_FACES + 1}`)),
      h('span', { id: 'online' }, onlineWords(presence.online))),
    h('button', { class: 'button main', type: 'button', onclick: doings.share }, 'Share')),
    known.status.loaded && known.isAlone && offline(known))
}

function mark (): Element {
  return svg('svg', { class: 'mark', viewBox: '0 0 32 32', 'aria-hidden': 'true' },
    svg('rect', { width: 32, height: 32, rx: 9, fill: '#4856c9' }),
    svg('path', { d: 'M9 17l5 5L24 11', fill: 'none', stroke: '#fff', 'stroke-width': 3.2, 'stroke-linecap': 'round', 'stroke-linejoin': 'round' }))
}

function offline ({ isOffline }: Known): HTMLElement {
  return h('div', { class: 'offline', id: 'offline', role: 'status' }, h('p', {}, h('span', { 'aria-hidden': 'true' }, '◌'),
    `${isOffline ? 'You are offline.' : 'Nobody is reached at the moment.'} Go on reviewing: your notes are kept, and sent when there is a way.`))
}

function empty ({ status, hasPlan, isAlone }: Known, doings: Doings): HTMLElement {
  if (hasPlan) return h('div', { class: 'empty' }, h('h2', {}, 'The plan has no steps yet'), h('p', {}, 'They show up here as they are written.'))
  return h('div', { class: 'empty' },
    h('h2', {}, status.caughtUp || isAlone ? 'Waiting for the plan' : 'Fetching the plan…'),
    h('p', {}, 'It shows up here as soon as its author, or anybody who has it, can be reached.'),
    h('button', { class: 'button', type: 'button', onclick: doings.start }, 'Write a sample plan instead'))
}

function stepView (step: Step, at: number, known: Known, doings: Doings): HTMLElement {
  const notes = known.plan.annotations.filter(({ stepId }) => stepId === step.id)
  const here = known.presence.peers.filter(({ shows }) => shows?.cursor?.step_id === step.id)
  const mine = known.presence.self?.cursor?.step_id === step.id
  const look = (): void => { doings.look(step.id) }
  return h('li', { key: step.id },
    h('article', { class: mine ? 'step mine' : 'step', id: `step-${step.id}`, 'data-step': step.id, tabindex: 0, 'aria-labelledby': `title-${step.id}`, onfocusin: look, onpointerdown: look },
      h('header', {},
        h('span', { class: 'number', 'aria-hidden': 'true' }, String(at + 1)),
        h('h2', { id: `title-${step.id}` }, step.title),
        here.length > 0 && h('div', { class: 'look', role: 'img', 'aria-label': `${here.map(nameOf).join(', ')} ${here.length === 1 ? 'looks' : 'look'} at this step` },
          ...here.slice(0, 5).map(peer => face(peer.user, nameOf(peer), 'small')))),
      step.text !== '' && h('p', { class: 'body' }, step.text),
      h('div', { class: 'under' }, ...thread(`step:${step.id}`, notes, `Annotate step ${at + 1}`, known, doings))))
}

function general (known: Known, doings: Doings): HTMLElement {
  const notes = known.plan.annotations.filter(({ stepId }) => stepId === '')
  return h('section', { class: 'step', key: 'general', 'aria-label': 'The plan as a whole', onfocusin: () => { doings.look('') } },
    h('header', {}, h('h2', {}, 'The plan as a whole')), ...thread('step:', notes, 'Annotate the plan', known, doings))
}

function thread (where: string, notes: Annotation[], label: string, known: Known, doings: Doings): Array<HTMLElement | false> {
  const done = notes.filter(({ resolved }) => resolved).length
  const shown = known.showsDone ? notes : notes.filter(({ resolved }) => !resolved)
  return [
    shown.length > 0 && h('ul', { class: 'notes', key: 'notes' }, ...shown.map(note => noteView(note, known, doings))),
    known.writing === where && writeForm(where, label, known, doings),
    known.writing !== where && h('div', { class: 'foot', key: 'foot' },
      h('button', { class: 'quiet', type: 'button', 'aria-label': label, onclick: () => { doings.write(where) } }, 'Annotate'),
      done > 0 && h('button', { class: 'quiet', type: 'button', 'aria-expanded': String(known.showsDone), onclick: doings.showDone }, known.showsDone ? 'Hide resolved' : `${done} resolved`))
  ]
}

function noteView (note: Annotation, known: Known, doings: Doings): HTMLElement {
  const where = `reply:${note.id}`
  const classes = ['note', note.resolved && 'done', known.fresh.has(note.id) && 'fresh'].filter(Boolean).join(' ')
  return h('li', { class: classes, key: note.id, style: `--hue:${hueOf(note.author)}`, 'data-note': note.id },
    by(note, known, note.resolved),
    h('p', { class: 'said' }, note.text),
    note.replies.length > 0 && h('ul', { class: 'replies', key: 'replies' }, ...note.replies.map(reply => h('li', {}, by(reply, known, false), h('p', { class: 'said' }, reply.text)))),
    known.writing === where && writeForm(where, `Reply to ${note.author}`, known, doings),
    known.writing !== where && h('div', { class: 'foot', key: 'foot' },
      h('button', { class: 'quiet', type: 'button', 'aria-label': `Reply to ${note.author}`, onclick: () => { doings.write(where) } }, 'Reply'),
      h('button', { class: 'quiet', type: 'button', 'aria-label': `${note.resolved ? 'Open again' : 'Resolve'}: ${note.text.slice(0, 40)}`, onclick: () => { doings.resolve(note.id, !note.resolved) } }, note.resolved ? 'Open again' : 'Resolve'),
      note.author === known.name && note.replies.length === 0 && h('button', { class: 'quiet', type: 'button', 'aria-label': `Take back: ${note.text.slice(0, 40)}`, onclick: () => { doings.takeBack(note.id) } }, 'Take back')))
}

function by ({ author, at }: Reply, { now }: Known, isDone: boolean): HTMLElement {
  return h('div', { class: 'by' }, face(author, author, 'small'), h('b', {}, author), h('time', {}, agoWords(at, now)), isDone && h('span', { class: 'tag' }, '✓ resolved'))
}

function writeForm (where: string, label: string, _known: Known, doings: Doings): HTMLElement {
  const send = (form: HTMLFormElement): void => {
    const said = (form.elements.namedItem('said') as HTMLTextAreaElement).value.trim()
    if (said !== '') doings.send(where, said)
  }
  return h('form', { class: 'write', key: 'write', onsubmit: (event: SubmitEvent) => { event.preventDefault(); send(event.currentTarget as HTMLFormElement) } },
    h('label', { class: 'unseen', for: 'said-here' }, label),
    h('textarea', {
      id: 'said-here', name: 'said', maxlength: 5000, placeholder: label, 'data-focus': true,
      onkeydown: (event: KeyboardEvent) => {
        if (event.key === 'Escape') doings.write(undefined)
        if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) send((event.currentTarget as HTMLTextAreaElement).form as HTMLFormElement)
      }
    }),
    h('div', { class: 'foot' },
      h('button', { class: 'button main', type: 'submit' }, where.startsWith('reply') ? 'Reply' : 'Annotate'),
      h('button', { class: 'quiet', type: 'button', onclick: () => { doings.write(undefined) } }, 'Cancel'),
      h('span', { class: 'hint' }, h('kbd', {}, 'Ctrl'), ' ', h('kbd', {}, 'Enter'), ' sends it')))
}

function side (known: Known, doings: Doings): HTMLElement {
  return h('aside', { 'aria-label': 'Reviewers and connections' }, people(known, doings), ways(known),
    h('p', { class: 'keys' }, h('kbd', {}, 'j'), ' ', h('kbd', {}, 'k'), ' next and previous step, ', h('kbd', {}, 'a'), ' annotate, ', h('kbd', {}, 'Esc'), ' cancel'))
}

function people (known: Known, doings: Doings): HTMLElement {
  const { presence, plan } = known
  const stepOf = ({ shows }: Someone<Shown>): string => {
    const at = plan.steps.findIndex(({ id }) => id === shows?.cursor?.step_id)
    return at < 0 ? '' : `, at step ${at + 1}`
  }
  const role = (peer: Someone<Shown>): string => isAgent(peer) ? 'agent, ' : ''
  return h('section', { class: 'panel', 'aria-labelledby': 'people' },
    h('h3', { id: 'people' }, 'Reviewers'),
    h('ul', {},
      h('li', { class: 'person', key: 'self' }, face(known.user, known.name), h('div', {}, h('b', {}, known.name), h('small', {}, 'you'))),
      ...presence.peers.map(peer => h('li', { class: 'person', key: peer.session, 'data-path': peer.path, 'data-agent': isAgent(peer) },
        face(peer.user, nameOf(peer)), h('div', {}, h('b', {}, nameOf(peer)), h('small', {}, role(peer), pathWords(peer.path, peer.roundTrip), stepOf(peer)))))),
    h('form', { class: 'name', onsubmit: (event: SubmitEvent) => { event.preventDefault(); doings.rename((document.getElementById('name') as HTMLInputElement).value) } },
      h('label', { class: 'unseen', for: 'name' }, 'Your name'),
      h('input', { id: 'name', maxlength: 40, autocomplete: 'name', value: known.name }),
      h('button', { class: 'button', type: 'submit' }, 'Rename')))
}

const drawings: Record<string, string> = {
  Hub: 'M4 5h16v6H4zM4 13h16v6H4zM8 8h.01M8 16h.01',
  'This browser': 'M5 4h11l3 3v13H5zM8 4v5h7V4M8 20v-6h8v6',
  'Other reviewers': 'M6 8a2.5 2.5 0 1 0 0-.01M18 8a2.5 2.5 0 1 0 0-.01M12 19a2.5 2.5 0 1 0 0-.01M8.5 8h7M7.3 10l3.5 5M16.7 10l-3.5 5'
}

function ways ({ status, gone, hubs, servers, hasWebRtc, isFromElsewhere }: Known): HTMLElement {
  const lines = [hubLine(status, hubs, isFromElsewhere), diskLine(status), meshLine(status, gone, hasWebRtc, servers)]
  return h('section', { class: 'panel', 'aria-labelledby': 'ways' }, h('h3', { id: 'ways' }, 'Where your notes go'),
    h('ul', { class: 'ways' }, ...lines.map(wayView)))
}

function wayView ({ tone, name, says }: Line): HTMLElement {
  return h('li', { class: `way ${tone}`, key: name, 'data-way': name },
    svg('svg', { viewBox: '0 0 24 24', 'aria-hidden': 'true', fill: 'none', stroke: 'currentColor', 'stroke-width': 1.9, 'stroke-linecap': 'round', 'stroke-linejoin': 'round' }, svg('path', { d: drawings[name] ?? '' })),
    h('div', {}, h('b', {}, name), h('span', {}, says)))
}

function face (user: string, name: string, size = ''): HTMLElement {
  return h('span', { class: `face ${size}`.trim(), style: `--hue:${hueOf(name === '' ? user : name)}`, 'aria-hidden': 'true', title: name }, initials(name))
}

export function nameOf ({ shows, user }: Someone<Shown>): string { return shows?.name ?? `Reviewer ${user.slice(0, 4)}` }

function isAgent ({ shows }: Someone<Shown>): boolean { return shows?.agent === true }

function counted (count: number, what: string): string { return count === 1 ? `1 ${what}` : `${count} ${what}s` }

export type { LinkState }
