// This SDK and y-webrtc on the same networks, at the same time of day, by the same browsers; one table.
//
//   node e2e/review/compare/compare.mjs [--runs 3] [--only cone,dead] [--figures] [--timeline]
//
// The scenarios stand in scenarios.mjs; `--figures` prints those of each run, too, and `--timeline` what a first sync
// consists of, in the median. Needs what the tests behind NATs need, and takes half an hour. Fails when this SDK does not keep
// a promise of the table, in the median.
import { parseArgs } from 'node:util'
import { whyNot } from '../../nat/lab.mjs'
import { Arena } from './arena.mjs'
import { rows, scenarios } from './scenarios.mjs'

const sdks = ['ours', 'y-webrtc']
const { values } = parseArgs({
  options: {
    runs: { type: 'string', default: '3' },
    only: { type: 'string', default: Object.keys(scenarios).join() },
    figures: { type: 'boolean', default: false },
    timeline: { type: 'boolean', default: false }
  }
})
const reason = whyNot()
if (reason) throw new Error(reason)

const runs = Number(values.runs)
const chosen = values.only.split(',')
for (const name of chosen) if (scenarios[name] === undefined) throw new Error(`there is no scenario ${name}`)
const results = Object.fromEntries(sdks.map(sdk => [sdk, {}]))
const timelines = Object.fromEntries(sdks.map(sdk => [sdk, {}]))
for (const lines of [false, true]) {
  const here = chosen.filter(name => (scenarios[name].line !== undefined) === lines)
  if (here.length > 0) await play(here, lines)
}
process.exitCode = print() ? 0 : 1
if (values.timeline) for (const name of chosen) printTimeline(name)

async function play (names, lines) {
  const arena = await Arena.open({ lines })
  try {
    for (const name of names) {
      const scenario = scenarios[name]
      arena.lab.nat(scenario.nat)
      if (lines) arena.lab.line(scenario.line)
      for (let run = 0; run < runs; run++) {
        // Neither is always the first.
        for (const sdk of run % 2 === 0 ? sdks : [...sdks].reverse()) note(name, sdk, await attempt(name, sdk, arena))
      }
    }
  } finally {
    await arena.close()
  }
}

/** A run that fails has shown nothing of what it was to show. */
async function attempt (name, sdk, arena) {
  try {
    return await scenarios[name].run(arena, sdk)
  } catch (error) {
    console.error(`${name}, ${sdk}: ${error.message}`)
    return Object.fromEntries(rows.filter(({ scenario }) => scenario === name).map(({ figure }) => [figure, undefined]))
  }
}

function note (name, sdk, { timeline = {}, ...figures }) {
  gather(results[sdk][name] ??= {}, figures)
  gather(timelines[sdk][name] ??= {}, timeline)
  if (values.figures) console.error(name, sdk, figures)
}

function gather (known, values) { for (const [name, value] of Object.entries(values)) (known[name] ??= []).push(value) }

/** What did not happen counts as later than anything. */
function median (figures) { return [...figures].sort((a, b) => (a ?? Infinity) - (b ?? Infinity))[Math.floor(figures.length / 2)] }

function cell (figures, { as, never }) {
  const tell = value => value === undefined ? never : as(value)
  const happened = figures.filter(value => value !== undefined)
  const range = new Set([Math.min(...happened), Math.max(...happened)].map(tell))
  return `${tell(median(figures))}${happened.length === figures.length && range.size > 1 ? ` (${[...range].join(' to ')})` : ''}`
}

/** Prints the table; whether every promise was kept. */
function print () {
  const broken = []
  console.log('| | this SDK | y-webrtc | promised |\n| --- | --- | --- | --- |')
  for (const row of rows.filter(({ scenario }) => chosen.includes(scenario))) {
    const [ours, theirs] = sdks.map(sdk => results[sdk][row.scenario][row.figure])
    const most = row.most ?? median(theirs) ?? Infinity
    if ((median(ours) ?? Infinity) > most) broken.push(row.name)
    console.log(`| ${row.name} | ${cell(ours, row)} | ${cell(theirs, row)} | ${row.most === undefined ? 'no slower' : `at most ${row.as(row.most)}`} |`)
  }
  for (const name of broken) console.log(`not kept: ${name}`)
  return broken.length === 0
}

/** What happened when, in milliseconds from the newcomer's navigation: medians, in the order of ours. */
function printTimeline (name) {
  const [ours, theirs] = sdks.map(sdk => timelines[sdk][name] ?? {})
  const at = marks => marks === undefined ? '' : Math.round(median(marks))
  const names = [...new Set([...Object.keys(ours), ...Object.keys(theirs)])]
  names.sort((a, b) => median(ours[a] ?? theirs[a]) - median(ours[b] ?? theirs[b]))
  if (names.length === 0) return
  console.log(`\n| ${name} | this SDK | y-webrtc |\n| --- | ---: | ---: |`)
  for (const mark of names) console.log(`| ${mark} | ${at(ours[mark])} | ${at(theirs[mark])} |`)
}
