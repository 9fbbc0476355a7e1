#!/usr/bin/env node
// The invariants that a look at the text can hold; ARCHITECTURE.md says why each of them stands.
//
// Usage: invariants.mjs [ROOT]. Prints one line a violation and fails if there is any.
import path from 'node:path'
import { closing, files, lineAt, withoutComments, withoutStrings, withoutTests } from './source.mjs'

const budget = { wanted: 400, most: 450 }

// Whoever reads these as a label or in a log reads what a user wrote, or a secret.
const personal = 'room|room_name|room_id|topic|topic_name|peer|peer_id|from|payload|text|user|sub|subject'
const secret = 'token|secret|password|authorization|cookie'

const isRust = path => path.endsWith('.rs')
const isTest = path => /(^|\/)(tests?|benches|fuzz|fuzz_targets)\//.test(path) || /(^|\/)(tests?|test_.*|.*_tests?)\.rs$/.test(path) || /\.test\.m?[jt]s$/.test(path)
const isCore = path => /^(wire\/src\/|signaling-server\/src\/room(\.rs$|\/)|peer-sdk\/src\/engine(\.rs$|\/))/.test(path)
const isSource = path => /\.(rs|mjs|js|ts|tsx|toml|sh)$/.test(path) || /(^|\/)(test|run)$/.test(path)
const isScript = path => /\.(mjs|js|ts|tsx)$/.test(path)

