// What is compared. Each scenario gives a figure for one SDK in one run; `undefined` says that it did not happen in time.

/** How long is waited for what may never happen, in milliseconds. */
const patience = 60_000
const connectMs = 30_000
/** How long the first one has been there when the second one comes. */
const beforeMs = 1000
const deadMs = 20_000
const long = 20_000_000
const edits = 60
const crowd = 8
/** Coming together is not rest. */
const settleMs = 15_000
const restMs = 10_000

const wait = ms => new Promise(resolve => setTimeout(resolve, ms))
const has = name => window.lab?.has(name)

/** From the navigation of the second page until what the first one has written is in its document. */
const firstSync = ({ hosts = ['a', 'b'], ...network }) => ({
  unit: 'ms',
  ...network,
  async run (arena, sdk) {
    const room = arena.room()
    const pages = []
    // Else what a browser does to start, and to open a window, would be part of it.
    const windows = await Promise.all(hosts.map(host => arena.window(host)))
    try {
      pages.push(await arena.first(sdk, hosts[0], room, network.ice, windows[0]))
      await wait(beforeMs)
      pages.push(await arena.join(sdk, hosts[1], room, network.ice, windows[1]))
      await pages[1].waits(() => window.lab?.marks.firstSync, undefined, connectMs)
      const [first, newcomer] = await Promise.all(pages.map(page => page.marks()))
      return { firstSync: newcomer.firstSync, timeline: timeline(first, newcomer) }
    } finally {
      await Promise.all(windows.map(window => window.context().close().catch(() => {})))
    }
  }
})

/** What happened in both pages from the navigation of the newcomer on, by its clock. */
function timeline (first, newcomer) {
  const told = { first, newcomer }
  return Object.fromEntries(Object.entries(told).flatMap(([who, { origin, ...marks }]) =>
    Object.entries(marks).map(([what, at]) => [`${who}: ${what}`, at + origin - newcomer.origin]).filter(([, at]) => at >= 0)))
}

/** Two who are connected, one in each home, and what then happens to them. */
const pair = (row, then) => ({
  nat: 'cone',
  ice: ['stun'],
  ...row,
  async run (arena, sdk) {
    const room = arena.room()
    const ana = await arena.first(sdk, 'a', room, ['stun'])
    const ben = await arena.join(sdk, 'b', room, ['stun'])
    try {
      await ben.until('the first entry', has, 'first', connectMs)
      await ben.write('second')
      await ana.until('the second entry', has, 'second', connectMs)
      await Promise.all([ana, ben].map(page => page.until('the other', () => window.lab.online() === 2, undefined, connectMs)))
      return await then({ arena, sdk, room, ana, ben })
    } finally {
      await Promise.all([ana, ben].map(page => page.leave()))
    }
  }
})

async function deadLine ({ arena, ana, ben }) {
  const heal = arena.cut('b')
  try {
    await wait(deadMs / 2)
    await Promise.all([ana.write('while you were away'), ben.write('while I was away')])
    await wait(deadMs / 2)
  } finally {
    heal()
  }
  const took = await Promise.all([ana.waits(has, 'while I was away', patience), ben.waits(has, 'while you were away', patience)])
  return { deadLine: took.includes(undefined) ? undefined : Math.max(...took) }
}

async function newAddress ({ arena, ana, ben }) {
  const restore = arena.rebind('b')
  try {
    await ben.write('from another address')
    return { newAddress: await ana.waits(has, 'from another address', patience) }
  } finally {
    restore()
  }
}

async function killed ({ arena, ana }) {
  await arena.kill('b')
  return { killed: await ana.waits(() => window.lab.online() === 1, undefined, patience) }
}

/** A newcomer fetches a long document, and two others go on writing meanwhile. */
async function longDocument ({ arena, sdk, room, ana, ben }) {
  await ana.ask(bytes => window.lab.enlarge(bytes), long)
  const isThere = long => window.lab?.size() === long
  await ben.waits(isThere, long, patience)
  const newcomer = await arena.join(sdk, 'b', room, ['stun'])
  try {
    const writing = ben.ask(async edits => {
      const sent = {}
      for (let n = 0; n < edits; n++) {
        sent[`edit ${n}`] = window.lab.write(`edit ${n}`)
        await new Promise(resolve => setTimeout(resolve, 100))
      }
      return sent
    }, edits)
    const arrived = await newcomer.waits(isThere, long, patience)
    const sent = await writing
    await ana.waits(has, `edit ${edits - 1}`, patience)
    const seen = await ana.seen()
    const delays = Object.entries(sent).map(([name, at]) => (seen[name] ?? Infinity) - at).sort((a, b) => a - b)
    const late = delays[Math.floor(edits * 0.95)]
    return { longDocument: arrived, meanwhile: Number.isFinite(late) ? late : undefined }
  } finally {
    await newcomer.leave()
  }
}

