// Starts and stops the signaling servers under test: ours, and the reference that ships inside y-webrtc.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import net from 'node:net'
import path from 'node:path'
import { createInterface } from 'node:readline'
import { after } from 'node:test'

const here = import.meta.dirname
const startMs = 20_000

const target = process.env.CARGO_TARGET_DIR ?? path.join(here, '../target')
/** The program under test. */
export const ourBinary = process.env.E2E_SIGNALING_SERVER ?? path.join(target, 'debug/signaling-server')

/** The server of this repository. It chooses its own port and says which, so nothing is guessed. */
export const ours = {
  name: 'signaling-server',
  isReference: false,
  isDirected: true,
  start: startOurs
}

/** The same, told to pass everything on to everybody as the reference does. */
export const oursBroadcasting = {
  name: 'signaling-server, delivery = "broadcast"',
  isReference: false,
  isDirected: false,
  start: ({ env, ...options } = {}) => startOurs({ ...options, env: { ...env, SIGNALING_SIGNALING_DELIVERY: 'broadcast' } })
}

/** `y-webrtc/bin/server.js`, unmodified. It does not say which port 0 became, so a free one is looked for first. */
export const reference = {
  name: 'the reference server',
  isReference: true,
  isDirected: false,
  async start ({ port } = {}) {
    const script = path.join(here, 'node_modules/y-webrtc/bin/server.js')
    for (let attempt = 1; ; attempt++) {
      const chosen = port ?? await freePort()
      const server = new Server(spawn(process.execPath, [script], {
        env: { ...process.env, PORT: String(chosen) }, stdio: ['ignore', 'pipe', 'pipe']
      }))
      server.url = `ws://127.0.0.1:${chosen}`
      try {
        await server.line(/Signaling server running/)
        await accepts(server, chosen)
        return server
      } catch (error) {
        // Somebody else took the port between the probe and the start.
        await server.kill()
        if (port !== undefined || attempt === 5) throw error
      }
    }
  }
}

/** `kinds`, or those of them that E2E_SERVERS names: `reference` or `ours`. */
export function underTest (...kinds) {
  const only = process.env.E2E_SERVERS
  return kinds.filter(kind => only === undefined || only === (kind.isReference ? 'reference' : 'ours'))
}

async function startOurs ({ port = 0, env = {} } = {}) {
  if (!existsSync(ourBinary)) {
    throw new Error(`${ourBinary} is missing: run "cargo build -p signaling-server" first`)
  }
  const flags = ['--listen', `127.0.0.1:${port}`, '--metrics-listen', '127.0.0.1:0']
  // What is set for a server of whoever runs the tests is not meant for this one.
  const inherited = Object.entries(process.env).filter(([name]) => name !== 'PORT' && !name.startsWith('SIGNALING_'))
  const server = new Server(spawn(ourBinary, flags, {
    env: { ...Object.fromEntries(inherited), ...env }, stdio: ['ignore', 'pipe', 'pipe']
  }))
  server.url = (await server.line(/listening on (ws:\/\/\S+)/))[1]
  return server
}

/** A running server process. `url` is where y-webrtc clients connect. */
class Server {
  constructor (child) {
    this.child = child
    this.output = []
    this.waiting = []
    this.exited = once(child, 'exit').then(([code, signal]) => ({ code, signal }))
    this.exited.then(({ code, signal }) => this.waiting.splice(0).forEach(wait =>
      wait.reject(new Error(`the server ended early (code ${code}, signal ${signal}):\n${this.output.join('\n')}`))))
    running.add(child)
    child.on('exit', () => running.delete(child))
    for (const stream of [child.stdout, child.stderr]) {
      createInterface({ input: stream }).on('line', line => this.heard(line))
    }
  }

  get port () { return Number(new URL(this.url).port) }

  heard (line) {
    this.output.push(line)
    if (this.output.length > 500) this.output.shift()
    this.waiting = this.waiting.filter(wait => {
      const match = wait.pattern.exec(line)
      if (match) wait.resolve(match)
      return !match
    })
  }

  /** The first output line, past or to come, that matches. */
  line (pattern) {
    for (const line of this.output) {
      const match = pattern.exec(line)
      if (match) return Promise.resolve(match)
    }
    return within(startMs, `a line like ${pattern}`, new Promise((resolve, reject) => {
      this.waiting.push({ pattern, resolve, reject })
    }))
  }

  /** As a power cut would end it. Resolves once the process is gone. */
  async kill () {
    this.child.kill('SIGKILL')
    return this.exited
  }

  /** As an operator would end it. Resolves with the exit code once the process is gone. */
  async stop (signal = 'SIGTERM') {
    this.child.kill(signal)
    return this.exited
  }
}

const running = new Set()
const killAll = () => running.forEach(child => child.kill('SIGKILL'))
// A test that failed half-way must not keep this process waiting for the servers that it started.
after(killAll)
process.on('exit', killAll)

/** Rejects with `what` unless `promise` settles within `ms`. */
export function within (ms, what, promise) {
  let timer
  const late = new Promise((resolve, reject) => {
    timer = setTimeout(() => reject(new Error(`${what}: not within ${ms} ms`)), ms)
  })
  return Promise.race([promise, late]).finally(() => clearTimeout(timer))
}

async function freePort () {
  const probe = net.createServer().listen(0, '127.0.0.1')
  await once(probe, 'listening')
  const { port } = probe.address()
  probe.close()
  await once(probe, 'close')
  return port
}

async function accepts (server, port) {
  for (let attempt = 1; ; attempt++) {
    const socket = net.connect(port, '127.0.0.1')
    try {
      await Promise.race([once(socket, 'connect'), server.exited.then(() => { throw new Error('the server ended early') })])
      return
    } catch (error) {
      if (attempt === 50 || server.child.exitCode !== null) throw error
      await new Promise(resolve => setTimeout(resolve, 20))
    } finally {
      socket.destroy()
    }
  }
}
