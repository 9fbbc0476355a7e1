// The Rust peers of peer-sdk/examples, as processes: an agent's MCP server over stdio, and a reviewer in a terminal.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import path from 'node:path'
import { createInterface } from 'node:readline'

const target = process.env.CARGO_TARGET_DIR ?? path.join(import.meta.dirname, '../../target')
const examples = process.env.E2E_PEER_EXAMPLES ?? path.join(target, 'debug/examples')
const stepMs = 20_000

/** Why there is none of them to run, or undefined when there is. */
export function whyNot () {
  const missing = ['mcp_server', 'annotate'].filter(name => !existsSync(path.join(examples, name)))
  return missing.length > 0 ? `${missing.join(' and ')} are not built: run "cargo build -p peer-sdk --examples" first` : undefined
}

class Program {
  constructor (name, args) {
    this.name = name
    this.said = []
    this.waiting = new Set()
    this.child = spawn(path.join(examples, name), args, { stdio: ['pipe', 'pipe', 'pipe'] })
    this.exited = once(this.child, 'exit')
    this.child.stdin.on('error', () => {})
    for (const stream of [this.child.stdout, this.child.stderr]) {
      createInterface({ input: stream }).on('line', line => {
        this.said.push(line)
        for (const look of this.waiting) look(line)
      })
    }
  }

  /** The next line that passes, past ones included. */
  line (what, pick) {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.waiting.delete(look)
        reject(new Error(`${this.name} has not said ${what} within ${stepMs} ms:\n${this.said.slice(-20).join('\n')}`))
      }, stepMs)
      const look = line => {
        const found = pick(line)
        if (!found) return
        clearTimeout(timer)
        this.waiting.delete(look)
        resolve(found)
      }
      this.waiting.add(look)
      for (const line of this.said) look(line)
    })
  }

  async kill () {
    this.child.kill('SIGKILL')
    await this.exited
  }
}

/** A reviewer in a terminal. */
export class Terminal extends Program {
  constructor (...args) { super('annotate', args) }

  type (line) { this.child.stdin.write(`${line}\n`) }
  shows (words) { return this.line(words, line => line.includes(words)) }
}

/** An agent: a client of the MCP server, and so its owner. */
export class Agent extends Program {
  static async start (...args) {
    const agent = new Agent('mcp_server', args)
    await agent.call('initialize', { protocolVersion: '2025-06-18', capabilities: {}, clientInfo: { name: 'e2e', version: '1' } })
    agent.child.stdin.write('{"jsonrpc":"2.0","method":"notifications/initialized"}\n')
    return agent
  }

  ids = 0

  async call (method, params) {
    const id = ++this.ids
    this.child.stdin.write(`${JSON.stringify({ jsonrpc: '2.0', id, method, params })}\n`)
    const answer = await this.line(`an answer to ${method}`, line => {
      if (!line.startsWith('{')) return undefined
      const message = JSON.parse(line)
      return message.id === id ? message : undefined
    })
    if (answer.error) throw new Error(`${method}: ${answer.error.message}`)
    return answer.result
  }

  /** What a tool answers, as text. */
  async tool (name, args) {
    const { content, isError } = await this.call('tools/call', { name, arguments: args })
    const text = content.map(({ text }) => text).join('\n')
    if (isError) throw new Error(`${name}: ${text}`)
    return text
  }

  async hasNote (plan, said) {
    for (const end = Date.now() + stepMs; Date.now() < end;) {
      if ((await this.tool('list_annotations', { plan_id: plan })).includes(said)) return
      await new Promise(resolve => setTimeout(resolve, 20))
    }
    throw new Error(`the agent has not got "${said}" within ${stepMs} ms`)
  }
}
