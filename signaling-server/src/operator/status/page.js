// Asks the server how it is, every two seconds, and shows that. What was before this page was opened, it does not know.

const everyMs = 2_000
const roomsEveryMs = 5_000
const answerMs = 5_000
const historyMs = 5 * 60_000

const sum = counts => Object.values(counts).reduce((total, count) => total + count, 0)
const whole = new Intl.NumberFormat('en', { maximumFractionDigits: 0 })
const fine = new Intl.NumberFormat('en', { maximumFractionDigits: 1 })
const number = value => (value < 100 ? fine : whole).format(value)
const bytes = value => {
  const units = ['B', 'kB', 'MB', 'GB']
  const step = Math.min(units.length - 1, Math.max(0, Math.floor(Math.log10(Math.max(value, 1)) / 3)))
  return `${number(value / 1000 ** step)} ${units[step]}`
}

/** Each figure: its name, its value now, how it is written. `total` makes a rate, in units of `per` seconds. */
const figures = [
  { name: 'Connections', value: status => status.connections, show: number },
  { name: 'Rooms', value: status => status.rooms, show: number },
  { name: 'Messages in, a second', total: status => status.received_total, per: 1, show: number },
  { name: 'Messages out, a second', total: status => status.sent_total, per: 1, show: number },
  { name: 'Bytes out, a second', total: status => status.sent_bytes_total, per: 1, show: bytes },
  { name: 'Opened, a minute', total: status => status.opened_total, per: 60, show: number },
  { name: 'Refused, a minute', total: status => sum(status.refused_total), per: 60, show: number },
  { name: 'Slowed down, a minute', total: status => status.throttled_total, per: 60, show: number }
]

/** The same of the relay, while there is one. */
const relayFigures = [
  { name: 'Open in memory', value: status => status.relay.rooms, show: number },
  { name: 'Stored', value: status => status.relay.stored_rooms, show: number },
  { name: 'Stored, bytes', value: status => status.relay.stored_bytes, show: bytes },
  { name: 'Joined, a minute', total: status => status.relay.joined_total, per: 60, show: number },
  { name: 'Updates acknowledged, a second', total: status => status.relay.acked_total, per: 1, show: number },
  { name: 'Writes failed, a minute', total: status => status.relay.store_failures_total, per: 60, show: number }
]
const states = {
  ready: '● ready',
  leaving: '◐ draining: still accepting',
  closing: '◑ draining: closing connections',
  silent: '○ no answer'
}

const byId = id => document.getElementById(id)
const shownFigures = [...figures, ...relayFigures]
const cards = shownFigures.map(figure => card(figure.name))
byId('figures').append(...cards.slice(0, figures.length).map(card => card.element))
byId('relay').lastElementChild.append(...cards.slice(figures.length).map(card => card.element))

/** What was seen, oldest first: `{ at, status, shown }`. */
let seen = []

function card (name) {
  const element = document.createElement('article')
  element.className = 'figure'
  const heading = element.appendChild(document.createElement('h2'))
  heading.textContent = name
  const value = element.appendChild(document.createElement('p'))
  value.textContent = '–'
  const svg = element.appendChild(shape('svg', { viewBox: '0 0 100 30', preserveAspectRatio: 'none', 'aria-hidden': 'true' }))
  const fill = svg.appendChild(shape('path', { class: 'fill' }))
  const line = svg.appendChild(shape('path', { class: 'line' }))
  return { element, value, fill, line }
}

function shape (name, attributes) {
  const made = document.createElementNS('http://www.w3.org/2000/svg', name)
  for (const [attribute, value] of Object.entries(attributes)) made.setAttribute(attribute, value)
  return made
}

async function ask (path) {
  const response = await fetch(path, { signal: AbortSignal.timeout(answerMs) })
  if (!response.ok) throw new Error(`${path}: ${response.status}`)
  return response.json()
}

