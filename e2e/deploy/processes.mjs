// Programs that a test starts, and what it waits for.
import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdtempSync, rmSync } from 'node:fs'
import http from 'node:http'
import net from 'node:net'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { after } from 'node:test'
import { promisify } from 'node:util'

const started = new Set()
const killAll = () => started.forEach(child => child.kill('SIGKILL'))
after(killAll)
process.on('exit', killAll)

export const kit = path.join(import.meta.dirname, '../../deploy')
const target = process.env.CARGO_TARGET_DIR ?? path.join(import.meta.dirname, '../../target')
export const signalingServer = path.resolve(process.env.E2E_SIGNALING_SERVER ?? path.join(target, 'debug/signaling-server'))

/** Why a test that needs these programs can not run here; false if it can. */
export function missing (...programs) {
  const folders = [...(process.env.PATH ?? '').split(':'), '/usr/sbin', '/sbin']
  const lacking = programs.filter(program => !folders.some(folder => existsSync(path.join(folder, program))))
  return lacking.length > 0 && `these are missing: ${lacking.join(', ')}`
}

/** Starts a program; it is killed with the test. `output()` is what it has said. */
export function start (program, parameters, options = {}) {
  const child = spawn(program, parameters, { stdio: ['ignore', 'pipe', 'pipe'], ...options })
  started.add(child)
  let said = ''
  for (const stream of [child.stdout, child.stderr]) stream?.on('data', data => { said = (said + data).slice(-100_000) })
  child.exited = once(child, 'exit').then(([code, signal]) => {
    started.delete(child)
    return { code, signal }
  })
  child.output = () => said
  return child
}

/** Ends a program and waits until it is gone. */
export async function stop (child, signal = 'SIGTERM') {
  if (child === undefined) return
  child.kill(signal)
  await child.exited
}

/** Runs a program to its end, at most 20 s; rejects with what it said if it fails. */
export async function run (program, parameters, options = {}) {
  const { stdout } = await promisify(execFile)(program, parameters, { timeout: 20_000, maxBuffer: 1 << 24, ...options })
  return stdout
}

/** Asks `probe` until it gives something true, and resolves with that. What it throws counts as "not yet". */
export async function until (what, ms, probe) {
  const deadline = Date.now() + ms
  for (let last; ;) {
    try {
      const found = await probe()
      if (found) return found
    } catch (error) {
      last = error
    }
    if (Date.now() > deadline) throw new Error(`${what}: not within ${ms} ms`, { cause: last })
    await new Promise(resolve => setTimeout(resolve, 50))
  }
}

/** A port that nobody listened on a moment ago. */
export async function freePort () {
  const probe = net.createServer().listen(0, '127.0.0.1')
  await once(probe, 'listening')
  const { port } = probe.address()
  probe.close()
  await once(probe, 'close')
  return port
}

let folders

/** A folder that goes away with the process. */
export function folder () {
  if (folders === undefined) {
    folders = mkdtempSync(path.join(tmpdir(), 'deploy-'))
    process.on('exit', () => rmSync(folders, { recursive: true, force: true }))
  }
  return mkdtempSync(path.join(folders, 'at-'))
}

/** The body of an answer with status 200. */
export async function get (url, { host } = {}) {
  const request = http.get(url, { timeout: 5_000, headers: host && { host } })
  const [response] = await once(request, 'response')
  let body = ''
  for await (const piece of response) body += piece
  if (response.statusCode !== 200) throw new Error(`${url}: ${response.statusCode} ${body}`)
  return body
}