/** Each rule yields `{ path, line, says }` for what breaks it. */
export const rules = {
  'a core touches no world': root => search(root, {
    where: path => isCore(path) && !isTest(path),
    pattern: /\basync\b|\.await\b|\btokio\b|\baxum\b|\bInstant::now\b|\bSystemTime\b|\bthread\b|\b(rand|fastrand|getrandom)::|\bthread_rng\b|\bOsRng\b/,
    says: 'no async, tokio, axum, clock, thread or random source in a core'
  }),

  'every queue has a bound': root => search(root, {
    where: path => isRust(path) && !isTest(path),
    pattern: /\bunbounded\b|\bunbounded_channel\b|\bUnbounded(Sender|Receiver)\b|\bmpsc::channel(::<[^;()]*>)?\(\s*\)/,
    says: 'no unbounded channel outside tests'
  }),

  * 'nothing is left for later' (root) {
    yield * matches(root, isSource, file => file.text, /\bTOD[O]\b|\bFIXM[E]\b|\btod[o]!|\bunimplemente[d]!/, 'finish it or leave it out')
    yield * matches(root, isRust, file => withoutComments(file.text), /#\[ignor[e]/, 'a test runs or does not exist')
    yield * matches(root, isScript, file => file.text, /\b(it|test|describe|suite)\.(onl[y]|tod[o])\b/, 'a test runs, and not alone')
  },

  * 'a file is read in one sitting' (root) {
    for (const file of files(root)) {
      const length = lengthBeforeTests(file)
      if (length > budget.most) {
        yield { path: file.path, line: budget.most, says: `${length} lines before its tests, ${budget.wanted} is the budget` }
      }
    }
  },

  * 'no label comes from a user' (root) {
    for (const file of rustOutsideTests(root)) {
      const [code, shown] = [withoutStrings(file.text), withoutComments(file.text)]
      for (const call of calls(code, shown, /\bwith_label_values\s*\(/g)) {
        const values = call.shown.replace(/^\(\s*&?\[|,?\s*\]\s*\)$/g, '').split(',').map(value => value.trim())
        if (!values.every(isClosedLabel)) yield { path: file.path, line: call.line, says: `a label is a literal or an enum's name(), not ${call.shown}` }
      }
      for (const call of calls(code, shown, /\bconst_label\s*\(/g)) {
        const value = call.shown.slice(1, -1).split(',').slice(1).join(',').trim()
        if (!isClosedLabel(value)) yield { path: file.path, line: call.line, says: `a constant label is a literal, not ${value}` }
      }
    }
  },

  * 'no log tells what users wrote' (root) {
    for (const file of rustOutsideTests(root)) {
      const [code, shown] = [withoutStrings(file.text), withoutComments(file.text)]
      const spoken = (call, words) => new RegExp(`\\b(${words})\\b`).test(call.code) || new RegExp(`\\{(${words})\\b`).test(call.shown)
      for (const call of calls(code, shown, /\b(error|warn|info)!\s*\(/g)) {
        if (spoken(call, personal)) yield { path: file.path, line: call.line, says: 'no room, peer or user text is logged above debug' }
      }
      for (const call of calls(code, shown, /\b(error|warn|info|debug|trace)!\s*\(/g)) {
        if (spoken(call, secret)) yield { path: file.path, line: call.line, says: 'a token is never logged' }
      }
    }
  },

  * 'two commands set everything up' (root) {
    for (const file of files(root)) {
      if (file.path !== 'README.md') continue
      const commands = [...file.text.matchAll(/^```[^\n]*\n([\s\S]*?)^```/gm)].flatMap(block => block[1].split('\n')).map(line => line.replace(/^\$ /, '').trim())
      for (const wanted of ['cargo run --release -p signaling-server', './test']) {
        const times = commands.filter(line => line.replace(/\s+#.*/, '') === wanted).length
        if (times !== 1) yield { path: file.path, line: 1, says: `"${wanted}" stands ${times} times as a command of its own, once is right` }
      }
      const more = commands.find(line => /^(sudo |apt|npm |npx |cargo install|rustup |pip|curl .*\| *(ba)?sh)/.test(line))
      if (more) yield { path: file.path, line: 1, says: `a third set-up command: ${more}` }
    }
  }
}

/** Files that are within the limit and over the budget, as lines to print. */
export function nearlyTooLong (root) {
  return [...files(root)].map(file => [file.path, lengthBeforeTests(file)])
    .filter(([, length]) => length > budget.wanted && length <= budget.most)
    .map(([path, length]) => `${path}: ${length} lines before its tests, ${budget.wanted} is the budget`)
}

function lengthBeforeTests ({ path, text }) {
  if (!(isRust(path) || isScript(path)) || isTest(path)) return 0
  return (isRust(path) ? withoutTests(text) : text).trimEnd().split('\n').length
}

function search (root, { where, pattern, says }) {
  return matches(root, where, file => withoutStrings(withoutTests(file.text)), pattern, says)
}

function * matches (root, where, read, pattern, says) {
  for (const file of files(root)) {
    if (!where(file.path)) continue
    for (const [index, line] of read(file).split('\n').entries()) {
      const found = pattern.exec(line)
      if (found) yield { path: file.path, line: index + 1, says: `${says}: ${found[0]}` }
    }
  }
}

function * rustOutsideTests (root) {
  for (const file of files(root)) {
    if (isRust(file.path) && !isTest(file.path)) yield { path: file.path, text: withoutTests(file.text) }
  }
}

/** Each call that `opening` finds, with its brackets: `code` has empty strings, `shown` has what they say. */
function * calls (code, shown, opening) {
  for (const found of code.matchAll(opening)) {
    const start = found.index + found[0].length - 1
    const end = closing(code, start)
    yield { code: code.slice(start, end), shown: shown.slice(start, end), line: lineAt(code, start) }
  }
}

function isClosedLabel (value) {
  return /^("[^"]*"|(option_)?env!\("\w+"\)(\.unwrap_or\("[^"]*"\))?|[\w.:]+\.name\(\))$/.test(value)
}

if (process.argv[1] === import.meta.filename) {
  const root = process.argv[2] ?? path.join(import.meta.dirname, '..')
  let broken = 0
  for (const [name, rule] of Object.entries(rules)) {
    for (const { path, line, says } of rule(root)) {
      console.log(`${path}:${line}: ${name}: ${says}`)
      broken++
    }
  }
  for (const line of nearlyTooLong(root)) console.log(`note: ${line}`)
  console.log(broken === 0 ? `invariants: ${Object.keys(rules).length} hold` : `invariants: broken in ${broken} places`)
  process.exitCode = broken === 0 ? 0 : 1
}