async function look () {
  try {
    const status = await ask('status.json')
    note(status, performance.now())
    show(status)
  } catch {
    state('silent')
  }
  setTimeout(look, everyMs)
}

function note (status, at) {
  const last = seen.at(-1)
  // Totals that went down are those of another process.
  if (last && status.uptime_seconds < last.status.uptime_seconds) seen = []
  const before = seen.at(-1)
  const shown = (status.relay ? shownFigures : figures).map(({ value, total, per }) => {
    if (value) return value(status)
    if (!before) return undefined
    return (total(status) - total(before.status)) / (at - before.at) * 1000 * per
  })
  seen.push({ at, status, shown })
  seen = seen.filter(one => one.at > at - historyMs)
}

function show (status) {
  state(status.stage)
  byId('version').textContent = status.version
  byId('uptime').textContent = `up ${duration(status.uptime_seconds)}`
  byId('relay').hidden = !status.relay
  seen.at(-1).shown.forEach((_, index) => {
    const { value, fill, line } = cards[index]
    const now = seen.at(-1).shown[index]
    value.textContent = now === undefined ? '–' : shownFigures[index].show(now)
    const path = drawn(index)
    line.setAttribute('d', path)
    fill.setAttribute('d', path && `${path} L100,30 L${path.slice(1).split(',')[0]},30 Z`)
  })
  rows(byId('refused'), grown('refused_total'))
  rows(byId('closed'), grown('closed_total'))
}

/** The last five minutes of one figure as a path; the right edge is now. */
function drawn (index) {
  const points = seen.filter(one => one.shown[index] !== undefined)
  if (points.length < 2) return ''
  const now = seen.at(-1).at
  const top = Math.max(...points.map(one => one.shown[index]), 1e-9)
  const place = one => `${(100 - (now - one.at) / historyMs * 100).toFixed(2)},${(28 - one.shown[index] / top * 26).toFixed(2)}`
  return `M${points.map(place).join(' L')}`
}

/** By how much each count has grown since the oldest look, the largest first. */
function grown (counts) {
  const [first, now] = [seen[0].status[counts], seen.at(-1).status[counts]]
  return Object.entries(now).map(([name, count]) => [name.replaceAll('_', ' '), count - (first[name] ?? 0)])
    .filter(([, count]) => count > 0)
    .sort((a, b) => b[1] - a[1])
    .map(([name, count]) => [name, number(count)])
}

function rows (table, lines) {
  const body = table.tBodies[0]
  const columns = table.tHead.rows[0].cells.length
  body.replaceChildren(...(lines.length > 0 ? lines.map(line => row(line)) : [none(columns)]))
}

// As text, for the names of rooms are what strangers wrote.
function row (cells) {
  const made = document.createElement('tr')
  for (const cell of cells) made.insertCell().textContent = cell
  return made
}

function none (columns) {
  const made = document.createElement('tr')
  const cell = made.insertCell()
  cell.colSpan = columns
  cell.className = 'none'
  cell.textContent = 'none'
  return made
}

function state (now) {
  const shown = byId('state')
  shown.dataset.state = now
  shown.textContent = states[now]
  document.body.classList.toggle('silent', now === 'silent')
}

function duration (seconds) {
  const parts = [[86_400, 'd'], [3_600, 'h'], [60, 'min'], [1, 's']]
  const first = parts.findIndex(([size]) => seconds >= size)
  if (first === -1) return '0 s'
  return parts.slice(first, first + 2)
    .map(([size, unit], index) => `${Math.floor(index === 0 ? seconds / size : seconds % parts[first][0] / size)} ${unit}`).join(' ')
}

async function lookAtRooms () {
  try {
    const { rooms } = await ask('rooms?sort=busiest&limit=10')
    rows(byId('rooms'), rooms.map(room => [room.topic, number(room.subscribers), number(room.published_per_minute)]))
  } catch {
    // The state says that there is no answer.
  }
  setTimeout(lookAtRooms, roomsEveryMs)
}

look()
lookAtRooms()
