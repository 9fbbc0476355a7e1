#!/usr/bin/env node
// Holds every crate to the licences and sources of deny.toml, with nothing but `cargo metadata`: cargo-deny does the
// same and more, and takes minutes to build where it is missing.
//
// Usage: licences.mjs [ROOT]. Prints one line a refusal and fails if there is any.
import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import path from 'node:path'

/** The licences that the `[licenses]` section of a deny.toml allows. */
export function allowedLicences (denyToml) {
  const section = licenceSection(denyToml)
  const list = /^allow\s*=\s*\[([^\]]*)\]/m.exec(section)?.[1]
  if (list === undefined) throw new Error('deny.toml has no [licenses] allow = [...]')
  return new Set([...list.replace(/#.*/g, '').matchAll(/"([^"]+)"/g)].map(found => found[1]))
}

function licenceSection (denyToml) {
  return /^\[licenses\]$([\s\S]*?)(?=^\[|(?![\s\S]))/m.exec(denyToml)?.[1] ?? ''
}

/** The licences that its `exceptions` allow beyond that, by crate. */
export function exceptions (denyToml) {
  const section = licenceSection(denyToml)
  const list = /^exceptions\s*=\s*\[$([\s\S]*?)^\]$/m.exec(section)?.[1] ?? ''
  const entries = list.matchAll(/\{\s*allow\s*=\s*\[([^\]]*)\],\s*crate\s*=\s*"([^"]+)"\s*\}/g)
  return new Map([...entries].map(([, allow, name]) => [name, [...allow.matchAll(/"([^"]+)"/g)].map(found => found[1])]))
}

/** Whether an SPDX expression can be satisfied with `allowed` alone. */
export function satisfied (expression, allowed) {
  const words = expression.replaceAll('/', ' OR ').match(/\(|\)|[^\s()]+/g) ?? []
  let at = 0
  const holds = either()
  return holds && at === words.length

  function either () {
    let holds = both()
    while (words[at] === 'OR') {
      at++
      holds = both() || holds
    }
    return holds
  }

  function both () {
    let holds = one()
    while (words[at] === 'AND') {
      at++
      holds = one() && holds
    }
    return holds
  }

  function one () {
    if (words[at] === '(') {
      at++
      const holds = either()
      return words[at++] === ')' && holds
    }
    const licence = words[at++] ?? ''
    // "X+": X or any later version of it.
    if (words[at] !== 'WITH') return allowed.has(licence) || allowed.has(licence.replace(/\+$/, ''))
    const exception = words[at + 1]
    at += 2
    return allowed.has(`${licence} WITH ${exception}`)
  }
}

/** What is wrong with a package of `cargo metadata`, or undefined. */
export function refusal ({ name, version, license, source }, allowed, excepted = new Map()) {
  const crate = `${name} ${version}`
  if (source !== null && source !== 'registry+https://github.com/rust-lang/crates.io-index') return `${crate}: comes from ${source}`
  if (!license) return `${crate}: names no licence`
  const all = new Set([...allowed, ...(excepted.get(name) ?? [])])
  if (!satisfied(license, all)) return `${crate}: "${license}" is not allowed by deny.toml`
}

if (process.argv[1] === import.meta.filename) {
  const root = process.argv[2] ?? path.join(import.meta.dirname, '..')
  const denyToml = readFileSync(path.join(root, 'deny.toml'), 'utf8')
  const [allowed, excepted] = [allowedLicences(denyToml), exceptions(denyToml)]
  const arguments_ = ['metadata', '--format-version', '1', '--locked', '--manifest-path', path.join(root, 'Cargo.toml')]
  const { status, stdout } = spawnSync('cargo', arguments_, { maxBuffer: 1 << 28, stdio: ['ignore', 'pipe', 'inherit'] })
  if (status !== 0) process.exit(1)
  const { packages } = JSON.parse(stdout)
  const refused = packages.map(found => refusal(found, allowed, excepted)).filter(Boolean)
  for (const line of refused) console.log(line)
  console.log(refused.length === 0 ? `licences: ${packages.length} crates are fine` : `licences: ${refused.length} crates are refused`)
  process.exitCode = refused.length === 0 && packages.length > 0 ? 0 : 1
}