async function rest (arena, sdk) {
  const room = arena.room()
  const all = []
  try {
    for (let n = 0; n < crowd; n++) all.push(await arena[n === 0 ? 'first' : 'join'](sdk, n % 2 === 0 ? 'a' : 'b', room, ['stun']))
    await Promise.all(all.map(page => page.until(`all ${crowd}`, crowd => window.lab?.online() === crowd, crowd, patience)))
    await wait(settleMs)
    const sent = async () => (await Promise.all(all.map(page => page.sent()))).reduce((sum, bytes) => sum + bytes, 0)
    const before = await sent()
    await wait(restMs)
    return { rest: await sent() - before }
  } finally {
    await Promise.all(all.map(page => page.leave()))
  }
}

export const scenarios = {
  cone: firstSync({ nat: 'cone', ice: ['stun'] }),
  symmetric: firstSync({ nat: 'symmetric', ice: ['stun', 'udp'] }),
  udpBlocked: firstSync({ nat: 'udpBlocked', ice: ['stun', 'udp', 'tcp'] }),
  webOnly: firstSync({ nat: 'webOnly', ice: ['stun', 'udp', 'tls'] }),
  home: firstSync({ nat: 'cone', ice: [], hosts: ['a', 'a2'] }),
  dead: pair({}, deadLine),
  address: pair({}, newAddress),
  killed: pair({}, killed),
  long: pair({}, longDocument),
  rest: { nat: 'cone', run: rest },
  line: firstSync({ nat: 'cone', ice: ['stun'], line: { delay: 40, jitter: 10, loss: 2 } })
}

const ms = value => `${Math.round(value)} ms`
const seconds = value => `${(value / 1000).toFixed(1)} s`
const kilobytes = value => `${(value / 1024).toFixed(1)} KB`
const never = `not within ${patience / 1000} s`

/** The rows of the table: what is told of a scenario's figures, and what this SDK promises; nothing: no more than y-webrtc. */
export const rows = [
  { scenario: 'cone', figure: 'firstSync', name: 'First sync: ordinary NATs, STUN', as: ms, never },
  { scenario: 'symmetric', figure: 'firstSync', name: 'First sync: symmetric NATs, TURN over UDP', as: ms, never },
  { scenario: 'udpBlocked', figure: 'firstSync', name: 'First sync: UDP blocked, TURN over TCP', as: ms, never },
  { scenario: 'webOnly', figure: 'firstSync', name: 'First sync: only TCP 80 and 443, TURN over TLS', as: ms, never },
  { scenario: 'home', figure: 'firstSync', name: 'First sync: one home, no ICE servers', as: ms, never },
  { scenario: 'line', figure: 'firstSync', name: 'First sync: lines of 40 ± 10 ms and 2 % loss each way', as: ms, never },
  { scenario: 'dead', figure: 'deadLine', name: `In step after a line that was dead for ${deadMs / 1000} s is back`, as: seconds, never, most: 3000 },
  { scenario: 'address', figure: 'newAddress', name: 'An edit seen after a home got a new public address', as: seconds, never, most: 3000 },
  { scenario: 'killed', figure: 'killed', name: 'A killed browser gone from presence', as: seconds, never, most: 5000 },
  { scenario: 'long', figure: 'longDocument', name: 'A newcomer has a document of 20 MB', as: seconds, never, most: patience },
  { scenario: 'long', figure: 'meanwhile', name: 'Small edits between two others meanwhile, 95th percentile', as: ms, never: 'some never', most: 250 },
  { scenario: 'rest', figure: 'rest', name: `${crowd} idle peers, data channels, in ${restMs / 1000} s`, as: kilobytes, never, most: 20 * 1024 }
]
